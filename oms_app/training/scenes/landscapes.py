"""Landscapes under a sky: mountains, hills, sea, lake, forest, city, desert, house, flowers. Few and large shapes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from oms_app.training.scenes.canvas import Canvas, Point, below, ridge
from oms_app.training.scenes.sky import Light, Rgb, Sky, paint_sky, paint_weather, paler, rgb, surface

PLACES = np.linspace(0, 1, 129)  # where `ridge` gives heights


def _snowy(light: Light, colour: Rgb) -> Rgb:
    return 0.2 * colour + 0.8 * rgb(0.90, 0.93, 1.0) if light.weather == "snow" else colour


def _height(line: np.ndarray, x: float) -> float:
    return float(np.interp(x, PLACES, line))


def _evenly(rng: np.random.Generator, n: int, loose: float = 0.5) -> list[float]:
    """n places from left to right, each near the middle of its share."""
    return [float(x) for x in (np.arange(n) + 0.5 + rng.uniform(-0.5, 0.5, n) * loose) / n]


def mountains(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky, ground: float = 0.80) -> None:
    """Two rows of peaks with a lit and a shaded face and a white cap."""
    rock = [rgb(0.44, 0.42, 0.48), rgb(0.50, 0.42, 0.37), rgb(0.36, 0.42, 0.50)][rng.integers(3)]
    rock = _snowy(light, rock)
    bright, shade = (1.2, 0.66) if light.toward <= 0 else (0.66, 1.2)
    if light.toward == 0:
        bright, shade = (1.0, 0.74) if light.side == "above" else (0.66, 0.52)
    for distance, base, low, high, n in ((0.7, 0.66, 0.26, 0.36, 3), (0.15, ground, 0.22, 0.34, 2)):
        foot = base + 0.16
        for x in _evenly(rng, n, 0.7):
            top = base - float(rng.uniform(low, high))
            w = (foot - top) * float(rng.uniform(0.75, 0.95))
            lean = w * float(rng.uniform(-0.08, 0.16))
            c.polygon([(x, top), (x - w, foot), (x + lean, foot)], surface(rock * bright, sky, distance))
            c.polygon([(x, top), (x + lean, foot), (x + w, foot)], surface(rock * shade, sky, distance))
            if light.weather != "snow":
                white, h = rgb(0.95, 0.96, 1.0), 0.28
                edge = (x + lean * h * 1.3, top + (foot - top) * h * 1.3)
                left: list[Point] = [(x, top), (x - w * h, top + (foot - top) * h), edge]
                right: list[Point] = [(x, top), edge, (x + w * h, top + (foot - top) * h)]
                c.polygon(left, surface(white * min(bright, 1.0), sky, distance))
                c.polygon(right, surface(white * min(shade + 0.1, 1.0), sky, distance))
    meadow = _snowy(light, rgb(0.30, 0.44, 0.22))
    c.polygon(below(ridge(rng, ground + 0.06, 0.05, 2, 0.0)), surface(meadow * 0.85, sky, 0.1))


def hills(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    green = [rgb(0.36, 0.62, 0.24), rgb(0.50, 0.62, 0.26), rgb(0.26, 0.52, 0.30)][rng.integers(3)]
    n = int(rng.integers(3, 5))
    for k in range(n):
        near = k / (n - 1)
        line = ridge(rng, 0.62 + 0.28 * near, 0.10 + 0.05 * near, 2, 0.0)
        c.polygon(below(line), surface(_snowy(light, green) * (1.12 - 0.45 * near), sky, 0.75 * (1 - near)))
    if rng.random() < 0.5:
        x = float(rng.uniform(0.15, 0.85))
        _round_tree(c, x, _height(line, x) - 0.08, float(rng.uniform(0.06, 0.08)), light, sky)


def _round_tree(c: Canvas, x: float, y: float, r: float, light: Light, sky: Sky) -> None:
    leaf = surface(_snowy(light, rgb(0.20, 0.42, 0.18)), sky, 0.1)
    trunk = surface(rgb(0.3, 0.2, 0.14), sky, 0.05)
    c.polygon([(x - 0.2 * r, y + 1.9 * r), (x - 0.13 * r, y), (x + 0.13 * r, y), (x + 0.2 * r, y + 1.9 * r)], trunk)
    c.disc(x, y, r, leaf * 0.75)
    c.disc(x + 0.2 * r * light.toward, y - 0.18 * r, 0.74 * r, leaf * 1.15)


def _water(c: Canvas, rng: np.random.Generator, sky: Sky, horizon: float) -> None:
    deep = surface(rgb(0.14, 0.40, 0.58), sky, 0.1)
    far = 0.55 * deep + 0.45 * sky.low
    t = np.clip((c.y - horizon) / max(1.01 - horizon, 0.05), 0, 1)[..., None]
    field = np.broadcast_to((1 - t) * far + t * deep, c.pixels.shape)
    c.polygon([(0, horizon), (1, horizon), (1, 1.01), (0, 1.01)], field)
    for k in range(4):
        y = horizon + (1 - horizon) * ((k + 0.6) / 4) ** 1.3
        strips = [(x, y, float(rng.uniform(0.08, 0.16)), 0.007 + 0.004 * k) for x in _evenly(rng, 2, 0.8)]
        c.ellipses(strips, paler(far, 0.2), 0.45)


def _glitter(c: Canvas, rng: np.random.Generator, sky: Sky, horizon: float) -> None:
    """The sun's or the moon's road on the water."""
    x = sky.lamp[0]
    strips = []
    for k in range(6):
        y = horizon + 0.02 + (1.0 - horizon) * (k / 6) ** 1.15
        strips.append((x + float(rng.normal()) * 0.01, y, 0.035 + 0.012 * k, 0.008 + 0.002 * k))
    c.ellipses(strips, paler(sky.low, 0.6), 0.8)


def sea(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    horizon = float(rng.uniform(0.54, 0.62))
    _water(c, rng, sky, horizon)
    shines = light.moon if light.time == "night" else light.side != "above"
    if shines and light.weather == "clear":
        _glitter(c, rng, sky, horizon)
    if rng.random() < 0.5:
        _boat(c, float(rng.uniform(0.3, 0.7)), horizon + float(rng.uniform(0.04, 0.12)), 0.12, light, sky)


def _boat(c: Canvas, x: float, y: float, r: float, light: Light, sky: Sky) -> None:
    sail = surface(rgb(0.97, 0.95, 0.9), sky, 0.1)
    left, right = (1.0, 0.75) if light.toward <= 0 else (0.75, 1.0)
    c.polygon([(x - 0.06 * r, y - 1.9 * r), (x - 0.06 * r, y - 0.25 * r), (x - 0.9 * r, y - 0.25 * r)], sail * left)
    c.polygon([(x + 0.08 * r, y - 1.6 * r), (x + 0.8 * r, y - 0.25 * r), (x + 0.08 * r, y - 0.25 * r)], sail * right)
    hull = surface(rgb(0.5, 0.22, 0.14), sky, 0.05)
    c.polygon(
        [(x - r, y - 0.12 * r), (x + r, y - 0.12 * r), (x + 0.65 * r, y + 0.32 * r), (x - 0.65 * r, y + 0.32 * r)], hull
    )


def lake(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    """Mountains and their mirror image."""
    shore = float(rng.uniform(0.6, 0.66))
    mountains(c, rng, light, sky, ground=shore - 0.06)
    row = int(shore * c.size)
    depth = c.size - row
    mirror = c.pixels[row - depth : row][::-1].copy()
    deep = surface(rgb(0.12, 0.32, 0.46), sky, 0.1)
    c.pixels[row:] = 0.55 * mirror + 0.45 * deep
    for k in range(3):
        y = shore + (1 - shore) * (k + 0.5) / 3
        c.ellipses([(x, y, float(rng.uniform(0.1, 0.18)), 0.007) for x in _evenly(rng, 2)], paler(sky.low, 0.2), 0.35)


def forest(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    green = _snowy(light, [rgb(0.14, 0.38, 0.20), rgb(0.22, 0.40, 0.16), rgb(0.12, 0.34, 0.28)][rng.integers(3)])
    for distance, foot, size, n in ((0.7, 0.70, 0.24, 7), (0.35, 0.82, 0.34, 5), (0.05, 0.98, 0.48, 3)):
        colour = surface(green, sky, distance)
        line = ridge(rng, foot, 0.03, 2, 0.0)
        c.polygon(below(line), colour * 0.8)
        lit, dark = (1.3, 1.0) if light.toward else (1.0, 1.0)
        for x in _evenly(rng, n, 0.6):
            h = size * float(rng.uniform(0.85, 1.1))
            _fir(c, x, _height(line, x) + 0.02, h, colour, light.toward, lit, dark)


def _fir(c: Canvas, x: float, y: float, h: float, colour: Rgb, toward: float, lit: float, dark: float) -> None:
    """A conifer of three tiers, its foot at (x, y); one half is lit if the light has a side."""
    for k in range(3):
        w, top, base = h * (0.15 + 0.07 * k), y - h + 0.22 * h * k, y - h * 0.58 + 0.29 * h * k
        left, right = (lit, dark) if toward < 0 else (dark, lit)
        c.polygon([(x, top), (x - w, base), (x, base)], np.clip(colour * left, 0, 1))
        c.polygon([(x, top), (x, base), (x + w, base)], np.clip(colour * right * (0.9 if toward == 0 else 1.0), 0, 1))


def city(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    """A far row without windows, a near row with a regular grid of them."""
    pane = rgb(1.0, 0.84, 0.45) if light.lamps else surface(rgb(0.72, 0.84, 0.95), sky, 0.1)
    for distance, n, tall in ((0.65, 8, 0.42), (0.1, 5, 0.5)):
        edges = np.linspace(-0.02, 1.02, n + 1)
        for a, b in pairwise(edges):
            gap = 0.0 if distance > 0.5 else 0.02
            x0, x1 = float(a) + gap, float(b) - gap
            top = 0.92 - tall * float(rng.uniform(0.4, 1.0))
            wall = [rgb(0.50, 0.52, 0.60), rgb(0.60, 0.51, 0.46), rgb(0.40, 0.46, 0.54)][rng.integers(3)]
            colour = surface(wall, sky, distance)
            c.polygon([(x0, top), (x1, top), (x1, 1.01), (x0, 1.01)], colour)
            if light.toward:
                e = x0 if light.toward < 0 else x0 + 0.7 * (x1 - x0)
                side = [(e, top), (e + 0.3 * (x1 - x0), top), (e + 0.3 * (x1 - x0), 1.01), (e, 1.01)]
                c.polygon(side, np.clip(colour * 1.25 + 0.02, 0, 1))
            if distance < 0.5:
                _windows(c, rng, x0, x1, top, pane, 0.95 if light.lamps else 0.65)
    ground = surface(_snowy(light, rgb(0.30, 0.31, 0.33)), sky, 0.05)
    c.polygon([(0, 0.93), (1, 0.93), (1, 1.01), (0, 1.01)], ground)


def _windows(c: Canvas, rng: np.random.Generator, x0: float, x1: float, top: float, pane: Rgb, opacity: float) -> None:
    columns = 3
    step = (x1 - x0) / columns
    shapes = []
    for a in range(columns):
        for y in np.arange(top + 0.04, 0.88, 0.075):
            if rng.random() < 0.85:
                x, y = x0 + step * (a + 0.25), float(y)
                shapes.append([(x, y), (x + 0.5 * step, y), (x + 0.5 * step, y + 0.042), (x, y + 0.042)])
    c.polygons(shapes, pane, opacity)


def desert(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    """Dunes with a shaded flank each, sometimes a cactus."""
    sand = _snowy(light, [rgb(0.90, 0.72, 0.44), rgb(0.86, 0.60, 0.38), rgb(0.94, 0.82, 0.58)][rng.integers(3)])
    s = light.toward or 1.0
    for k in range(3):
        near = k / 2
        base = 0.60 + 0.27 * near
        colour = surface(sand, sky, 0.6 * (1 - near)) * (1.0 - 0.05 * k)
        x, h = float(rng.uniform(0.25, 0.75)), 0.13 + 0.05 * near
        t = PLACES
        line = base - h * np.exp(-(((t - x) / 0.3) ** 2)) - 0.03 * np.sin(2 * np.pi * (0.5 * t + rng.random()))
        c.polygon(below(line), colour)
        flank = np.linspace(0, 1, 14)
        crest = [(x - s * 0.42 * float(u), _height(line, min(max(x - s * 0.42 * u, 0), 1))) for u in flank]
        foot = [(x - s * 0.42, base + 0.16), (x + 0.06 * s, base + 0.16), (x - 0.1 * s, base + 0.02)]
        c.polygon([*crest, *foot], colour * (0.74 if light.toward else 0.88))
    if rng.random() < 0.5 and light.weather != "snow":
        _cactus(c, float(rng.uniform(0.2, 0.8)), 0.82, 0.085, surface(rgb(0.24, 0.45, 0.22), sky, 0.05))


def _cactus(c: Canvas, x: float, y: float, r: float, green: Rgb) -> None:
    c.lines([[(x, y + r), (x, y - 1.4 * r)]], 0.5 * r, green)
    arms: list[list[Point]] = [
        [(x, y), (x - 0.8 * r, y), (x - 0.8 * r, y - 0.8 * r)],
        [(x, y - 0.3 * r), (x + 0.8 * r, y - 0.3 * r), (x + 0.8 * r, y - r)],
    ]
    c.lines(arms, 0.36 * r, green)


def house(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    """A lone house on a hill, with one tree beside it or none."""
    green = _snowy(light, rgb(0.38, 0.58, 0.26))
    c.polygon(below(ridge(rng, 0.70, 0.08, 2, 0.0)), surface(green, sky, 0.55))
    x, r = float(rng.uniform(0.36, 0.64)), float(rng.uniform(0.15, 0.19))
    hill = 0.86 - 0.06 * np.exp(-(((PLACES - x) / 0.35) ** 2))
    c.polygon(below(hill), surface(green * 0.82, sky, 0.1))
    if rng.random() < 0.6:
        _round_tree(c, x + (-1 if x > 0.5 else 1) * 2.0 * r, 0.80 - r * 0.7, 0.5 * r, light, sky)
    y = 0.815 - r
    wall = [rgb(0.93, 0.88, 0.78), rgb(0.80, 0.42, 0.34), rgb(0.62, 0.70, 0.78)][rng.integers(3)]
    left, right = (1.0, 0.72) if light.toward <= 0 else (0.72, 1.0)
    c.polygon([(x - 0.9 * r, y), (x, y), (x, y + r), (x - 0.9 * r, y + r)], surface(wall * left, sky, 0.05))
    c.polygon([(x, y), (x + 0.9 * r, y), (x + 0.9 * r, y + r), (x, y + r)], surface(wall * right, sky, 0.05))
    roof = surface(_snowy(light, rgb(0.48, 0.20, 0.16)), sky, 0.05)
    c.polygon(
        [
            (x - 1.12 * r, y + 0.05 * r),
            (x - 0.55 * r, y - 0.75 * r),
            (x + 0.55 * r, y - 0.75 * r),
            (x + 1.12 * r, y + 0.05 * r),
        ],
        roof,
    )
    pane = rgb(1.0, 0.85, 0.45) if light.lamps else surface(rgb(0.55, 0.70, 0.82), sky, 0.1)
    c.polygons([_box(x + a * r, y + 0.26 * r, 0.34 * r, 0.36 * r) for a in (-0.68, 0.36)], pane)
    c.polygon(_box(x - 0.14 * r, y + 0.42 * r, 0.3 * r, 0.58 * r), surface(rgb(0.34, 0.2, 0.14), sky, 0.05))


def _box(x: float, y: float, w: float, h: float) -> list[Point]:
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


TINTS = (
    rgb(0.92, 0.20, 0.22),
    rgb(0.98, 0.82, 0.20),
    rgb(0.95, 0.55, 0.75),
    rgb(0.60, 0.35, 0.80),
    rgb(0.97, 0.97, 0.95),
)


def flowers(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    """A meadow; the blossoms grow towards the viewer."""
    green = _snowy(light, rgb(0.30, 0.55, 0.22))
    for near, base in ((0.0, 0.62), (0.5, 0.70), (1.0, 0.80)):
        c.polygon(below(ridge(rng, base, 0.05, 2, 0.0)), surface(green * (1.1 - 0.3 * near), sky, 0.6 * (1 - near)))
    chosen = rng.permutation(len(TINTS))[: int(rng.integers(1, 3))]
    for k, (n, size, y) in enumerate(((9, 0.014, 0.73), (7, 0.024, 0.82), (5, 0.042, 0.93))):
        for x in _evenly(rng, n, 0.7):
            tint = surface(TINTS[int(rng.choice(chosen))], sky, 0.25 * (2 - k))
            v = y + float(rng.uniform(-0.025, 0.025))
            if k == 0:
                c.disc(x, v, size, tint)
                continue
            petals = [
                (x + 0.62 * size * float(np.cos(a)), v + 0.62 * size * float(np.sin(a)), 0.52 * size, 0.52 * size)
                for a in np.arange(5) * 2 * np.pi / 5 - np.pi / 2
            ]
            c.ellipses(petals, tint)
            c.disc(x, v, 0.36 * size, surface(rgb(0.75, 0.5, 0.1), sky, 0.1))


LANDSCAPES: dict[str, Callable[[Canvas, np.random.Generator, Light, Sky], None]] = {
    "mountains": mountains,
    "hills": hills,
    "sea": sea,
    "lake": lake,
    "forest": forest,
    "city": city,
    "desert": desert,
    "house": house,
    "flowers": flowers,
}


def draw_landscape(c: Canvas, rng: np.random.Generator, subject: str, light: Light) -> None:
    sky = paint_sky(c, rng, light)
    LANDSCAPES[subject](c, rng, light, sky)
    paint_weather(c, rng, light, sky)
