"""How far light and colour of pictures are from what was asked: colour differences, clipping, where the light is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oms_app.measure.color import srgb_to_lab, srgb_to_linear

GRID = 4  # cells per side of a picture's coarse luminance


def ciede2000(lab: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """ΔE00 of CIE L*a*b* colours (..., 3), with all weights 1 (CIE 142-2001; Sharma, Wu and Dalal 2005)."""
    l1, a1, b1 = np.moveaxis(np.asarray(lab, np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(other, np.float64), -1, 0)
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(c7 / (c7 + 25.0**7))  # 1 + G
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    dh = np.where(grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    dh = np.where((dh == -180) & (h2 > h1), 180.0, dh)
    d_l, d_c, d_h = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    apart = np.abs(h1 - h2) > 180
    mean_h = np.where(grey, h1 + h2, (h1 + h2 + np.where(apart, np.where(h1 + h2 < 360, 360, -360), 0)) / 2)
    t = (
        1
        - 0.17 * np.cos(np.radians(mean_h - 30))
        + 0.24 * np.cos(np.radians(2 * mean_h))
        + 0.32 * np.cos(np.radians(3 * mean_h + 6))
        - 0.20 * np.cos(np.radians(4 * mean_h - 63))
    )
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    turn = 60 * np.exp(-(((mean_h - 275) / 25) ** 2))
    r_t = -2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)) * np.sin(np.radians(turn))
    d_l, d_c, d_h = d_l / s_l, d_c / s_c, d_h / s_h
    squared: NDArray[np.float64] = d_l**2 + d_c**2 + d_h**2 + r_t * d_c * d_h
    return np.sqrt(np.maximum(squared, 0.0))


def hue_difference(lab: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """Degrees between the hues of CIE L*a*b* colours (..., 3), 0…180."""
    first, second = (np.asarray(one, np.float64) for one in (lab, other))
    turn = np.arctan2(first[..., 2], first[..., 1]) - np.arctan2(second[..., 2], second[..., 1])
    return np.abs((np.degrees(turn) + 180) % 360 - 180)


def clipped_share(rgb: NDArray[np.uint8]) -> float:
    """Share of the pixels of a picture (H, W, 3) of which a channel is 0 or 255."""
    return float(((rgb == 0) | (rgb == 255)).any(-1).mean())


def halves(rgb: NDArray[np.uint8]) -> dict[str, float]:
    """Differences in mean L* of a picture (H, W, 3): left - right, top - bottom, and centre - edge.

    The centre are the middle halves of the rows and columns.
    """
    lightness = srgb_to_lab(rgb)[..., 0]
    h, w = lightness.shape
    inner = np.zeros((h, w), bool)
    inner[h // 4 : h - h // 4, w // 4 : w - w // 4] = True
    return {
        "left": float(lightness[:, : w // 2].mean() - lightness[:, w - w // 2 :].mean()),
        "top": float(lightness[: h // 2].mean() - lightness[h - h // 2 :].mean()),
        "centre": float(lightness[inner].mean() - lightness[~inner].mean()),
    }


def lit_half(rgb: NDArray[np.uint8], right: float, down: float) -> float:
    """Mean L* of the half of a picture (H, W, 3) that lies in a direction, less that of the other half."""
    lightness = srgb_to_lab(rgb)[..., 0]
    y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in lightness.shape)
    along = right * x + down * y[:, None]
    return float(lightness[along > 1e-6].mean() - lightness[along < -1e-6].mean())


def coarse_lightness(rgb: NDArray[np.uint8], cells: int = GRID) -> NDArray[np.float64]:
    """Mean L* of a picture (H, W, 3) in cells × cells parts, (cells, cells)."""
    lightness = srgb_to_lab(rgb)[..., 0]
    return np.array(
        [[part.mean() for part in np.array_split(row, cells, 1)] for row in np.array_split(lightness, cells)]
    )


def correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's r of two sets of numbers; 0 if one of them does not vary."""
    first, second = (np.asarray(one, np.float64).ravel() for one in (a, b))
    if np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's ρ: `correlation` of the ranks; equal values share their mean rank."""
    return correlation(_ranks(a), _ranks(b))


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, places, counts = np.unique(np.asarray(values).ravel(), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts - 1) / 2)[places]


def with_mean(rgb: NDArray[np.uint8], mean: float) -> NDArray[np.uint8]:
    """A picture (H, W, 3) times one gain in linear light, so that the mean of all values is `mean`, 0…255.

    The nearest, if clipping or black pixels keep it from that mean.
    """
    linear, low, high = srgb_to_linear(rgb), -20.0, 20.0
    for _ in range(40):
        stops = (low + high) / 2
        low, high = (stops, high) if from_linear(linear * 2**stops).mean() < mean else (low, stops)
    return from_linear(linear * 2 ** ((low + high) / 2))


def with_mean_colour(rgb: NDArray[np.uint8], colour: ArrayLike) -> NDArray[np.uint8]:
    """A picture (H, W, 3) with one gain for each channel, so that the channels' means are `colour` (3,), 0…255."""
    return np.stack([with_mean(rgb[..., i], mean) for i, mean in enumerate(np.asarray(colour, np.float64))], -1)


def from_linear(linear: NDArray[np.float64]) -> NDArray[np.uint8]:
    """8-bit sRGB of linear light (IEC 61966-2-1), clipped to [0, 1]."""
    light = np.clip(linear, 0.0, 1.0)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(255 * value), np.uint8)
