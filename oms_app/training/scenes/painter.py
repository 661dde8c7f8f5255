"""Captioned procedural scenes: training data of Lumen's second generation. The same seed always gives the same scene.

python -m oms_app.training.scenes.painter sheet.png     a contact sheet of 64
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image

from oms_app.measure.color import srgb_to_lab
from oms_app.training.scenes import captions
from oms_app.training.scenes.canvas import Canvas
from oms_app.training.scenes.captions import ORDINARY_CHROMA, Facts, SceneLook, Speaker
from oms_app.training.scenes.figures import FIGURES
from oms_app.training.scenes.landscapes import LANDSCAPES, draw_landscape
from oms_app.training.scenes.shapes import SHAPES, draw_shape
from oms_app.training.scenes.sky import SIDES, TIMES, WEATHERS, Light
from oms_app.training.scenes.words import COLOURS

SIZE = 256  # pixels a side
CAPTIONS_PER_SCENE = 4
KINDS = {"solid": 0.10, "shape": 0.20, "figure": 0.26, "landscape": 0.44}
VOCABULARY = captions.vocabulary((*SHAPES, *FIGURES))
DARK_STYLES = ("neon", "candle", "spotlight")  # of shapes and figures: the ground is nearly black


@dataclass(frozen=True)
class Scene:
    """image: (256, 256, 3) uint8 sRGB; captions: ways to say it; facts: what is true of it."""

    image: np.ndarray
    captions: tuple[str, ...]
    facts: Facts


def draw(seed: int, *, kind: str | None = None, **fixed: str) -> Scene:
    """Draw scene number `seed`. `kind` and the fields of Facts in `fixed` may be prescribed (for tests and sheets)."""
    rng = np.random.default_rng((seed, 20261125))
    chosen = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    kind = kind or chosen
    canvas = Canvas(SIZE)
    neutral = False
    if kind == "landscape":
        facts = _landscape(canvas, rng, fixed)
    else:
        facts, neutral = _on_ground(canvas, rng, kind, fixed)
    image = canvas.to_uint8()
    speaker = Speaker(facts, look(image), neutral, rng)
    return Scene(image, tuple(speaker.say() for _ in range(CAPTIONS_PER_SCENE)), facts)


def look(image: np.ndarray) -> SceneLook:
    """(H, W, 3) uint8 → what captions may say of the picture as a whole."""
    lab = srgb_to_lab(image[::8, ::8])
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    return SceneLook(
        float(lab[..., 0].mean()), float(lab[..., 0].std()), float(lab[..., 2].mean()), float(chroma.mean())
    )


def _side_light(canvas: Canvas, side: str, strength: float) -> None:
    """Light falls off across the picture; `behind` and `above` fall off from the middle and from the top."""
    x, y = canvas.x, canvas.y
    falls = {
        "left": x + 0 * y,
        "right": 1 - x + 0 * y,
        "above": y + 0 * x,
        "behind": np.sqrt((x - 0.5) ** 2 + (y - 0.45) ** 2) * 1.3,
    }[side]
    canvas.multiply(1.0 + strength * (0.45 - falls))


def _landscape(canvas: Canvas, rng: np.random.Generator, fixed: dict[str, str]) -> Facts:
    subject = fixed.get("subject") or str(rng.choice(list(LANDSCAPES)))
    time = fixed.get("time") or str(rng.choice(TIMES, p=[0.20, 0.09, 0.16, 0.19, 0.36]))
    weather = fixed.get("weather") or str(rng.choice(WEATHERS, p=[0.60, 0.14, 0.09, 0.08, 0.09]))
    side = fixed.get("side") or str(rng.choice(SIDES, p=[0.28, 0.28, 0.24, 0.20]))
    chance = rng.random()
    bright_sky = time in ("twilight", "dusk", "dawn") and weather in ("clear", "cloudy")
    style = fixed.get("style", "silhouette" if bright_sky and chance < 0.18 else "noir" if chance > 0.97 else "")
    moon = time == "night" and weather == "clear" and side != "above" and rng.random() < 0.75
    gain = float(np.exp(rng.normal() * 0.18))
    if time == "night" and not moon and rng.random() < 0.4:
        gain *= 0.55
    draw_landscape(canvas, rng, subject, Light(time, weather, side, moon, style == "silhouette", gain))
    if side in ("left", "right"):
        _side_light(canvas, side, 0.8)
    canvas.multiply(gain)
    canvas.shoulder()
    if style == "noir":
        _noir(canvas)
    facts_moon = ("moon" if moon else "moonless") if time == "night" else ""
    return Facts("landscape", subject, time=time, weather=weather, side=side, style=style, moon=facts_moon)


def _noir(canvas: Canvas) -> None:
    """Without colour, dark and of strong contrast."""
    grey = canvas.pixels @ np.array((0.30, 0.59, 0.11), np.float32)
    grey = np.clip(grey, 0, 1) ** 1.25
    canvas.pixels[:] = (0.05 + 0.9 * (grey * grey * (3 - 2 * grey)))[..., None]


def _named_colour(rng: np.random.Generator, name: str, shade: str = "") -> np.ndarray:
    colour = np.array(COLOURS[name], np.float32)
    if name in ("black", "white", "gray"):
        colour = np.clip(colour + rng.normal() * (0.05 if name == "gray" else 0.02), 0, 1)
    else:
        colour = np.clip(colour + rng.normal(size=3) * 0.03, 0, 1)
    if shade == "dark":
        colour = colour * rng.uniform(0.3, 0.5)
    if shade == "pale":
        colour = colour + rng.uniform(0.55, 0.8) * (1 - colour)
    return colour.astype(np.float32)


def apart_from(ground: np.ndarray) -> list[str]:
    """Names of the colours that stand out on a ground, (3,) in [0, 1]."""
    return [n for n in COLOURS if np.abs(np.array(COLOURS[n]) - ground).sum() > 0.75]


def _ground_of(rng: np.random.Generator, style: str, kind: str) -> tuple[str, str]:
    """The name and the shade of a ground. Many subjects stand on a pale one that is nothing to speak of."""
    if style in DARK_STYLES:
        return "black", ""
    u = float(rng.random())
    if kind != "solid" and u < 0.5:
        return str(rng.choice(("white", "gray", "gray", "yellow", "brown", "blue", "pink"))), "pale"
    weights = np.array([3.0 if n in ("black", "white") else 1.0 for n in COLOURS])
    name = str(rng.choice(list(COLOURS), p=weights / weights.sum()))
    v = float(rng.random())
    return name, "" if name in ("black", "white") or v > 0.35 else "dark" if v < 0.18 else "pale"


def _style_of(rng: np.random.Generator, kind: str) -> str:
    u = float(rng.random())
    shares = {
        "shape": (("neon", 0.10), ("spotlight", 0.04)),
        "figure": (("candle", 0.06), ("spotlight", 0.05), ("silhouette", 0.04), ("noir", 0.03), ("neon", 0.03)),
    }.get(kind, ())
    for name, share in shares:
        if u < share:
            return name
        u -= share
    return ""


def _on_ground(canvas: Canvas, rng: np.random.Generator, kind: str, fixed: dict[str, str]) -> tuple[Facts, bool]:
    """A plain ground and what stands on it. Also returns whether the ground has hardly any colour and is pale."""
    style = fixed.get("style", _style_of(rng, kind) if "ground" not in fixed else "")
    name, shade = _ground_of(rng, style, kind)
    if "ground" in fixed:
        name, shade = fixed["ground"], ""
    if name == "white":
        shade = ""
    ground = _named_colour(rng, name, shade)
    lit = rng.random() < (0.30 if kind != "solid" else 0.15) and not style
    side = fixed.get("side", str(rng.choice(SIDES)) if lit else "")
    canvas.pixels[:] = ground
    neutral = float(ground.max() - ground.min()) <= ORDINARY_CHROMA and float(ground.mean()) > 0.55
    if side:
        _lit_ground(canvas, side)
    if kind == "solid":
        return Facts("solid", ground=name, ground_shade=shade, side=side), neutral
    colour_name = fixed.get("colour") or str(rng.choice(apart_from(ground)))
    colour = _named_colour(rng, colour_name)
    several = int(rng.choice((1, 2, 3), p=(0.88, 0.08, 0.04))) if kind == "shape" and not style else 1
    names = SHAPES if kind == "shape" else tuple(FIGURES)
    subject = fixed.get("subject") or str(rng.choice(names))
    _set_stage(canvas, style, colour)
    for k in range(several):
        r = float(rng.uniform(0.22, 0.30)) / (1 + 0.6 * (several > 1))
        x, y = (float(v) for v in rng.uniform(0.42, 0.58, 2))
        if several > 1:
            x = (k + 0.5) / several
        if kind == "shape":
            behind = canvas.pixels.copy() if subject in ("ring", "crescent") else ground
            draw_shape(canvas, subject, x, y, r, _lit(canvas, colour, side), behind)
        else:
            toward = {"left": -1.0, "right": 1.0}.get(side, 0.0)
            _figure(canvas, subject, x, y - 0.03, r * 0.95, colour, toward, style == "silhouette")
    _finish(canvas, style)
    if style == "silhouette":
        name, shade, colour_name = "", "", ""
    return Facts(kind, subject, name, shade, colour_name, side=side, style=style, several=several), neutral


def _figure(
    canvas: Canvas, name: str, x: float, y: float, r: float, colour: np.ndarray, toward: float, silhouette: bool
) -> None:
    if not silhouette:
        FIGURES[name](canvas, x, y, r, colour, toward)
        return
    shown = []
    for ground in (0.0, 1.0):  # what differs between a black and a white ground is not covered by the figure
        part = Canvas(canvas.size)
        part.pixels[:] = ground
        FIGURES[name](part, x, y, r, colour, toward)
        shown.append(part.pixels)
    bare = (shown[1] - shown[0]).mean(-1, keepdims=True)
    canvas.pixels[:] = canvas.pixels * bare + 0.02 * (1 - bare)


def _set_stage(canvas: Canvas, style: str, colour: np.ndarray) -> None:
    """What a style paints behind the subject."""
    if style == "neon":
        canvas.glow(0.5, 0.5, 0.42, np.maximum(colour, 0.08), 0.5)
    elif style == "spotlight":
        canvas.glow(0.5, 0.62, 0.36, (1.0, 0.98, 0.92), 0.6)
    elif style == "silhouette":
        canvas.pixels[:] = np.array((0.55, 0.24, 0.12), np.float32)
        canvas.glow(0.5, 0.5, 0.5, (1.0, 0.75, 0.4), 0.6)


def _finish(canvas: Canvas, style: str) -> None:
    """What a style does to the whole picture."""
    if style == "candle":
        canvas.glow(0.5, 0.6, 0.55, (0.50, 0.24, 0.06), 0.35)
        falls = np.sqrt((canvas.x - 0.5) ** 2 + (canvas.y - 0.58) ** 2)
        canvas.multiply(np.clip(1.1 - 1.3 * falls, 0.05, 1))
        canvas.pixels[:] *= np.array((1.0, 0.74, 0.42), np.float32)
    elif style == "noir":
        _noir(canvas)


def _lit_ground(canvas: Canvas, side: str) -> None:
    """Plain grounds must show the side too, black ones included: a little of the light itself is added."""
    canvas.pixels[:] = canvas.pixels * 0.82 + 0.09
    _side_light(canvas, side, 1.1)
    canvas.shoulder(0.85)


def _lit(canvas: Canvas, colour: np.ndarray, side: str) -> np.ndarray:
    """A colour, or its field under side light."""
    if side not in ("left", "right"):
        return colour
    x = canvas.x if side == "left" else 1 - canvas.x
    field = np.clip((1.0 + 0.7 * (0.45 - x))[..., None] * (colour * 0.9 + 0.05), 0, 1)
    return np.broadcast_to(field, canvas.pixels.shape)


def contact_sheet(seeds: range, columns: int = 8, side: int = 160) -> Image.Image:
    tiles = [Image.fromarray(draw(s).image).resize((side, side), Image.Resampling.LANCZOS) for s in seeds]
    sheet = Image.new("RGB", (columns * side, -(-len(tiles) // columns) * side))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * side, i // columns * side))
    return sheet


if __name__ == "__main__":
    contact_sheet(range(64)).save(sys.argv[1])
