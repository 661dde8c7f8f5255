"""Still life: what stands on a plain ground. Each figure draws itself at (cx, cy) with a radius, large and simple."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oms_app.training.scenes.canvas import Canvas, Point, regular
from oms_app.training.scenes.sky import Rgb, rgb

GREEN = rgb(0.20, 0.50, 0.22)


def darker(colour: Rgb, k: float) -> Rgb:
    return np.asarray(colour, np.float32) * k


def _shadow(c: Canvas, x: float, y: float, r: float, toward: float) -> None:
    """A soft shadow on the ground, away from the light."""
    for k in (1.0, 0.8, 0.6):
        c.ellipses([(x - 0.3 * toward * r, y, r * k, 0.2 * r * k)], (0, 0, 0), 0.16)


def _sphere(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float, shine: float = 0.5) -> np.ndarray:
    """The colour field of a lit sphere, (size, size, 3)."""
    nx, ny = (c.x - x) / r, (c.y - y) / r
    facing = np.clip(0.66 + 0.5 * (nx * (0.8 * toward) - ny * (0.7 if toward == 0 else 0.4)), 0.2, 1.12)
    spot = np.exp(-(((nx - 0.38 * toward) ** 2 + (ny + 0.42) ** 2) / 0.06))
    return np.clip(facing[..., None] * np.asarray(colour, np.float32) + shine * spot[..., None], 0, 1)


def _round(c: Canvas, x: float, r: float, colour: Rgb, toward: float) -> np.ndarray:
    """The colour field of a lit upright cylinder."""
    nx = (c.x - x) / r
    facing = np.clip(0.95 + 0.35 * nx * toward - (0.3 if toward == 0 else 0.12) * nx**2, 0.35, 1.15)
    field = facing[..., None] * np.asarray(colour, np.float32) * np.ones_like(c.y)[..., None]
    return np.clip(field, 0, 1)


def _ball(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    _shadow(c, x, y + r * 0.98, r * 0.95, toward)
    c.disc(x, y, r, _sphere(c, x, y, r, colour, toward))


def _apple(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    _shadow(c, x, y + r * 0.9, r * 0.8, toward)
    field = _sphere(c, x, y, r, colour, toward, 0.4)
    c.ellipses([(x + k * r, y, 0.62 * r, 0.86 * r) for k in (-0.36, 0.0, 0.36)], field)
    c.lines([[(x, y - 0.62 * r), (x + 0.08 * r, y - 1.1 * r)]], 0.13 * r, (0.36, 0.24, 0.14))
    c.ellipses([(x + 0.4 * r, y - 0.95 * r, 0.3 * r, 0.14 * r)], GREEN)


def _pear(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    _shadow(c, x, y + r * 0.98, r * 0.72, toward)
    field = _sphere(c, x, y + 0.2 * r, 0.9 * r, colour, toward, 0.4)
    c.ellipses([(x, y + 0.32 * r, 0.72 * r, 0.68 * r), (x, y - 0.4 * r, 0.42 * r, 0.48 * r)], field)
    sides = [
        (x - 0.42 * r, y - 0.4 * r),
        (x + 0.42 * r, y - 0.4 * r),
        (x + 0.66 * r, y + 0.1 * r),
        (x - 0.66 * r, y + 0.1 * r),
    ]
    c.polygon(sides, field)
    c.lines([[(x, y - 0.8 * r), (x + 0.06 * r, y - 1.2 * r)]], 0.12 * r, (0.36, 0.24, 0.14))


def _vase(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    _shadow(c, x, y + 1.1 * r, r * 0.6, toward)
    v = np.linspace(-1, 1, 40)
    width = 0.30 + 0.36 * np.exp(-(((v - 0.25) / 0.45) ** 2)) + 0.16 * np.exp(-(((v + 1) / 0.22) ** 2))
    right = [(x + float(w) * r, y + float(h) * 1.1 * r) for w, h in zip(width, v, strict=True)]
    left = [(2 * x - a, b) for a, b in right[::-1]]
    c.polygon([*right, *left], _round(c, x, 0.7 * r, colour, toward))
    c.ellipses([(x, y - 1.1 * r, 0.46 * r, 0.1 * r)], darker(colour, 0.45))


def _flower(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    c.lines([[(x, y), (x, y + 1.45 * r)]], 0.12 * r, GREEN)
    c.ellipses(
        [(x + 0.32 * r, y + 1.1 * r, 0.32 * r, 0.14 * r), (x - 0.32 * r, y + 0.95 * r, 0.32 * r, 0.14 * r)], GREEN
    )
    y -= 0.15 * r
    petals = regular(x, y, 0.56 * r, 6)
    for a, b in petals:
        lit = 1.0 + 0.14 * (toward * (a - x) / r if toward else (y - b) / r)
        c.disc(a, b, 0.36 * r, np.clip(colour * lit, 0, 1))
    c.disc(x, y, 0.32 * r, (0.98, 0.8, 0.2) if colour[2] > 0.35 or colour[1] < 0.5 else (0.45, 0.25, 0.1))


def _tree(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    trunk: list[Point] = [
        (x - 0.16 * r, y + 1.15 * r), (x - 0.11 * r, y), (x + 0.11 * r, y), (x + 0.16 * r, y + 1.15 * r),
    ]  # fmt: skip
    c.polygon(trunk, (0.36, 0.24, 0.15))
    crown = [
        (x, y - 0.5 * r, 0.62 * r, 0.62 * r),
        (x - 0.48 * r, y - 0.05 * r, 0.5 * r, 0.5 * r),
        (x + 0.48 * r, y - 0.05 * r, 0.5 * r, 0.5 * r),
    ]
    c.ellipses(crown, darker(colour, 0.68))
    c.ellipses([(a + 0.1 * r * toward, b - 0.1 * r, s * 0.8, t * 0.8) for a, b, s, t in crown], colour)


def _house(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    wall, shaded = np.asarray(colour, np.float32), darker(colour, 0.7)
    left, right = (shaded, wall) if toward > 0 else (wall, shaded)
    top, foot = y - 0.1 * r, y + r
    c.polygon([(x - 0.9 * r, top), (x, top), (x, foot), (x - 0.9 * r, foot)], left)
    c.polygon([(x, top), (x + 0.9 * r, top), (x + 0.9 * r, foot), (x, foot)], right)
    roof = [(x - 1.1 * r, top + 0.04 * r), (x, y - 0.95 * r), (x + 1.1 * r, top + 0.04 * r)]
    c.polygon(roof, (0.5, 0.2, 0.16))
    c.polygon(_box(x - 0.17 * r, y + 0.4 * r, 0.34 * r, 0.6 * r), (0.28, 0.17, 0.12))
    c.polygons([_box(x + a * r, y + 0.16 * r, 0.34 * r, 0.34 * r) for a in (-0.7, 0.36)], (1.0, 0.88, 0.5))


def _box(x: float, y: float, w: float, h: float) -> list[Point]:
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


def _boat(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    """A sailing boat whose sails have the colour named."""
    left, right = (1.0, 0.78) if toward <= 0 else (0.78, 1.0)
    c.polygon(_box(x - 0.04 * r, y - 1.1 * r, 0.08 * r, 1.6 * r), (0.36, 0.24, 0.15))
    c.polygon([(x - 0.1 * r, y - r), (x - 0.1 * r, y + 0.4 * r), (x - 0.95 * r, y + 0.4 * r)], darker(colour, left))
    c.polygon(
        [(x + 0.1 * r, y - 0.85 * r), (x + 0.85 * r, y + 0.4 * r), (x + 0.1 * r, y + 0.4 * r)], darker(colour, right)
    )
    hull = [
        (x - 1.1 * r, y + 0.5 * r),
        (x + 1.1 * r, y + 0.5 * r),
        (x + 0.7 * r, y + 0.95 * r),
        (x - 0.7 * r, y + 0.95 * r),
    ]
    c.polygon(hull, (0.55, 0.26, 0.16))


def _mushroom(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    _shadow(c, x, y + r, r * 0.6, toward)
    stem: list[Point] = [(x - 0.26 * r, y), (x + 0.26 * r, y), (x + 0.34 * r, y + r), (x - 0.34 * r, y + r)]
    c.polygon(stem, _round(c, x, 0.4 * r, rgb(0.93, 0.88, 0.78), toward))
    t = np.linspace(np.pi, 2 * np.pi, 40)
    cap = [(x + r * float(np.cos(a)), y + 0.12 * r + 1.05 * r * float(np.sin(a))) for a in t]
    c.polygon(cap, _sphere(c, x, y, 1.1 * r, colour, toward, 0.15))
    spots = [(-0.45, -0.35, 0.17), (0.1, -0.6, 0.19), (0.52, -0.22, 0.15)]
    c.ellipses([(x + a * r, y + b * r, s * r, s * r * 0.9) for a, b, s in spots], (0.98, 0.96, 0.92))


def _fish(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    fins = darker(colour, 0.75)
    c.polygon([(x + 0.5 * r, y), (x + 1.2 * r, y - 0.55 * r), (x + 1.2 * r, y + 0.55 * r)], fins)
    c.polygon([(x - 0.2 * r, y - 0.4 * r), (x + 0.3 * r, y - 0.9 * r), (x + 0.45 * r, y - 0.3 * r)], fins)
    field = _sphere(c, x - 0.15 * r, y, 0.95 * r, colour, toward, 0.0)
    c.ellipses([(x - 0.15 * r, y, r, 0.6 * r)], field)
    c.disc(x - 0.66 * r, y - 0.1 * r, 0.19 * r, (1, 1, 1))
    c.disc(x - 0.68 * r, y - 0.1 * r, 0.1 * r, (0.05, 0.05, 0.05))


def _cat(c: Canvas, x: float, y: float, r: float, colour: Rgb, toward: float) -> None:
    """A cat's face."""
    for s in (-1, 1):
        ear = [(x + s * 0.85 * r, y - 1.05 * r), (x + s * 0.92 * r, y - 0.05 * r), (x + s * 0.1 * r, y - 0.6 * r)]
        c.polygon(ear, darker(colour, 0.85))
    c.ellipses([(x, y + 0.12 * r, 0.98 * r, 0.84 * r)], colour)
    eyes = (0.06, 0.06, 0.07) if float(np.mean(colour)) > 0.25 else (0.85, 0.9, 0.4)
    c.ellipses([(x - 0.4 * r, y, 0.17 * r, 0.22 * r), (x + 0.4 * r, y, 0.17 * r, 0.22 * r)], eyes)
    c.polygon([(x - 0.15 * r, y + 0.32 * r), (x + 0.15 * r, y + 0.32 * r), (x, y + 0.5 * r)], (0.9, 0.45, 0.5))


FIGURES: dict[str, Callable[[Canvas, float, float, float, Rgb, float], None]] = {
    "ball": _ball,
    "apple": _apple,
    "pear": _pear,
    "vase": _vase,
    "flower": _flower,
    "tree": _tree,
    "house": _house,
    "boat": _boat,
    "mushroom": _mushroom,
    "fish": _fish,
    "cat": _cat,
}
