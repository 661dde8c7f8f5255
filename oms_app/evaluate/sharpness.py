"""Are the pictures as sharp as the scenes, without noise? `python -m oms_app.evaluate.sharpness`

Gradient energy (mean square of the differences between neighbours, of the mean of R, G and B) of one OMS picture for
each of 100 held-out captions, over that of a scene of the caption: all captions, and landscapes alone. Too soft is
below 1, noise above 1. After a blur of 4 pixels only shapes are left, which should have the same edges.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oms_app.engine.studio import Studio
from oms_app.evaluate.pictures import read_captions
from oms_app.schema import OMS, GenerateRequest
from oms_app.training.scenes.painter import draw

COUNT = 100
BLUR = 4.0  # pixels, the standard deviation of a Gaussian
LEAST, MOST = 0.85, 1.1  # target


def gradient_energy(picture: NDArray[np.uint8], blur: float = 0.0) -> float:
    """Of a (H, W, 3) picture, in squared levels of 255 per pixel."""
    grey = picture.astype(np.float64).mean(-1)
    if blur:
        grey = _blurred(_blurred(grey, blur).T, blur).T
    return float(sum((np.diff(grey, axis=axis) ** 2).mean() for axis in (0, 1)))


def _blurred(grey: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Its rows after a Gaussian; beyond the border they are mirrored."""
    reach = round(4 * deviation)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    padded = np.pad(grey, ((0, 0), (reach, reach)), mode="symmetric")
    return np.stack([np.convolve(row, weights / weights.sum(), "valid") for row in padded])


def measure(studio: Studio, count: int = COUNT) -> dict[str, Any]:
    """{"n", "all": {"sharp", "blurred"}, "landscapes": …}: energy of the pictures over that of the scenes, as sums."""
    sums: dict[str, NDArray[np.float64]] = {}
    landscapes = 0
    for i, entry in enumerate(read_captions()[:count]):
        scene = draw(entry.scene_seeds[0])
        request = GenerateRequest(prompt=entry.caption, variants=(OMS,), seed=i)
        made = np.asarray(studio.generate(request).images[0].image)
        energies = np.array(
            [[gradient_energy(picture, blur) for blur in (0.0, BLUR)] for picture in (made, scene.image)]
        )
        is_landscape = scene.facts.kind == "landscape"
        landscapes += is_landscape
        for kind in ("all", "landscapes") if is_landscape else ("all",):
            sums[kind] = sums.get(kind, np.zeros((2, 2))) + energies
    ratios = {kind: made / scenes for kind, (made, scenes) in sums.items()}
    return {
        "n": count,
        "landscapes_n": landscapes,
        **{kind: {"sharp": round(a, 2), "blurred": round(b, 2)} for kind, (a, b) in ratios.items()},
    }


if __name__ == "__main__":
    print(json.dumps(measure(Studio()), indent=1))
