"""Are the pictures as good, as varied and as true to their captions as scenes? The columns of the OMS paper's Table 2.

FID by torchmetrics; precision, recall, density and coverage by prdc (Naeem et al. 2020); the features and the CLIP
score by a small CLIP trained on scenes apart from the base model (oms_app/training/clip.py). So the figures compare our
variants with one another; they are on another scale than those of papers, whose features are Inception's and CLIP's.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from joblib import parallel_config
from numpy.typing import NDArray
from prdc import compute_prdc
from torchmetrics.image.fid import FrechetInceptionDistance

from oms_app.evaluate.pictures import Features, Seen
from oms_app.measure.distances import bootstrap_interval, half_sample_interval

NEAREST = 5  # neighbours, as in the paper of density and coverage
HALVES = 100  # random halves of the captions, for an interval
Figure = dict[str, Any]  # {"value", "interval"}
MANIFOLD = ("precision", "recall", "density", "coverage")


class _AsTheyAre(torch.nn.Module):
    """torchmetrics extracts features by a module; ours are extracted already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(real: Features, made: Features) -> float:
    """FID (Heusel et al. 2017) of features (n, D) and (m, D)."""
    metric = FrechetInceptionDistance(feature=_AsTheyAre(real.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(made).double(), real=False)
    return float(metric.compute())


def manifold(real: Features, made: Features) -> dict[str, float]:
    """Precision, recall, density and coverage, each a share or a ratio near 1. Needs more rows than NEAREST."""
    # It prints the numbers of samples; and it asks for 8 jobs, whose threads cost more than they bring at our sizes.
    with redirect_stdout(io.StringIO()), parallel_config(backend="sequential"):
        return {name: float(value) for name, value in compute_prdc(real, made, nearest_k=NEAREST).items()}


def clip_scores(image: Features, text: Features) -> NDArray[np.float64]:
    """100 · max(cos, 0) of each picture and its caption (Hessel et al. 2021, without their factor), (n,)."""
    cosine = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    return 100 * np.maximum(cosine, 0).astype(np.float64)


def quality(seen: Seen, read: Callable[[Sequence[str]], Features]) -> dict[str, Any]:
    """Figures of every variant, each with a 95 % interval, and of the differences from raw and from OMS.

    read: captions → features in the space of the pictures' (SceneClip.read). Pictures (n) are held against one scene of
    each caption (n); the row "scenes" holds another scene of each caption against the same, which is what a perfect
    model would reach. Intervals: the CLIP score's by resampling captions; the others', which repeated rows would spoil,
    by random halves of the captions. Raises ValueError for fewer than 2 · (NEAREST + 2) captions.
    """
    n = len(seen.captions)
    if n < 2 * (NEAREST + 2):
        raise ValueError(f"{n} captions are too few for intervals: take at least {2 * (NEAREST + 2)}")
    text = read(seen.captions)
    real = seen.scene_features[:, 1]
    made = {**seen.features, "scenes": seen.scene_features[:, 0]}
    scores = {name: clip_scores(features, text) for name, features in made.items()}

    def manifold_of(name: str, i: NDArray[np.intp]) -> dict[str, float]:
        return {"fid": frechet_distance(real[i], made[name][i]), **manifold(real[i], made[name][i])}

    everyone = np.arange(n)
    whole = {name: manifold_of(name, everyone) for name in made}
    halves: dict[str, list[dict[str, float]]] = {name: [] for name in made}
    for i in _halves(n):
        for name in made:
            halves[name].append(manifold_of(name, i))

    def figure(measure: str, name: str, against: str | None = None) -> Figure:
        if measure == "clip_score":
            values = scores[name] - (scores[against] if against else 0.0)
            return {"value": float(values.mean()), "interval": bootstrap_interval(lambda i: values[i].mean(), n)}
        value = whole[name][measure] - (whole[against][measure] if against else 0.0)
        spread = [
            half[measure] - (other[measure] if against else 0.0)
            for half, other in zip(halves[name], halves[against or name], strict=True)
        ]
        return {"value": value, "interval": half_sample_interval(value, spread)}

    measures = ("fid", "clip_score", *MANIFOLD)
    return {
        "model": seen.model,
        "seed": seen.seed,
        "n": n,
        "figures": {name: {m: figure(m, name) for m in measures} for name in made},
        **{
            f"minus_{against}": {
                name: {m: figure(m, name, against) for m in measures} for name in seen.features if name != against
            }
            for against in ("raw", "oms")
            if against in seen.features
        },
    }


def _halves(n: int) -> list[NDArray[np.intp]]:
    rng = np.random.default_rng(0)
    return [rng.permutation(n)[: n // 2] for _ in range(HALVES)]
