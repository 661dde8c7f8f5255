"""Landscapes under a sky: mountains, hills, sea, lake, forest, city, desert, house, flowers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oms_app.training.first_scenes.sky import FirstLight, FirstSky, Rgb, paint_sky, paler, rgb, surface
from oms_app.training.scenes.canvas import Canvas, below, ridge


def _snowy(light: FirstLight, colour: Rgb) -> Rgb:
    return 0.2 * colour + 0.8 * rgb(0.90, 0.93, 1.0) if light.weather == "snow" else colour


def mountains(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky, ground: float = 0.80) -> None:
    """Peaks with a lit and a shaded face, two or three rows."""
    rock = [rgb(0.44, 0.42, 0.48), rgb(0.48, 0.40, 0.36), rgb(0.36, 0.42, 0.48)][rng.integers(3)]
    rows = int(rng.integers(2, 4))
    for row in range(rows):
        distance = 0.85 - 0.75 * row / (rows - 1)
        base = 0.58 + (ground - 0.58) * row / (rows - 1)
        peaks = int(rng.integers(2, 5))
        for x in (np.arange(peaks) + rng.uniform(0.2, 0.8, peaks)) / peaks:
            x, top = float(x), base - rng.uniform(0.18, 0.38) * (1.05 - 0.25 * row)
            w = (base + 0.25 - top) * rng.uniform(0.8, 1.1)
            foot = base + 0.25
            zig = [(x, top)] + [
                (x + w * 0.1 * float(rng.uniform(-1, 1)) + 0.03 * k, top + (foot - top) * k / 4) for k in range(1, 5)
            ]
            bright, shade = (1.18, 0.66) if light.toward <= 0 else (0.66, 1.18)
            if light.toward == 0:
                bright, shade = (0.95, 0.78) if light.side == "above" else (0.62, 0.55)
            colour = _snowy(light, rock)
            c.polygon([(x, top), (x - w, foot), *zig[:0:-1]], surface(colour * bright, sky, distance))
            c.polygon([*zig, (x + w, foot)], surface(colour * shade, sky, distance))
            if light.weather != "snow" and rng.random() < 0.6:
                h = 0.3
                left = [
                    (x, top),
                    (x - w * h, top + (foot - top) * h),
                    (x - w * h * 0.45, top + (foot - top) * h * 0.75),
                    (zig[1][0], zig[1][1]),
                ]
                right = [
                    (x, top),
                    (zig[1][0], zig[1][1]),
                    (x + w * h * 0.5, top + (foot - top) * h * 0.7),
                    (x + w * h, top + (foot - top) * h),
                ]
                white = rgb(0.95, 0.96, 1.0)
                c.polygon(left, surface(white * min(bright, 1.0), sky, distance))
                c.polygon(right, surface(white * min(shade, 1.0), sky, distance))
    meadow = _snowy(light, rgb(0.28, 0.40, 0.22))
    c.polygon(below(ridge(rng, ground + 0.06, 0.06, 3)), surface(meadow * 0.8, sky, 0.1))


def hills(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky) -> None:
    green = [rgb(0.36, 0.62, 0.24), rgb(0.50, 0.62, 0.26), rgb(0.26, 0.52, 0.30)][rng.integers(3)]
    n = int(rng.integers(3, 6))
    for k in range(n):
        near = k / (n - 1)
        line = ridge(rng, 0.60 + 0.30 * near, 0.08 + 0.06 * near, 2, 0.0)
        c.polygon(below(line), surface(_snowy(light, green) * (1.1 - 0.42 * near), sky, 0.75 * (1 - near)))
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            _round_tree(
                c,
                float(rng.uniform(0.08, 0.92)),
                float(rng.uniform(0.72, 0.88)),
                float(rng.uniform(0.03, 0.055)),
                light,
                sky,
            )


def _round_tree(c: Canvas, x: float, y: float, r: float, light: FirstLight, sky: FirstSky) -> None:
    leaf = surface(_snowy(light, rgb(0.20, 0.42, 0.18)), sky, 0.15)
    c.polygon(
        [(x - 0.18 * r, y + 1.8 * r), (x - 0.1 * r, y), (x + 0.1 * r, y), (x + 0.18 * r, y + 1.8 * r)],
        surface(rgb(0.3, 0.2, 0.14), sky, 0.1),
    )
    c.disc(x, y, r, leaf * 0.75)
    c.disc(x + 0.22 * r * light.toward, y - 0.2 * r, 0.72 * r, leaf * 1.15)


def _water(
    c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky, horizon: float, bottom: float = 1.01
) -> None:
    deep = surface(rgb(0.14, 0.40, 0.58), sky, 0.1)
    far = 0.55 * deep + 0.45 * sky.low
    t = np.clip((c.y - horizon) / max(bottom - horizon, 0.05), 0, 1)[..., None]
    c.polygon(
        [(0, horizon), (1, horizon), (1, bottom), (0, bottom)],
        np.broadcast_to((1 - t) * far + t * deep, c.pixels.shape),
    )
    for k in range(9):
        y = horizon + (bottom - horizon) * ((k + rng.random()) / 9) ** 1.4
        h = 0.004 + 0.008 * (y - horizon)
        strips = [(float(x), y, float(rng.uniform(0.05, 0.16)), h) for x in rng.random(3)]
        c.ellipses(strips, paler(far, 0.25), 0.4)


def _glitter(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky, horizon: float) -> None:
    """The sun's or the moon's road on the water."""
    x = {"left": 0.16, "right": 0.84}.get(light.side, 0.5)
    colour = paler(sky.low, 0.55)
    strips = []
    for k in range(14):
        y = horizon + 0.012 + (1.0 - horizon) * (k / 14) ** 1.3
        strips.append(
            (
                x + float(rng.normal()) * 0.012,
                y,
                float(rng.uniform(0.02, 0.05)) * (0.6 + k / 14),
                0.004 + 0.003 * k / 14,
            )
        )
    c.ellipses(strips, colour, 0.75)


def sea(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky) -> None:
    horizon = rng.uniform(0.52, 0.64)
    _water(c, rng, light, sky, horizon)
    if light.side != "above" and light.weather in ("clear", "cloudy"):
        _glitter(c, rng, light, sky, horizon)
    if rng.random() < 0.45:
        _boat(c, float(rng.uniform(0.25, 0.75)), horizon + rng.uniform(0.02, 0.12), rng.uniform(0.06, 0.1), light, sky)


def _boat(c: Canvas, x: float, y: float, r: float, light: FirstLight, sky: FirstSky) -> None:
    sail = surface(rgb(0.97, 0.95, 0.9), sky, 0.15)
    c.polygon(
        [(x - 0.05 * r, y - 1.9 * r), (x - 0.05 * r, y - 0.25 * r), (x - 0.85 * r, y - 0.25 * r)],
        sail * (1 if light.toward <= 0 else 0.7),
    )
    c.polygon(
        [(x + 0.08 * r, y - 1.6 * r), (x + 0.75 * r, y - 0.25 * r), (x + 0.08 * r, y - 0.25 * r)],
        sail * (1 if light.toward > 0 else 0.7),
    )
    c.polygon(
        [(x - r, y - 0.12 * r), (x + r, y - 0.12 * r), (x + 0.65 * r, y + 0.3 * r), (x - 0.65 * r, y + 0.3 * r)],
        surface(rgb(0.5, 0.22, 0.14), sky, 0.1),
    )


def lake(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky) -> None:
    """Mountains and their mirror image."""
    shore = rng.uniform(0.6, 0.68)
    mountains(c, rng, light, sky, ground=shore - 0.06)
    n = c.size
    row = int(shore * n)
    depth = n - row
    mirror = c.pixels[row - depth : row][::-1].copy()
    deep = surface(rgb(0.12, 0.32, 0.46), sky, 0.1)
    c.pixels[row:] = 0.55 * mirror + 0.45 * deep
    for k in range(6):
        y = shore + (1 - shore) * (k + rng.random()) / 6
        c.ellipses(
            [(float(x), y, float(rng.uniform(0.06, 0.2)), 0.004) for x in rng.random(2)], paler(sky.low, 0.2), 0.3
        )


def forest(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky) -> None:
    green = [rgb(0.14, 0.36, 0.20), rgb(0.20, 0.38, 0.16), rgb(0.12, 0.32, 0.27)][rng.integers(3)]
    for _row, (distance, foot, size, n) in enumerate(
        ((0.75, 0.70, 0.16, 13), (0.4, 0.80, 0.24, 9), (0.08, 0.95, 0.36, 6))
    ):
        colour = surface(_snowy(light, green) if light.weather == "snow" else green, sky, distance)
        line = ridge(rng, foot, 0.03, 3)
        c.polygon(below(line), colour * 0.85)
        lit, dark = [], []
        for x in (np.arange(n) + rng.uniform(0.1, 0.9, n)) / n:
            x, h = float(x), size * float(rng.uniform(0.7, 1.1))
            y = float(np.interp(x, np.linspace(0, 1, 129), line)) + 0.02
            for k in range(3):
                w, top, base = h * (0.13 + 0.08 * k), y - h + 0.24 * h * k, y - h * 0.62 + 0.3 * h * k
                dark.append([(x, top), (x - w, base), (x + w, base)])
                s = light.toward
                if s:
                    lit.append([(x, top), (x + s * w, base), (x + s * 0.15 * w, base)])
        c.polygons(dark, colour)
        if lit:
            c.polygons(lit, colour * 1.35 + 0.02)
    if light.weather != "snow":
        c.polygon(below(ridge(rng, 0.97, 0.03, 2)), surface(rgb(0.22, 0.30, 0.14), sky, 0.05))


def city(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky) -> None:
    glowing = light.time in ("night", "dusk") or light.weather == "storm"
    for distance, n, tall in ((0.7, 12, 0.40), (0.15, 7, 0.52)):
        x, windows = -0.02, []
        while x < 1.0:
            w = rng.uniform(0.06, 0.12) * (1.0 if n > 10 else 1.45)
            top = 0.92 - tall * rng.uniform(0.35, 1.0)
            wall = [rgb(0.50, 0.52, 0.58), rgb(0.58, 0.50, 0.46), rgb(0.42, 0.46, 0.52)][rng.integers(3)]
            colour = surface(wall * (0.95 if distance > 0.5 else 0.8), sky, distance)
            c.polygon([(x, top), (x + w, top), (x + w, 1.01), (x, 1.01)], colour)
            if light.toward:
                edge = x if light.toward < 0 else x + 0.7 * w
                c.polygon(
                    [(edge, top), (edge + 0.3 * w, top), (edge + 0.3 * w, 1.01), (edge, 1.01)],
                    np.clip(colour * 1.3 + 0.02, 0, 1),
                )
            if distance < 0.5:
                columns = max(2, int(w / 0.035))
                for a in range(columns):
                    for b in np.arange(top + 0.03, 0.9, 0.05):
                        if rng.random() < 0.62:
                            wx = x + w * (a + 0.28) / columns
                            windows.append([(wx, b), (wx + 0.016, b), (wx + 0.016, b + 0.024), (wx, b + 0.024)])
            x += w + (rng.uniform(0.0, 0.03) if distance < 0.5 else 0)
        c.polygons(
            windows,
            rgb(1.0, 0.84, 0.45) if glowing else surface(rgb(0.75, 0.85, 0.95), sky, 0.1),
            0.95 if glowing else 0.6,
        )
    ground = _snowy(light, rgb(0.30, 0.31, 0.33))
    c.polygon([(0, 0.93), (1, 0.93), (1, 1.01), (0, 1.01)], surface(ground, sky, 0.05))


def desert(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky) -> None:
    """Dunes: a lit and a shaded flank each."""
    sand = [rgb(0.90, 0.72, 0.44), rgb(0.86, 0.60, 0.38), rgb(0.94, 0.82, 0.58)][rng.integers(3)]
    for k in range(4):
        near = k / 3
        base, h = 0.60 + 0.28 * near, 0.08 + 0.07 * near
        colour = surface(_snowy(light, sand), sky, 0.6 * (1 - near))
        line = ridge(rng, base, h, 2, 0.0)
        c.polygon(below(line), colour * (1.0 - 0.06 * k))
        crest = int(rng.integers(35, 95))
        x, y = crest / 128, float(line[crest])
        s = light.toward or 1.0
        reach = 0.36 * s
        side = np.linspace(0, 1, 12)
        edge = [
            (x - reach * float(u), float(np.interp(np.clip(x - reach * u, 0, 1), np.linspace(0, 1, 129), line)))
            for u in side
        ]
        c.polygon(
            [*edge, (x - 0.5 * reach, base + 0.14), (x + 0.05 * s, base + 0.12)],
            colour * (0.72 if light.toward else 0.9),
        )
    if rng.random() < 0.5 and light.weather != "snow":
        x, y, r = float(rng.uniform(0.15, 0.85)), 0.84, float(rng.uniform(0.05, 0.08))
        green = surface(rgb(0.24, 0.45, 0.22), sky, 0.05)
        c.lines([[(x, y + r), (x, y - 1.4 * r)]], 0.5 * r, green)
        c.lines(
            [
                [(x, y), (x - 0.8 * r, y), (x - 0.8 * r, y - 0.8 * r)],
                [(x, y - 0.3 * r), (x + 0.8 * r, y - 0.3 * r), (x + 0.8 * r, y - r)],
            ],
            0.35 * r,
            green,
        )


def house(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky) -> None:
    """A lone house on a hill."""
    green = _snowy(light, rgb(0.38, 0.58, 0.26))
    c.polygon(below(ridge(rng, 0.70, 0.10, 2, 0.0)), surface(green, sky, 0.55))
    line = ridge(rng, 0.84, 0.10, 2, 0.0)
    c.polygon(below(line), surface(green * 0.82, sky, 0.1))
    x, r = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.10, 0.15))
    y = float(np.interp(x, np.linspace(0, 1, 129), line)) - 0.72 * r
    wall = [rgb(0.93, 0.88, 0.78), rgb(0.80, 0.42, 0.34), rgb(0.62, 0.70, 0.78)][rng.integers(3)]
    k_left, k_right = (1.0, 0.7) if light.toward <= 0 else (0.7, 1.0)
    c.polygon([(x - 0.9 * r, y), (x, y), (x, y + r), (x - 0.9 * r, y + r)], surface(wall * k_left, sky, 0.05))
    c.polygon([(x, y), (x + 0.9 * r, y), (x + 0.9 * r, y + r), (x, y + r)], surface(wall * k_right, sky, 0.05))
    roof = _snowy(light, rgb(0.48, 0.20, 0.16))
    c.polygon(
        [
            (x - 1.1 * r, y + 0.05 * r),
            (x - 0.55 * r, y - 0.75 * r),
            (x + 0.55 * r, y - 0.75 * r),
            (x + 1.1 * r, y + 0.05 * r),
        ],
        surface(roof, sky, 0.05),
    )
    glowing = light.time in ("night", "dusk") or light.weather in ("storm",)
    pane = rgb(1.0, 0.85, 0.45) if glowing else surface(rgb(0.55, 0.70, 0.82), sky, 0.1)
    c.polygons(
        [
            [
                (x + a * r, y + 0.3 * r),
                (x + (a + 0.3) * r, y + 0.3 * r),
                (x + (a + 0.3) * r, y + 0.62 * r),
                (x + a * r, y + 0.62 * r),
            ]
            for a in (-0.65, 0.35)
        ],
        pane,
    )
    c.polygon(
        [(x - 0.12 * r, y + 0.45 * r), (x + 0.14 * r, y + 0.45 * r), (x + 0.14 * r, y + r), (x - 0.12 * r, y + r)],
        surface(rgb(0.34, 0.2, 0.14), sky, 0.05),
    )
    if rng.random() < 0.6:
        side = -1 if x > 0.5 else 1
        _round_tree(c, x + side * 2.2 * r, y + 0.05 * r, 0.42 * r, light, sky)


def flowers(c: Canvas, rng: np.random.Generator, light: FirstLight, sky: FirstSky) -> None:
    """A meadow; the blossoms grow towards the viewer."""
    green = _snowy(light, rgb(0.30, 0.55, 0.22))
    for near, base in ((0.0, 0.62), (0.5, 0.70), (1.0, 0.80)):
        c.polygon(below(ridge(rng, base, 0.06, 2, 0.0)), surface(green * (1.1 - 0.3 * near), sky, 0.6 * (1 - near)))
    tints = [
        rgb(0.92, 0.20, 0.22),
        rgb(0.98, 0.82, 0.20),
        rgb(0.95, 0.55, 0.75),
        rgb(0.60, 0.35, 0.80),
        rgb(0.97, 0.97, 0.95),
    ]
    chosen = rng.permutation(5)[: int(rng.integers(1, 4))]
    for k in range(3):
        n = (26, 18, 9)[k]
        size, low, high = ((0.008, 0.68, 0.78), (0.014, 0.76, 0.88), (0.027, 0.86, 0.98))[k]
        for tint in chosen:
            spots = [
                (float(x), float(y), size, size)
                for x, y in zip(rng.random(n // len(chosen) + 1), rng.uniform(low, high, n), strict=False)
            ]
            c.ellipses(spots, surface(tints[tint], sky, 0.25 * (2 - k)))
            if k:
                c.ellipses(
                    [(x, y, 0.4 * size, 0.4 * size) for x, y, _, _ in spots], surface(rgb(0.5, 0.3, 0.1), sky, 0.1)
                )


LANDSCAPES: dict[str, Callable[[Canvas, np.random.Generator, FirstLight, FirstSky], None]] = {
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


def draw_landscape(c: Canvas, rng: np.random.Generator, subject: str, light: FirstLight) -> None:
    sky = paint_sky(c, rng, light)
    LANDSCAPES[subject](c, rng, light, sky)
    if light.weather == "fog":
        c.blend(sky.low, 0.25 * np.clip(1.3 - np.abs(c.y - 0.65) * 2.2, 0, 1) * np.ones_like(c.x))
    if light.weather == "snow":
        flakes = rng.random((int(rng.integers(30, 70)), 3))
        c.ellipses(
            [(float(x), float(y), 0.004 + 0.004 * float(s), 0.004 + 0.004 * float(s)) for x, y, s in flakes],
            paler(sky.low, 0.7),
            0.9,
        )
    if light.weather == "storm":
        drops = rng.random((26, 2))
        c.lines(
            [[(float(x), float(y)), (float(x) - 0.012, float(y) + 0.045)] for x, y in drops],
            0.004,
            paler(sky.low, 0.35),
            0.45,
        )
