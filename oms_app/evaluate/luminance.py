"""How close is the brightness of the pictures to that of the captions' scenes? Wasserstein distances of their means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oms_app.evaluate.pictures import EvalSamples, Means
from oms_app.measure.distances import bootstrap_interval, wasserstein

RESAMPLES = 500


def luminance(samples: EvalSamples, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Distances of the pictures' means (0…255) from those of the scenes, floor, ratios and intervals.

    A figure is a mean over four folds: each fold leaves out the j-th scene of each caption and compares the pictures
    (n) with the other scenes (3n). The floor compares the left-out scenes (n) with the same others (3n): the samples
    have equal sizes, so the finite-sample distance is the same in both. The interval (95 %) resamples captions, with
    all pictures and scenes of a caption together.
    """
    means, scenes = samples.means, samples.scene_means
    n = len(scenes)

    def interval(statistic: Callable[[NDArray[np.intp]], float]) -> tuple[float, float]:
        return bootstrap_interval(statistic, n, resamples=resamples)

    def distance_interval(values: Means) -> tuple[float, float]:
        return interval(lambda i: fold_distance(values[i], scenes[i]))

    def ratio_interval(values: Means, raw: Means) -> tuple[float, float]:
        return interval(lambda i: ratio_to_raw(values[i], raw[i], scenes[i]) or 0.0)

    others = {name: values for name, values in means.items() if name != "raw"} if "raw" in means else {}
    return {
        "model": samples.model,
        "seed": samples.seed,
        "n": n,
        "wasserstein": {name: fold_distance(values, scenes) for name, values in means.items()},
        "floor": fold_distance(None, scenes),
        "ratio": {name: ratio_to_raw(values, means["raw"], scenes) for name, values in others.items()},
        "interval": {
            "level": 0.95,
            "wasserstein": {name: distance_interval(values) for name, values in means.items()},
            "ratio": {name: ratio_interval(values, means["raw"]) for name, values in others.items()},
        },
        "mean": {name: float(values.mean()) for name, values in means.items()} | {"scenes": float(scenes.mean())},
    }


def fold_distance(values: Means | None, scenes: Means) -> float:
    """Mean over j of W(values, scenes without column j); of W(column j, the others) if values is None."""
    folds = []
    for j in range(scenes.shape[1]):
        others = np.delete(scenes, j, axis=1)
        folds.append(wasserstein(scenes[:, j] if values is None else values, others))
    return float(np.mean(folds))


def ratio_to_raw(values: Means, raw: Means, scenes: Means) -> float | None:
    """(W - floor)/(W_raw - floor): 0 is as close as scenes, 1 as far as raw. None if raw is not above the floor."""
    floor = fold_distance(None, scenes)
    gap = fold_distance(raw, scenes) - floor
    return None if gap <= 0 else (fold_distance(values, scenes) - floor) / gap
