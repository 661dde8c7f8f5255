"""Shapes, figures and line-art marks: what stands on a plain ground. Each draws itself at (cx, cy) with a radius."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oms_app.training.scenes.canvas import Canvas, Point, heart, regular, ring, star

Rgb = np.ndarray


def darker(colour: Rgb, k: float) -> Rgb:
    return np.asarray(colour, np.float32) * k


def paler(colour: Rgb, k: float) -> Rgb:
    colour = np.asarray(colour, np.float32)
    return colour + k * (1 - colour)


OUTLINES: dict[str, Callable[[float, float, float], list[Point]]] = {
    "circle": ring,
    "square": lambda x, y, r: regular(x, y, r * 1.2, 4, np.pi / 4),
    "triangle": lambda x, y, r: regular(x, y + 0.15 * r, r * 1.2, 3),
    "star": lambda x, y, r: star(x, y, r * 1.2),
    "heart": heart,
    "diamond": lambda x, y, r: [(x, y - 1.25 * r), (x + 0.85 * r, y), (x, y + 1.25 * r), (x - 0.85 * r, y)],
    "hexagon": lambda x, y, r: regular(x, y, r * 1.1, 6),
    "cross": lambda x, y, r: [
        (x + a * r, y + b * r)
        for a, b in (
            (-0.35, -1.05),
            (0.35, -1.05),
            (0.35, -0.35),
            (1.05, -0.35),
            (1.05, 0.35),
            (0.35, 0.35),
            (0.35, 1.05),
            (-0.35, 1.05),
            (-0.35, 0.35),
            (-1.05, 0.35),
            (-1.05, -0.35),
            (-0.35, -0.35),
        )
    ],
}
SHAPES = (*OUTLINES, "ring", "crescent")


def draw_shape(canvas: Canvas, name: str, cx: float, cy: float, r: float, colour: Rgb, ground: Rgb) -> None:
    if name == "ring":
        canvas.disc(cx, cy, r, colour)
        canvas.disc(cx, cy, r * 0.58, ground)
    elif name == "crescent":
        canvas.disc(cx, cy, r, colour)
        canvas.disc(cx + 0.45 * r, cy - 0.12 * r, r * 0.85, ground)
    else:
        canvas.polygon(OUTLINES[name](cx, cy, r), colour)


def _ball(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    """A sphere with a shadow; `toward` is where the light comes from: -1 left, 0 above, 1 right."""
    c.ellipses([(x - 0.25 * toward * r, y + r * 0.98, r * 0.9, r * 0.16)], (0, 0, 0), 0.35)
    c.disc(x, y, r, _shaded(c, x, y, r, colour, toward))


def _shaded(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> np.ndarray:
    """The colour field of a lit sphere, (size, size, 3)."""
    nx, ny = (c.x - x) / r, (c.y - y) / r
    facing = np.clip(0.62 + 0.5 * (nx * (0.85 * toward) - ny * (0.75 if toward == 0 else 0.45)), 0.18, 1.15)
    shine = np.exp(-(((nx - 0.4 * toward) ** 2 + (ny + 0.45) ** 2) / 0.05))
    return facing[..., None] * np.asarray(colour, np.float32) + 0.6 * shine[..., None]


def _flower(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    green = np.array((0.18, 0.5, 0.2), np.float32)
    c.lines([[(x, y), (x + 0.06 * r, y + 0.7 * r), (x, y + 1.5 * r)]], 0.1 * r, green)
    c.ellipses(
        [(x + 0.28 * r, y + 1.1 * r, 0.26 * r, 0.11 * r), (x - 0.26 * r, y + 0.95 * r, 0.26 * r, 0.11 * r)], green
    )
    petals = regular(x, y, 0.52 * r, 6)
    c.ellipses([(a, b, 0.33 * r, 0.33 * r) for a, b in petals], colour)
    lit = [(a, b, 0.2 * r, 0.2 * r) for a, b in petals if (a - x) * toward >= -1e-6 and b <= y + 0.3 * r]
    c.ellipses(lit, paler(colour, 0.25), 0.6)
    c.disc(x, y, 0.3 * r, (0.98, 0.8, 0.2) if colour[2] > 0.35 or colour[1] < 0.5 else (0.45, 0.25, 0.1))


def _tree(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    c.polygon(
        [(x - 0.13 * r, y + 1.15 * r), (x - 0.08 * r, y), (x + 0.08 * r, y), (x + 0.13 * r, y + 1.15 * r)],
        (0.36, 0.24, 0.15),
    )
    crown = [
        (x, y - 0.45 * r, 0.62 * r, 0.62 * r),
        (x - 0.45 * r, y - 0.05 * r, 0.48 * r, 0.48 * r),
        (x + 0.45 * r, y - 0.05 * r, 0.48 * r, 0.48 * r),
    ]
    c.ellipses(crown, darker(colour, 0.72))
    c.ellipses([(a + 0.12 * r * toward, b - 0.1 * r, s * 0.78, t * 0.78) for a, b, s, t in crown], colour)


def _house(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    wall, side = np.asarray(colour, np.float32), darker(colour, 0.7)
    left, right = (side, wall) if toward > 0 else (wall, side)
    c.polygon(
        [(x - 0.9 * r, y - 0.1 * r), (x - 0.1 * r, y - 0.1 * r), (x - 0.1 * r, y + r), (x - 0.9 * r, y + r)], left
    )
    c.polygon(
        [(x - 0.1 * r, y - 0.1 * r), (x + 0.9 * r, y - 0.1 * r), (x + 0.9 * r, y + r), (x - 0.1 * r, y + r)], right
    )
    roof = np.array((0.5, 0.2, 0.16), np.float32)
    c.polygon(
        [(x - 1.02 * r, y - 0.05 * r), (x - 0.5 * r, y - 0.85 * r), (x + 0.02 * r, y - 0.05 * r)], left * 0.9 + 0.05
    )
    c.polygon(
        [
            (x - 0.5 * r, y - 0.85 * r),
            (x + 0.65 * r, y - 0.85 * r),
            (x + 1.05 * r, y - 0.05 * r),
            (x - 0.02 * r, y - 0.05 * r),
        ],
        roof,
    )
    c.polygon(
        [(x - 0.62 * r, y + 0.4 * r), (x - 0.36 * r, y + 0.4 * r), (x - 0.36 * r, y + r), (x - 0.62 * r, y + r)],
        (0.28, 0.17, 0.12),
    )
    for wx in (0.2, 0.58):
        c.polygon(
            [
                (x + wx * r, y + 0.25 * r),
                (x + (wx + 0.22) * r, y + 0.25 * r),
                (x + (wx + 0.22) * r, y + 0.52 * r),
                (x + wx * r, y + 0.52 * r),
            ],
            (1.0, 0.88, 0.5),
        )


def _fish(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    c.polygon(
        [(x + 0.6 * r, y), (x + 1.25 * r, y - 0.5 * r), (x + 1.1 * r, y), (x + 1.25 * r, y + 0.5 * r)],
        darker(colour, 0.8),
    )
    c.polygon(
        [(x - 0.1 * r, y - 0.45 * r), (x + 0.3 * r, y - 0.85 * r), (x + 0.45 * r, y - 0.35 * r)], darker(colour, 0.8)
    )
    c.ellipses([(x - 0.15 * r, y, r, 0.56 * r)], colour)
    c.ellipses([(x - 0.15 * r, y - 0.2 * r, 0.7 * r, 0.22 * r)], paler(colour, 0.35), 0.6)
    c.disc(x - 0.68 * r, y - 0.1 * r, 0.15 * r, (1, 1, 1))
    c.disc(x - 0.7 * r, y - 0.1 * r, 0.08 * r, (0.05, 0.05, 0.05))


def _mushroom(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    c.polygon([(x - 0.24 * r, y), (x + 0.24 * r, y), (x + 0.33 * r, y + r), (x - 0.33 * r, y + r)], (0.93, 0.88, 0.78))
    t = np.linspace(np.pi, 2 * np.pi, 40)
    c.polygon([(x + r * float(np.cos(a)), y + 0.12 * r + 1.05 * r * float(np.sin(a))) for a in t], colour)
    spots = [(-0.45, -0.35, 0.15), (0.1, -0.6, 0.17), (0.5, -0.25, 0.13), (-0.08, -0.15, 0.1)]
    c.ellipses([(x + a * r, y + b * r, s * r, s * r * 0.9) for a, b, s in spots], (0.98, 0.96, 0.92))


def _cat(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    """A cat's face."""
    for s in (-1, 1):
        c.polygon(
            [(x + s * 0.85 * r, y - 1.05 * r), (x + s * 0.9 * r, y - 0.1 * r), (x + s * 0.15 * r, y - 0.6 * r)], colour
        )
        c.polygon(
            [(x + s * 0.73 * r, y - 0.78 * r), (x + s * 0.74 * r, y - 0.35 * r), (x + s * 0.4 * r, y - 0.55 * r)],
            (0.95, 0.6, 0.62),
        )
    c.ellipses([(x, y + 0.1 * r, 0.98 * r, 0.82 * r)], colour)
    dark = (0.06, 0.06, 0.07) if float(np.mean(colour)) > 0.25 else (0.85, 0.9, 0.4)
    c.ellipses([(x - 0.4 * r, y, 0.14 * r, 0.19 * r), (x + 0.4 * r, y, 0.14 * r, 0.19 * r)], dark)
    c.polygon([(x - 0.1 * r, y + 0.28 * r), (x + 0.1 * r, y + 0.28 * r), (x, y + 0.4 * r)], (0.9, 0.45, 0.5))
    c.lines([[(x - 0.2 * r, y + 0.52 * r), (x, y + 0.42 * r), (x + 0.2 * r, y + 0.52 * r)]], 0.05 * r, dark)


FIGURES: dict[str, Callable[[Canvas, float, float, float, Rgb, float], None]] = {
    "ball": _ball,
    "flower": _flower,
    "tree": _tree,
    "house": _house,
    "fish": _fish,
    "mushroom": _mushroom,
    "cat": _cat,
}


def _closed(points: list[Point]) -> list[Point]:
    return [*points, points[0]]


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    t = np.linspace(start, end, 24)
    return [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in t]


MARKS: dict[str, Callable[[float, float, float], list[list[Point]]]] = {
    "circle": lambda x, y, r: [_closed(ring(x, y, r)), _closed(ring(x, y, 0.6 * r))],
    "star": lambda x, y, r: [_closed(star(x, y, 1.1 * r))],
    "heart": lambda x, y, r: [_closed(heart(x, y, r))],
    "mountain": lambda x, y, r: [
        _closed(
            [
                (x - 1.1 * r, y + 0.8 * r),
                (x - 0.2 * r, y - 0.8 * r),
                (x + 0.25 * r, y),
                (x + 0.5 * r, y - 0.35 * r),
                (x + 1.1 * r, y + 0.8 * r),
            ]
        ),
        [
            (x - 0.5 * r, y - 0.25 * r),
            (x - 0.25 * r, y - 0.1 * r),
            (x - 0.1 * r, y - 0.3 * r),
            (x + 0.05 * r, y - 0.32 * r),
        ],
    ],
    "sun": lambda x, y, r: (
        [_closed(ring(x, y, 0.5 * r))]
        + [
            [
                (x + 0.72 * r * float(np.cos(a)), y + 0.72 * r * float(np.sin(a))),
                (x + 1.05 * r * float(np.cos(a)), y + 1.05 * r * float(np.sin(a))),
            ]
            for a in np.arange(8) * np.pi / 4
        ]
    ),
    "wave": lambda x, y, r: [
        [
            (x + float(u) * r, y + (k - 1) * 0.5 * r + 0.16 * r * float(np.sin(5.2 * u)))
            for u in np.linspace(-1.1, 1.1, 40)
        ]
        for k in range(3)
    ],
    "house": lambda x, y, r: [
        [(x - 1.1 * r, y), (x, y - 0.95 * r), (x + 1.1 * r, y)],
        [
            (x - 0.8 * r, y - 0.2 * r),
            (x - 0.8 * r, y + 0.9 * r),
            (x + 0.8 * r, y + 0.9 * r),
            (x + 0.8 * r, y - 0.2 * r),
        ],
        [
            (x - 0.2 * r, y + 0.9 * r),
            (x - 0.2 * r, y + 0.3 * r),
            (x + 0.2 * r, y + 0.3 * r),
            (x + 0.2 * r, y + 0.9 * r),
        ],
    ],
    "leaf": lambda x, y, r: [
        _closed(
            _arc(x - 0.9 * r, y, 1.15 * r, 1.15 * r, -0.9, 0.9) + _arc(x + 0.54 * r, y, 1.15 * r, 1.15 * r, 2.24, 4.04)
        ),
        [(x - 0.18 * r, y - 0.7 * r), (x - 0.18 * r, y + 1.2 * r)],
    ],
    "flower": lambda x, y, r: (
        [_closed(ring(a, b, 0.36 * r)) for a, b in regular(x, y, 0.62 * r, 5)] + [_closed(ring(x, y, 0.25 * r))]
    ),
    "cat": lambda x, y, r: [
        _closed(
            [
                (x - 0.85 * r, y - r),
                (x - 0.3 * r, y - 0.55 * r),
                (x + 0.3 * r, y - 0.55 * r),
                (x + 0.85 * r, y - r),
                (x + 0.95 * r, y + 0.2 * r),
                (x + 0.45 * r, y + 0.85 * r),
                (x - 0.45 * r, y + 0.85 * r),
                (x - 0.95 * r, y + 0.2 * r),
            ]
        ),
        [(x - 0.38 * r, y - 0.05 * r), (x - 0.36 * r, y + 0.05 * r)],
        [(x + 0.38 * r, y - 0.05 * r), (x + 0.36 * r, y + 0.05 * r)],
        [(x - 0.18 * r, y + 0.48 * r), (x, y + 0.36 * r), (x + 0.18 * r, y + 0.48 * r)],
    ],
}
