"""The figures shown under a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oms_app.measure.color import srgb_to_lab

HISTOGRAM_BINS = 64


@dataclass(frozen=True)
class PictureStats:
    """Figures of one picture, from its 8-bit sRGB values. The fields are those of `schema.ImageStats`."""

    mean: float  # mean of all RGB values, 0…255 (the papers' measure)
    lightness: float  # mean CIE L*, 0…100
    p1: float  # 1st percentile of L*
    p99: float  # 99th percentile of L*
    a: float  # mean CIE a*, green (-) to red (+)
    b: float  # mean CIE b*, blue (-) to yellow (+)
    histogram: tuple[int, ...]  # pixels in 64 equal bins of L*


def measure(rgb: NDArray[np.uint8]) -> PictureStats:
    """Measure a picture (H, W, 3), uint8 sRGB. Raises ValueError for another shape or type."""
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"got {rgb.dtype} of shape {rgb.shape}: measure takes a uint8 picture (H, W, 3)")
    lab = srgb_to_lab(rgb)
    lightness = np.clip(lab[..., 0], 0.0, 100.0)  # rounding may give white 100 + 1e-14
    p1, p99 = np.percentile(lightness, [1.0, 99.0])
    counts, _ = np.histogram(lightness, bins=HISTOGRAM_BINS, range=(0.0, 100.0))
    return PictureStats(
        mean=float(rgb.mean()),
        lightness=float(lightness.mean()),
        p1=float(p1),
        p99=float(p99),
        a=float(lab[..., 1].mean()),
        b=float(lab[..., 2].mean()),
        histogram=tuple(int(count) for count in counts),
    )
