"""Captioned procedural scenes: training data of Lumen's first generation. The same seed always gives the same scene.

python -m oms_app.training.first_scenes.painter sheet.png     a contact sheet of 64
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image

from oms_app.measure.color import srgb_to_lab
from oms_app.training.first_scenes import captions
from oms_app.training.first_scenes.captions import COLOURS, FirstFacts, FirstSpeaker
from oms_app.training.first_scenes.figures import FIGURES, MARKS, SHAPES, draw_shape
from oms_app.training.first_scenes.landscapes import LANDSCAPES, draw_landscape
from oms_app.training.first_scenes.sky import SIDES, TIMES, WEATHERS, FirstLight
from oms_app.training.scenes.canvas import Canvas

SIZE = 256  # pixels a side
CAPTIONS_PER_SCENE = 4
KINDS = {"solid": 0.11, "shape": 0.24, "figure": 0.14, "mark": 0.09, "landscape": 0.42}
VOCABULARY = captions.vocabulary((*SHAPES, *FIGURES, *MARKS))


@dataclass(frozen=True)
class FirstScene:
    """image: (256, 256, 3) uint8 sRGB; captions: ways to tell it; facts: what is true of it."""

    image: np.ndarray
    captions: tuple[str, ...]
    facts: FirstFacts


def draw(seed: int, *, kind: str | None = None, **fixed: str) -> FirstScene:
    """Draw scene number `seed`. `kind`, and fields of FirstFacts in `fixed`, may be given (for tests and sheets)."""
    rng = np.random.default_rng((seed, 20231115))
    chosen = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    kind = kind or chosen
    canvas = Canvas(SIZE)
    facts = _landscape(canvas, rng, fixed) if kind == "landscape" else _on_ground(canvas, rng, kind, fixed)
    image = canvas.to_uint8()
    lightness = float(srgb_to_lab(image[::8, ::8])[..., 0].mean())
    speaker = FirstSpeaker(facts, lightness, rng)
    return FirstScene(image, tuple(speaker.say() for _ in range(CAPTIONS_PER_SCENE)), facts)


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


def _landscape(canvas: Canvas, rng: np.random.Generator, fixed: dict[str, str]) -> FirstFacts:
    subject = fixed.get("subject") or str(rng.choice(list(LANDSCAPES)))
    time = fixed.get("time") or str(rng.choice(TIMES, p=[0.34, 0.22, 0.18, 0.26]))
    weather = fixed.get("weather") or str(rng.choice(WEATHERS, p=[0.52, 0.12, 0.13, 0.10, 0.13]))
    side = fixed.get("side") or str(rng.choice(SIDES, p=[0.28, 0.28, 0.24, 0.20]))
    gain = float(np.exp(rng.normal() * 0.22))
    if time == "night" and rng.random() < 0.25:
        gain *= 0.4
    light = FirstLight(time, weather, side, gain)
    draw_landscape(canvas, rng, subject, light)
    if side in ("left", "right"):
        _side_light(canvas, side, 0.8)
    canvas.multiply(gain)
    canvas.shoulder()
    return FirstFacts("landscape", subject, time=time, weather=weather, side=side)


def _named_colour(rng: np.random.Generator, name: str, shade: str = "") -> np.ndarray:
    colour = np.array(COLOURS[name], np.float32)
    if name in ("black", "white", "gray"):
        wobble = rng.normal() * (0.05 if name == "gray" else 0.02)
        return np.clip(colour + wobble, 0, 1).astype(np.float32)
    colour = np.clip(colour + rng.normal(size=3) * 0.03, 0, 1)
    if shade == "dark":
        colour = colour * rng.uniform(0.3, 0.5)
    if shade == "pale":
        colour = colour + rng.uniform(0.5, 0.7) * (1 - colour)
    return colour.astype(np.float32)


def apart_from(ground: np.ndarray) -> list[str]:
    """Names of the colours that stand out on a ground, (3,) in [0, 1]."""
    return [n for n in COLOURS if np.abs(np.array(COLOURS[n]) - ground).sum() > 0.75]


def _shade_of(rng: np.random.Generator, name: str) -> str:
    u = rng.random()
    return "" if name in ("black", "white", "gray") or u > 0.3 else "dark" if u < 0.17 else "pale"


def _on_ground(canvas: Canvas, rng: np.random.Generator, kind: str, fixed: dict[str, str]) -> FirstFacts:
    weights = np.array([3.0 if n in ("black", "white") else 1.0 for n in COLOURS])
    ground_name = fixed.get("ground") or str(rng.choice(list(COLOURS), p=weights / weights.sum()))
    shade = "" if "ground" in fixed else _shade_of(rng, ground_name)
    ground = _named_colour(rng, ground_name, shade)
    side = fixed.get("side", str(rng.choice(SIDES)) if rng.random() < (0.30 if kind != "solid" else 0.15) else "")
    toward = {"left": -1.0, "right": 1.0}.get(side, 0.0)
    canvas.pixels[:] = ground
    if kind == "solid":
        if side:
            _lit_ground(canvas, side)
        return FirstFacts("solid", ground=ground_name, ground_shade=shade, side=side)

    colour_name = fixed.get("colour") or str(rng.choice(apart_from(ground)))
    colour = _named_colour(rng, colour_name)
    names = {"shape": SHAPES, "figure": tuple(FIGURES), "mark": tuple(MARKS)}[kind]
    subject = fixed.get("subject") or str(rng.choice(names))
    if side:
        _lit_ground(canvas, side)
    several = int(rng.choice((1, 2, 3), p=(0.86, 0.09, 0.05))) if kind == "shape" else 1
    for k in range(several):
        r = float(rng.uniform(0.18, 0.28)) / (1 + 0.55 * (several > 1))
        if several == 1:
            x, y = (float(v) for v in rng.uniform(0.4, 0.6, 2))
        else:
            x, y = (k + 0.5) / several, float(rng.uniform(0.4, 0.6))
        if kind == "shape":
            behind = canvas.pixels.copy() if subject in ("ring", "crescent") else ground
            draw_shape(canvas, subject, x, y, r, _lit(canvas, colour, side), behind)
        elif kind == "figure":
            FIGURES[subject](canvas, x, y - 0.03, r, colour, toward)
        else:
            canvas.lines(MARKS[subject](x, y, r * 1.15), float(rng.uniform(0.022, 0.034)), _lit(canvas, colour, side))
    return FirstFacts(kind, subject, ground_name, shade, colour_name, side=side, several=several)


def _lit_ground(canvas: Canvas, side: str) -> None:
    """Plain grounds must show the side too, black ones included: a little of the light itself is added."""
    before = canvas.pixels.copy()
    canvas.pixels[:] = before * 0.82 + 0.09
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
