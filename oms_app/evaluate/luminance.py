"""Do the pictures have the light of the captions' scenes? Wasserstein distances between distributions of brightness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oms_app.evaluate.pictures import Means, Seen
from oms_app.measure.distances import bootstrap_interval, wasserstein

RESAMPLES = 500


def luminance(seen: Seen, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Distances of the pictures' means (0…255) from those of the scenes, floor, ratios and intervals.

    A figure is a mean over four folds: leaving out each caption's j-th scene in turn, the pictures (n) are held against
    the other scenes (3n). The floor holds the left-out scenes (n) against the same others (3n): samples of equal sizes,
    so that finite-sample distance enters both alike. The interval (95 %) resamples captions, all of a caption's
    pictures and scenes together.
    """
    means, scenes = seen.means, seen.scene_means
    n = len(scenes)

    def interval(statistic: Callable[[NDArray[np.intp]], float]) -> tuple[float, float]:
        return bootstrap_interval(statistic, n, resamples=resamples)

    def distance_interval(values: Means) -> tuple[float, float]:
        return interval(lambda i: folded(values[i], scenes[i]))

    def ratio_interval(values: Means, raw: Means) -> tuple[float, float]:
        return interval(lambda i: ratio_of(values[i], raw[i], scenes[i]) or 0.0)

    others = {name: values for name, values in means.items() if name != "raw"} if "raw" in means else {}
    return {
        "model": seen.model,
        "seed": seen.seed,
        "n": n,
        "wasserstein": {name: folded(values, scenes) for name, values in means.items()},
        "floor": folded(None, scenes),
        "ratio": {name: ratio_of(values, means["raw"], scenes) for name, values in others.items()},
        "interval": {
            "level": 0.95,
            "wasserstein": {name: distance_interval(values) for name, values in means.items()},
            "ratio": {name: ratio_interval(values, means["raw"]) for name, values in others.items()},
        },
        "mean": {name: float(values.mean()) for name, values in means.items()} | {"scenes": float(scenes.mean())},
    }


def folded(values: Means | None, scenes: Means) -> float:
    """Mean over j of W(values, scenes without column j); of W(column j, the others) where values is None."""
    folds = []
    for j in range(scenes.shape[1]):
        others = np.delete(scenes, j, axis=1)
        folds.append(wasserstein(scenes[:, j] if values is None else values, others))
    return float(np.mean(folds))


def ratio_of(values: Means, raw: Means, scenes: Means) -> float | None:
    """(W - floor)/(W_raw - floor): 0 is as good as scenes, 1 as far off as raw. None where raw is at the floor."""
    floor = folded(None, scenes)
    gap = folded(raw, scenes) - floor
    return None if gap <= 0 else (folded(values, scenes) - floor) / gap
