"""The sky over a landscape, and the light that it sheds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oms_app.training.scenes.canvas import Canvas, crescent

Rgb = np.ndarray
TIMES = ("night", "dusk", "dawn", "noon")
WEATHERS = ("clear", "cloudy", "fog", "storm", "snow")
SIDES = ("left", "right", "behind", "above")


@dataclass(frozen=True)
class FirstLight:
    """time, weather and side are words of TIMES, WEATHERS, SIDES; gain multiplies the finished picture."""

    time: str
    weather: str
    side: str
    gain: float = 1.0

    @property
    def toward(self) -> float:
        """Where the light comes from: -1 left, 1 right, 0 neither."""
        return {"left": -1.0, "right": 1.0}.get(self.side, 0.0)


def rgb(*values: float) -> Rgb:
    return np.array(values, np.float32)


# sky above, sky at the horizon, colour of the light on things, height of the light
SKIES: dict[str, list[tuple[Rgb, Rgb, Rgb]]] = {
    "night": [
        (rgb(0.01, 0.015, 0.05), rgb(0.05, 0.07, 0.17), rgb(0.15, 0.18, 0.30)),
        (rgb(0.00, 0.00, 0.02), rgb(0.02, 0.03, 0.08), rgb(0.09, 0.10, 0.17)),
        (rgb(0.04, 0.07, 0.18), rgb(0.14, 0.20, 0.38), rgb(0.26, 0.32, 0.48)),
    ],
    "dusk": [
        (rgb(0.22, 0.10, 0.34), rgb(0.96, 0.46, 0.22), rgb(0.55, 0.36, 0.36)),
        (rgb(0.13, 0.15, 0.38), rgb(0.98, 0.62, 0.36), rgb(0.50, 0.40, 0.42)),
        (rgb(0.36, 0.07, 0.20), rgb(0.98, 0.34, 0.14), rgb(0.56, 0.30, 0.26)),
    ],
    "dawn": [
        (rgb(0.46, 0.60, 0.86), rgb(1.00, 0.84, 0.74), rgb(0.86, 0.78, 0.74)),
        (rgb(0.60, 0.55, 0.80), rgb(1.00, 0.78, 0.80), rgb(0.84, 0.74, 0.78)),
        (rgb(0.52, 0.72, 0.84), rgb(1.00, 0.94, 0.76), rgb(0.90, 0.85, 0.74)),
    ],
    "noon": [
        (rgb(0.20, 0.50, 0.92), rgb(0.76, 0.90, 0.99), rgb(1.0, 1.0, 0.96)),
        (rgb(0.12, 0.42, 0.82), rgb(0.62, 0.82, 0.97), rgb(0.98, 0.97, 0.92)),
        (rgb(0.42, 0.70, 0.96), rgb(0.92, 0.97, 1.00), rgb(1.04, 1.03, 1.0)),
    ],
}


@dataclass
class FirstSky:
    """What the painters need to know of the light: colours, where the sun or moon stands, the haze."""

    low: Rgb  # colour at the horizon, with which distance mixes
    light: Rgb  # what the ground's own colours are multiplied with
    haze: float  # 0 clear, 1 nothing but fog


def paint_sky(c: Canvas, rng: np.random.Generator, light: FirstLight) -> FirstSky:
    top, low, on_things = SKIES[light.time][rng.integers(3)]
    haze = 0.0
    if light.weather == "storm":
        grey = {"night": 0.08, "dusk": 0.22, "dawn": 0.34, "noon": 0.38}[light.time]
        top, low = 0.25 * top + 0.45 * grey, 0.2 * low + 0.8 * rgb(0.95, 1.0, 1.05) * grey
        on_things = on_things * 0.5
    elif light.weather in ("fog", "snow", "cloudy"):
        pale = {"night": 0.17, "dusk": 0.52, "dawn": 0.76, "noon": 0.82}[light.time]
        mist = 0.35 * low + 0.65 * pale * rgb(0.98, 1.0, 1.02)
        k = {"fog": 0.85, "snow": 0.8, "cloudy": 0.65}[light.weather]
        top, low = (1 - k) * top + k * mist * 0.93, (1 - k) * low + k * mist
        haze = {"fog": 0.62, "snow": 0.2, "cloudy": 0.05}[light.weather]
    c.gradient(top, low, power=0.8, end=0.62)

    x = {"left": rng.uniform(0.06, 0.26), "right": rng.uniform(0.74, 0.94)}.get(light.side, rng.uniform(0.3, 0.7))
    y = rng.uniform(0.12, 0.30) if light.time in ("noon", "night") else rng.uniform(0.30, 0.44)
    hidden = light.weather in ("storm", "snow", "fog", "cloudy")
    if light.time == "night":
        if not hidden:
            n = int(rng.integers(15, 60))
            for opacity, radius in ((0.9, 0.0042), (0.65, 0.003)):
                c.ellipses(
                    [(float(a), float(b), radius, radius) for a, b in rng.random((n // 2, 2)) * (1, 0.6)],
                    (1, 1, 0.95),
                    opacity,
                )
        if light.side != "above" and (not hidden or rng.random() < 0.2):
            c.glow(x, y, 0.16, (0.45, 0.5, 0.62), 0.45)
            r = rng.uniform(0.035, 0.06)
            moon = rgb(0.95, 0.95, 0.88) if not hidden else 0.6 * low + 0.4 * rgb(0.9, 0.9, 0.85)
            if rng.random() < 0.35:
                c.polygon(crescent(x, y, r), moon)
            else:
                c.disc(x, y, r, moon)
                c.ellipses(
                    [(x - 0.3 * r, y - 0.2 * r, 0.22 * r, 0.22 * r), (x + 0.3 * r, y + 0.25 * r, 0.28 * r, 0.28 * r)],
                    moon * 0.86,
                )
    elif light.side != "above" and (not hidden or (light.weather != "storm" and rng.random() < 0.3)):
        warm = {"dusk": rgb(1.0, 0.55, 0.2), "dawn": rgb(1.0, 0.85, 0.6), "noon": rgb(1.0, 0.97, 0.8)}[light.time]
        c.disc(x, y, rng.uniform(0.04, 0.065), paler(warm, 0.6) if not hidden else paler(low, 0.85))
        c.glow(x, y, 0.30, warm, 0.35 if not hidden else 0.12)
        c.glow(x, y, 0.11, warm, 0.5 if not hidden else 0.2)
    if light.weather in ("cloudy", "storm") or (
        light.weather == "clear" and light.time != "night" and rng.random() < 0.45
    ):
        _clouds(c, rng, low, dark=light.weather == "storm" or light.time == "night", many=light.weather != "clear")
    if light.weather == "storm" and rng.random() < 0.55:
        _lightning(c, rng, x)
    return FirstSky(low, on_things, haze)


def paler(colour: Rgb, k: float) -> Rgb:
    return colour + k * (1 - colour)


def _clouds(c: Canvas, rng: np.random.Generator, low: Rgb, *, dark: bool, many: bool) -> None:
    for _ in range(int(rng.integers(4, 7)) if many else int(rng.integers(1, 4))):
        x, y, w = rng.random(), rng.uniform(0.06, 0.34), rng.uniform(0.09, 0.2)
        body = low * 0.6 if dark else paler(low, 0.65)
        puffs = [
            (x + w * a, y - w * 0.25 * b, w * s, w * s * 0.62)
            for a, b, s in (
                (-0.75, 0.0, 0.42),
                (-0.25, 0.7, 0.55),
                (0.3, 0.5, 0.5),
                (0.8, 0.0, 0.38),
                (0.0, -0.2, 0.75),
            )
        ]
        c.ellipses([(a, b + 0.014, p, q) for a, b, p, q in puffs], body * 0.82, 0.75)
        c.ellipses(puffs, body, 0.85)


def _lightning(c: Canvas, rng: np.random.Generator, x: float) -> None:
    path, y = [(x, 0.18)], 0.18
    while y < 0.56:
        y += rng.uniform(0.05, 0.1)
        x += rng.uniform(-0.06, 0.06)
        path.append((x, y))
    c.glow(x, 0.35, 0.25, (0.5, 0.5, 0.65), 0.35)
    c.lines([path], 0.011, (1.0, 1.0, 0.85))


def surface(colour: Rgb, sky: FirstSky, distance: float) -> Rgb:
    """A thing's colour under this light, as seen from afar: distance 0 is near, 1 at the horizon."""
    lit = np.clip(colour * sky.light, 0, 1)
    k = min(0.97, 0.55 * distance + sky.haze * (0.45 + 0.75 * distance))
    return (1 - k) * lit + k * sky.low
