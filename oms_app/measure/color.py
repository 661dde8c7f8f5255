"""From sRGB to CIE L*a*b*, in which equal distances look about equally large."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# IEC 61966-2-1: linear sRGB to CIE XYZ under D65.
SRGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
# The white of this matrix, so that every grey has a* = b* = 0 exactly (D65: 0.95047, 1, 1.08883).
WHITE = SRGB_TO_XYZ.sum(axis=1)


def srgb_to_linear(rgb: NDArray) -> NDArray[np.float64]:
    """Linear light in [0, 1] from sRGB values in [0, 255], any shape (IEC 61966-2-1)."""
    value = np.asarray(rgb, dtype=np.float64) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_LINEAR_OF_BYTE = srgb_to_linear(np.arange(256))


def srgb_to_lab(rgb: NDArray) -> NDArray[np.float64]:
    """CIE L*a*b* under D65 (CIE 15:2004).

    rgb: (..., 3), uint8, or float in [0, 255].
    Returns (..., 3): L* in [0, 100], a* from green (-) to red (+), b* from blue (-) to yellow (+).
    Raises ValueError if the last axis is not 3 or a value lies outside [0, 255].
    """
    rgb = np.asarray(rgb)
    if rgb.ndim == 0 or rgb.shape[-1] != 3:
        raise ValueError(f"rgb has shape {rgb.shape}: the last axis must have the three channels, (..., 3)")
    if rgb.dtype == np.uint8:
        linear = _LINEAR_OF_BYTE[rgb]
    else:
        if rgb.size and not (rgb.min() >= 0 and rgb.max() <= 255):  # `not` also catches NaN
            raise ValueError(f"rgb ranges over [{rgb.min()}, {rgb.max()}]: give sRGB values in [0, 255]")
        linear = srgb_to_linear(rgb)
    xyz = (linear @ SRGB_TO_XYZ.T) / WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
