"""The sky over a landscape, and the light that it sheds.

Nothing here is smaller than about 3 pixels: a latent cell is 8 pixels wide, and what is finer comes out as noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oms_app.training.scenes.canvas import Canvas, crescent

Rgb = np.ndarray
TIMES = ("night", "twilight", "dusk", "dawn", "noon")
WEATHERS = ("clear", "cloudy", "fog", "storm", "snow")
SIDES = ("left", "right", "behind", "above")


@dataclass(frozen=True)
class Light:
    """time, weather and side are words of TIMES, WEATHERS, SIDES. moon: at night, whether there is one.
    silhouette: things are nearly black against the sky. gain multiplies the finished picture."""

    time: str
    weather: str
    side: str
    moon: bool = False
    silhouette: bool = False
    gain: float = 1.0

    @property
    def toward(self) -> float:
        """Where the light comes from: -1 left, 1 right, 0 neither."""
        return {"left": -1.0, "right": 1.0}.get(self.side, 0.0)

    @property
    def lamps(self) -> bool:
        """Whether windows are lit."""
        return self.time in ("night", "twilight", "dusk") or self.weather == "storm"


def rgb(*values: float) -> Rgb:
    return np.array(values, np.float32)


# sky above, sky at the horizon, colour of the light on things
SKIES: dict[str, list[tuple[Rgb, Rgb, Rgb]]] = {
    "night": [
        (rgb(0.01, 0.015, 0.05), rgb(0.05, 0.07, 0.17), rgb(0.15, 0.18, 0.30)),
        (rgb(0.00, 0.00, 0.02), rgb(0.02, 0.03, 0.08), rgb(0.09, 0.10, 0.17)),
        (rgb(0.03, 0.06, 0.18), rgb(0.12, 0.20, 0.40), rgb(0.24, 0.31, 0.48)),
    ],
    "twilight": [
        (rgb(0.08, 0.10, 0.32), rgb(0.42, 0.36, 0.58), rgb(0.28, 0.28, 0.46)),
        (rgb(0.06, 0.13, 0.34), rgb(0.34, 0.48, 0.66), rgb(0.26, 0.32, 0.46)),
        (rgb(0.14, 0.08, 0.30), rgb(0.62, 0.38, 0.54), rgb(0.34, 0.26, 0.42)),
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
STORM_GREY = {"night": 0.08, "twilight": 0.16, "dusk": 0.22, "dawn": 0.34, "noon": 0.38}
MIST_GREY = {"night": 0.17, "twilight": 0.34, "dusk": 0.52, "dawn": 0.76, "noon": 0.82}
SUNS = {
    "twilight": rgb(1.0, 0.60, 0.50),
    "dusk": rgb(1.0, 0.55, 0.2),
    "dawn": rgb(1.0, 0.85, 0.6),
    "noon": rgb(1.0, 0.97, 0.8),
}


@dataclass
class Sky:
    """What the painters of things need to know of the light."""

    low: Rgb  # colour at the horizon, with which distance mixes
    light: Rgb  # what the things' own colours are multiplied by
    haze: float  # 0 clear, 1 nothing but fog
    lamp: tuple[float, float]  # where the sun or the moon stands


def paler(colour: Rgb, k: float) -> Rgb:
    colour = np.asarray(colour, np.float32)
    return colour + k * (1 - colour)


def paint_sky(c: Canvas, rng: np.random.Generator, light: Light) -> Sky:
    top, low, on_things = SKIES[light.time][rng.integers(3)]
    haze = 0.0
    if light.weather == "storm":
        grey = STORM_GREY[light.time]
        top, low = 0.25 * top + 0.45 * grey, 0.2 * low + 0.8 * rgb(0.95, 1.0, 1.05) * grey
        on_things = on_things * 0.5
    elif light.weather != "clear":
        mist = 0.35 * low + 0.65 * MIST_GREY[light.time] * rgb(0.98, 1.0, 1.02)
        k = {"fog": 0.85, "snow": 0.8, "cloudy": 0.65}[light.weather]
        top, low = (1 - k) * top + k * mist * 0.93, (1 - k) * low + k * mist
        haze = {"fog": 0.62, "snow": 0.2, "cloudy": 0.05}[light.weather]
    if light.silhouette:
        on_things, haze = on_things * 0.08, haze * 0.3
    c.gradient(top, low, power=0.8, end=0.62)
    x = {"left": rng.uniform(0.08, 0.26), "right": rng.uniform(0.74, 0.92)}.get(light.side, rng.uniform(0.32, 0.68))
    y = rng.uniform(0.13, 0.28) if light.time in ("noon", "night") else rng.uniform(0.32, 0.42)
    sky = Sky(low, on_things, haze, (float(x), float(y)))
    if light.time == "night":
        _night(c, rng, light, sky)
    elif light.side != "above" and light.weather in ("clear", "cloudy"):
        _sun(c, rng, light, sky)
    if light.weather in ("cloudy", "storm") or (
        light.weather == "clear" and light.time != "night" and rng.random() < 0.4
    ):
        dark = light.weather == "storm" or light.time in ("night", "twilight")
        _clouds(c, rng, low, dark=dark, many=light.weather != "clear")
    if light.weather == "storm" and rng.random() < 0.5:
        _lightning(c, rng)
    return sky


def _night(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    x, y = sky.lamp
    if light.weather == "clear":
        spots = rng.random((int(rng.integers(8, 20)), 3)) * (1, 0.5, 1)
        c.ellipses([(float(a), float(b), 0.006 + 0.003 * s, 0.006 + 0.003 * s) for a, b, s in spots], (1, 1, 0.95), 0.9)
    if light.moon:
        r = float(rng.uniform(0.05, 0.075))
        c.glow(x, y, 0.2, (0.45, 0.5, 0.62), 0.5)
        moon = rgb(0.96, 0.95, 0.88)
        if rng.random() < 0.3:
            c.polygon(crescent(x, y, r), moon)
        else:
            c.disc(x, y, r, moon)


def _sun(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    x, y = sky.lamp
    hidden = light.weather == "cloudy"
    colour = SUNS[light.time]
    if hidden and rng.random() < 0.5:
        return
    c.glow(x, y, 0.32, colour, 0.14 if hidden else 0.35)
    c.glow(x, y, 0.13, colour, 0.2 if hidden else 0.5)
    if light.time != "twilight":
        c.disc(x, y, float(rng.uniform(0.05, 0.075)), paler(sky.low, 0.85) if hidden else paler(colour, 0.65))


def _clouds(c: Canvas, rng: np.random.Generator, low: Rgb, *, dark: bool, many: bool) -> None:
    count = int(rng.integers(3, 5)) if many else int(rng.integers(1, 3))
    places = (np.arange(count) + rng.uniform(0.15, 0.85, count)) / count
    for x in places:
        x, y, w = float(x), float(rng.uniform(0.08, 0.3)), float(rng.uniform(0.13, 0.2))
        body = low * 0.62 if dark else paler(low, 0.7)
        puffs = [
            (x + w * a, y - w * 0.25 * b, w * s, w * s * 0.6)
            for a, b, s in ((-0.7, 0.0, 0.42), (-0.15, 0.7, 0.58), (0.45, 0.3, 0.5), (0.85, 0.0, 0.34), (0.0, 0.0, 0.7))
        ]
        c.ellipses([(a, b + 0.018, p, q) for a, b, p, q in puffs], body * 0.84)
        c.ellipses(puffs, body)


def _lightning(c: Canvas, rng: np.random.Generator) -> None:
    x, y = float(rng.uniform(0.2, 0.8)), 0.18
    path = [(x, y)]
    for k in range(4):
        x, y = x + (0.05 if k % 2 else -0.05) * float(rng.uniform(0.6, 1.2)), y + 0.1
        path.append((x, y))
    c.glow(x, 0.35, 0.25, (0.5, 0.5, 0.65), 0.35)
    c.lines([path], 0.016, (1.0, 1.0, 0.85))


def paint_weather(c: Canvas, rng: np.random.Generator, light: Light, sky: Sky) -> None:
    """What falls between the viewer and the landscape."""
    if light.weather == "fog":
        c.blend(sky.low, 0.3 * np.clip(1.3 - np.abs(c.y - 0.65) * 2.2, 0, 1) * np.ones_like(c.x))
    if light.weather == "snow":
        flakes = rng.random((int(rng.integers(18, 32)), 3))
        spots = [(float(x), float(y), 0.008 + 0.006 * float(s), 0.008 + 0.006 * float(s)) for x, y, s in flakes]
        c.ellipses(spots, paler(sky.low, 0.75), 0.95)
    if light.weather == "storm":
        drops = rng.random((10, 2))
        streaks = [[(float(x), float(y)), (float(x) - 0.03, float(y) + 0.12)] for x, y in drops]
        c.lines(streaks, 0.008, paler(sky.low, 0.3), 0.3)


def surface(colour: Rgb, sky: Sky, distance: float) -> Rgb:
    """A thing's colour under this light, as seen from afar: distance 0 is near, 1 at the horizon."""
    lit = np.clip(colour * sky.light, 0, 1)
    k = min(0.97, 0.55 * distance + sky.haze * (0.45 + 0.75 * distance))
    if float(sky.light.max()) < 0.09:  # a silhouette: distance pales it less
        k *= 0.5
    return (1 - k) * lit + k * sky.low
