"""How good, how varied and how true to their captions are the pictures? The columns of the OMS paper's Table 2.

FID by torchmetrics; precision, recall, density and coverage by prdc (Naeem et al. 2020); the features and the CLIP
score by a small CLIP trained on scenes (evaluate/scene_clip.py). So the figures compare our variants with one another;
they cannot be compared with those of papers, whose features are those of Inception and CLIP.
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

from oms_app.evaluate.pictures import EvalSamples, Features
from oms_app.measure.distances import bootstrap_interval, half_sample_interval

NEAREST = 5  # neighbours, as in the paper of density and coverage
HALVES = 100  # random halves of the captions, for an interval
Figure = dict[str, Any]  # {"value", "interval"}
MANIFOLD = ("precision", "recall", "density", "coverage")


class _IdentityFeatures(torch.nn.Module):
    """torchmetrics takes a module that extracts features; ours are extracted already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(real: Features, generated: Features) -> float:
    """FID (Heusel et al. 2017) of features (n, D) and (m, D)."""
    metric = FrechetInceptionDistance(feature=_IdentityFeatures(real.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(generated).double(), real=False)
    return float(metric.compute())


def manifold_metrics(real: Features, generated: Features) -> dict[str, float]:
    """Precision, recall, density and coverage, each a share or a ratio near 1. Needs more rows than NEAREST."""
    # It prints the numbers of samples, and starts 8 jobs, which take longer than one at our sizes.
    with redirect_stdout(io.StringIO()), parallel_config(backend="sequential"):
        return {name: float(value) for name, value in compute_prdc(real, generated, nearest_k=NEAREST).items()}


def clip_scores(image: Features, text: Features) -> NDArray[np.float64]:
    """100 · max(cos, 0) of each picture and its caption (Hessel et al. 2021, without their factor), (n,)."""
    cosine = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    return 100 * np.maximum(cosine, 0).astype(np.float64)


def quality(samples: EvalSamples, encode_texts: Callable[[Sequence[str]], Features]) -> dict[str, Any]:
    """Figures of every variant, each with a 95 % interval, and of the differences from raw and from OMS.

    encode_texts: captions → features in the space of the pictures' (SceneClip.encode_texts). Pictures (n) are compared
    with one scene of each caption (n); the row "scenes" compares another scene of each caption with the same ones,
    which is what a perfect model would reach. The interval of the CLIP score comes from resampling captions; those of
    the others, which repeated rows would distort, from random halves of the captions.
    Raises ValueError for fewer than 2 · (NEAREST + 2) captions.
    """
    n = len(samples.captions)
    if n < 2 * (NEAREST + 2):
        raise ValueError(f"{n} captions are too few for intervals: take at least {2 * (NEAREST + 2)}")
    text = encode_texts(samples.captions)
    real = samples.scene_features[:, 1]
    generated = {**samples.features, "scenes": samples.scene_features[:, 0]}
    scores = {name: clip_scores(features, text) for name, features in generated.items()}

    def metrics_of(name: str, i: NDArray[np.intp]) -> dict[str, float]:
        return {
            "fid": frechet_distance(real[i], generated[name][i]),
            **manifold_metrics(real[i], generated[name][i]),
        }

    everyone = np.arange(n)
    whole = {name: metrics_of(name, everyone) for name in generated}
    halves: dict[str, list[dict[str, float]]] = {name: [] for name in generated}
    for i in _halves(n):
        for name in generated:
            halves[name].append(metrics_of(name, i))

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
        "model": samples.model,
        "seed": samples.seed,
        "n": n,
        "figures": {name: {m: figure(m, name) for m in measures} for name in generated},
        **{
            f"minus_{against}": {
                name: {m: figure(m, name, against) for m in measures} for name in samples.features if name != against
            }
            for against in ("raw", "oms")
            if against in samples.features
        },
    }


def _halves(n: int) -> list[NDArray[np.intp]]:
    rng = np.random.default_rng(0)
    return [rng.permutation(n)[: n // 2] for _ in range(HALVES)]
