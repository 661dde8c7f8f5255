"""A small anti-aliased painter on a float picture; the scenes are drawn with it.

Coordinates are fractions of the picture's side: (0, 0) is the upper left corner, (1, 1) the lower right one.
Colours are sRGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = Sequence[float] | np.ndarray
OVERSAMPLING = 3  # masks are drawn this many times larger, then averaged down: clean edges


class Canvas:
    """A square picture, (size, size, 3) float32 in sRGB [0, 1]."""

    def __init__(self, size: int = 256) -> None:
        self.size = size
        self.pixels = np.zeros((size, size, 3), np.float32)
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x = centres[None, :]
        self.y = centres[:, None]

    def gradient(self, top: Colour, bottom: Colour, *, power: float = 1.0, end: float = 1.0) -> None:
        """Fill everything from `top` to `bottom`, which is reached at height `end`."""
        t = np.clip(self.y / end, 0, 1)[..., None] ** power
        self.pixels[:] = (1 - t) * np.asarray(top, np.float32) + t * np.asarray(bottom, np.float32)

    def paint(
        self,
        draw: Callable[[ImageDraw.ImageDraw, float, float, float], None],
        box: tuple[float, float, float, float],
        colour: Colour,
        opacity: float = 1.0,
    ) -> None:
        """Paint `colour`, one colour or a (size, size, 3) field, where `draw` draws. `box` bounds it: x0, y0, x1, y1.

        `draw` is given the mask's painter, the scale and the offsets: x_mask = x · scale - dx.
        """
        n = self.size
        x0, y0 = max(int(np.floor(box[0] * n)) - 1, 0), max(int(np.floor(box[1] * n)) - 1, 0)
        x1, y1 = min(int(np.ceil(box[2] * n)) + 1, n), min(int(np.ceil(box[3] * n)) + 1, n)
        if x1 <= x0 or y1 <= y0:
            return
        mask = Image.new("L", ((x1 - x0) * OVERSAMPLING, (y1 - y0) * OVERSAMPLING))
        draw(ImageDraw.Draw(mask), n * OVERSAMPLING, x0 * OVERSAMPLING, y0 * OVERSAMPLING)
        alpha = np.asarray(mask.reduce(OVERSAMPLING), np.float32)[..., None] * (opacity / 255)
        part = self.pixels[y0:y1, x0:x1]
        field = np.asarray(colour, np.float32)
        if field.ndim == 3:
            field = field[y0:y1, x0:x1]
        part += alpha * (field - part)

    def polygons(self, shapes: Sequence[Sequence[Point]], colour: Colour, opacity: float = 1.0) -> None:
        points = [p for shape in shapes for p in shape]
        if not points:
            return
        xs, ys = [p[0] for p in points], [p[1] for p in points]

        def draw(d: ImageDraw.ImageDraw, s: float, dx: float, dy: float) -> None:
            for shape in shapes:
                d.polygon([(x * s - dx, y * s - dy) for x, y in shape], fill=255)

        self.paint(draw, (min(xs), min(ys), max(xs), max(ys)), colour, opacity)

    def polygon(self, points: Sequence[Point], colour: Colour, opacity: float = 1.0) -> None:
        self.polygons([points], colour, opacity)

    def ellipses(
        self, shapes: Sequence[tuple[float, float, float, float]], colour: Colour, opacity: float = 1.0
    ) -> None:
        """Each shape: centre x, centre y, radius x, radius y."""
        if not shapes:
            return

        def draw(d: ImageDraw.ImageDraw, s: float, dx: float, dy: float) -> None:
            for cx, cy, rx, ry in shapes:
                d.ellipse([(cx - rx) * s - dx, (cy - ry) * s - dy, (cx + rx) * s - dx, (cy + ry) * s - dy], fill=255)

        box = (
            min(e[0] - e[2] for e in shapes),
            min(e[1] - e[3] for e in shapes),
            max(e[0] + e[2] for e in shapes),
            max(e[1] + e[3] for e in shapes),
        )
        self.paint(draw, box, colour, opacity)

    def disc(self, cx: float, cy: float, radius: float, colour: Colour, opacity: float = 1.0) -> None:
        self.ellipses([(cx, cy, radius, radius)], colour, opacity)

    def lines(self, paths: Sequence[Sequence[Point]], width: float, colour: Colour, opacity: float = 1.0) -> None:
        """Strokes with round joints and ends."""
        points = [p for path in paths for p in path]
        xs, ys = [p[0] for p in points], [p[1] for p in points]

        def draw(d: ImageDraw.ImageDraw, s: float, dx: float, dy: float) -> None:
            r = width * s / 2
            for path in paths:
                moved = [(x * s - dx, y * s - dy) for x, y in path]
                d.line(moved, fill=255, width=max(1, round(2 * r)), joint="curve")
                for x, y in moved:
                    d.ellipse([x - r, y - r, x + r, y + r], fill=255)

        pad = width
        self.paint(draw, (min(xs) - pad, min(ys) - pad, max(xs) + pad, max(ys) + pad), colour, opacity)

    def glow(self, cx: float, cy: float, radius: float, colour: Colour, strength: float = 1.0) -> None:
        """Add a soft round light."""
        d2 = ((self.x - cx) ** 2 + (self.y - cy) ** 2) / radius**2
        self.pixels += (strength * np.exp(-d2))[..., None] * np.asarray(colour, np.float32)

    def blend(self, colour: Colour, amount: np.ndarray | float) -> None:
        """Mix everything with a colour; `amount` is a number or a (size, size) field in [0, 1]."""
        field = amount[..., None] if isinstance(amount, np.ndarray) else amount
        self.pixels += field * (np.asarray(colour, np.float32) - self.pixels)

    def multiply(self, field: np.ndarray | float) -> None:
        self.pixels *= field[..., None] if isinstance(field, np.ndarray) else np.float32(field)

    def shoulder(self, knee: float = 0.72) -> None:
        """Compress the highlights as film does, so that strong light keeps its drawing."""
        over = np.maximum(self.pixels - knee, 0)
        room = np.float32(1.0 - knee)
        self.pixels[:] = np.minimum(self.pixels, knee) + room * (1 - np.exp(-over / room))

    def to_uint8(self) -> np.ndarray:
        return (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def regular(cx: float, cy: float, radius: float, corners: int, turn: float = 0.0) -> list[Point]:
    """A regular polygon; `turn` in radians, 0 puts a corner on top."""
    angles = turn - np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    return [(cx + radius * float(np.cos(a)), cy + radius * float(np.sin(a))) for a in angles]


def star(cx: float, cy: float, radius: float, points: int = 5, inner: float = 0.42, turn: float = 0.0) -> list[Point]:
    outline = []
    for i, (x, y) in enumerate(regular(cx, cy, radius, 2 * points, turn)):
        k = inner if i % 2 else 1.0
        outline.append((cx + (x - cx) * k, cy + (y - cy) * k))
    return outline


def heart(cx: float, cy: float, radius: float) -> list[Point]:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [(cx + radius * float(a) / 16, cy - radius * (float(b) + 2) / 16) for a, b in zip(x, y, strict=True)]


def ring(cx: float, cy: float, radius: float, corners: int = 64) -> list[Point]:
    """The outline of a circle."""
    return regular(cx, cy, radius, corners)


def crescent(cx: float, cy: float, radius: float) -> list[Point]:
    """A moon that opens to the right."""
    t = np.linspace(0.75, 2 * np.pi - 0.75, 40)
    tip = radius * float(np.cos(0.75))
    outer = [(cx + radius * float(np.cos(a)), cy + radius * float(np.sin(a))) for a in t]
    u = np.linspace(1, -1, 30)
    height = radius * float(np.sin(0.75))
    inner = [(cx + tip - 1.15 * radius * float(np.sqrt(max(1 - b * b, 0))) * 0.85, cy + float(b) * -height) for b in u]
    return [*outer, *inner]


def ridge(rng: np.random.Generator, base: float, height: float, waves: int, roughness: float = 0.5) -> np.ndarray:
    """The height of a smooth skyline at 129 places from left to right."""
    x = np.linspace(0, 1, 129)
    y = np.zeros_like(x)
    for k in range(1, waves + 1):
        y += rng.normal() * np.sin(2 * np.pi * (k * x * 0.7 + rng.random())) / k ** (1.6 - roughness)
    y = (y - y.min()) / max(float(np.ptp(y)), 1e-6)
    return base - height * y


def below(line: np.ndarray) -> list[Point]:
    """The region under a skyline."""
    x = np.linspace(0, 1, len(line))
    return [(0.0, 1.01), *((float(a), float(b)) for a, b in zip(x, line, strict=True)), (1.0, 1.01)]
