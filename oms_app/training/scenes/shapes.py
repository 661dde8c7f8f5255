"""Plain shapes: outlines at (cx, cy) with a radius, filled with one colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oms_app.training.scenes.canvas import Canvas, Point, heart, regular, ring, star
from oms_app.training.scenes.sky import Rgb

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
