"""Do the pictures have the light of the captions' scenes? Wasserstein distances between distributions of brightness."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from oms_app.measure.distances import bootstrap_interval, wasserstein
from oms_app.models.catalog import PROJECT
from oms_app.requests import MAX_SEED, Frozen, GenerateRequest, StudioError, Variant
from oms_app.studio import Studio

CAPTIONS = PROJECT / "assets/lumen/captions.json"
REFERENCES = 4  # scenes a caption
RESAMPLES = 500
Means = NDArray[np.float64]


class Held(Frozen):
    """A held-out caption and the seeds of four scenes that it tells of."""

    caption: Annotated[str, Field(min_length=1)]
    scene_seeds: Annotated[tuple[int, ...], Field(min_length=REFERENCES, max_length=REFERENCES)]


class HeldOut(Frozen):
    captions: Annotated[tuple[Held, ...], Field(min_length=2)]


def read_captions(path: Path = CAPTIONS) -> tuple[Held, ...]:
    """The held-out captions. Raises StudioError where the file is missing or not valid."""
    try:
        return HeldOut.model_validate(json.loads(path.read_text(encoding="utf-8"))).captions
    except (OSError, ValueError, ValidationError) as error:
        raise StudioError(f"the held-out captions at {path} cannot be read: restore that file") from error


def luminance(
    studio: Studio,
    *,
    model: str = "lumen",
    captions: int = 200,
    variants: Sequence[Variant] = (),
    seed: int = 0,
    on_caption: Callable[[int, int], None] | None = None,
    held: Sequence[Held] | None = None,
    scene_mean: Callable[[int], float] | None = None,
) -> dict[str, Any]:
    """Generated means (0…255) of n captions, one picture each, against those of their scenes, four each.

    Caption i gets the seed `seed + i` for every variant. A figure is a mean over four folds: leaving out each caption's
    j-th scene in turn, the pictures (n) are held against the other scenes (3n). The floor holds the left-out scenes (n)
    against the same others (3n): samples of equal sizes, so that finite-sample distance enters both alike. The interval
    (95 %) resamples captions, all of a caption's pictures and scenes together.
    Raises StudioError where fewer captions are held out than asked for.
    """
    everything = read_captions() if held is None else held
    if captions > len(everything):
        raise StudioError(f"--captions is {captions}: only {len(everything)} are held out")
    if seed + captions > MAX_SEED:
        raise StudioError(f"--seed is {seed}: take 0 to {MAX_SEED - captions}")
    draw_mean = scene_mean or _scene_mean
    chosen = np.random.default_rng(seed).permutation(len(everything))[:captions]
    scenes = np.empty((captions, REFERENCES))
    means: dict[str, Means] = {variant.name: np.empty(captions) for variant in variants}
    for i, which in enumerate(chosen):
        entry = everything[which]
        scenes[i] = [draw_mean(scene_seed) for scene_seed in entry.scene_seeds]
        request = GenerateRequest(prompt=entry.caption, model=model, variants=tuple(variants), seed=seed + i)
        for image in studio.generate(request).images:
            means[image.variant][i] = image.stats.mean
        if on_caption is not None:
            on_caption(i + 1, captions)
    return {"model": model, "seed": seed, **report(means, scenes)}


def report(means: dict[str, Means], scenes: Means, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Distances, floor, ratios and intervals. means: name → (n,); scenes (n, 4); all in 0…255."""
    n = len(scenes)

    def interval(statistic: Callable[[NDArray[np.intp]], float]) -> tuple[float, float]:
        return bootstrap_interval(statistic, n, resamples=resamples)

    def distance_interval(values: Means) -> tuple[float, float]:
        return interval(lambda i: folded(values[i], scenes[i]))

    def ratio_interval(values: Means, raw: Means) -> tuple[float, float]:
        return interval(lambda i: ratio_of(values[i], raw[i], scenes[i]) or 0.0)

    others = {name: values for name, values in means.items() if name != "raw"} if "raw" in means else {}
    return {
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


def _scene_mean(seed: int) -> float:
    from oms_app.training.scenes import draw

    return float(draw(seed).image.mean())
