"""The distance between two sets of numbers, and confidence intervals of figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _sample(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(
            f"{name} has {array.size} values, of which not all are finite: give at least one finite number"
        )
    return array


def wasserstein(a: ArrayLike, b: ArrayLike) -> float:
    """The 1-Wasserstein ("earth mover's") distance of two samples of real numbers, in the unit of the samples.

    W = ∫ |F_a(x) - F_b(x)| dx, with F the empirical distribution functions; the sizes may differ.
    Raises ValueError if a sample is empty or has a value that is not finite.
    """
    a, b = _sample(a, "a"), _sample(b, "b")
    x = np.sort(np.concatenate([a, b]))
    # Between neighbouring values of x, both F are constant: the share of the sample's values ≤ x.
    f_a = np.searchsorted(a, x[:-1], side="right") / a.size
    f_b = np.searchsorted(b, x[:-1], side="right") / b.size
    return float(np.sum(np.abs(f_a - f_b) * np.diff(x)))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of a figure over n units, such as captions.

    statistic: takes n indices in [0, n), drawn with repetition, and returns the figure over these units. It takes
        indices, not values, so that everything that belongs to one caption is drawn together (raw and OMS are paired):
        `bootstrap_interval(lambda i: wasserstein(raw[i], scenes[i]), len(raw))` with scenes (n, 4).
    level: share of the resamples inside, in (0, 1). seed: the same seed gives the same interval.
    Returns (low, high). A distance between samples is biased upward by resampling, because repeated units make both
    distributions coarser, so an interval may be somewhat too high; it is a measure of spread, not a test.
    Raises ValueError for n or resamples below 1, or a level outside (0, 1).
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"n is {n}, resamples {resamples}: both must be at least 1")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}: give a share between 0 and 1, for example 0.95")
    rng = np.random.default_rng(seed)
    figures = [statistic(rng.integers(0, n, size=n)) for _ in range(resamples)]
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def half_sample_interval(value: float, halves: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a figure that repeated units would distort, such as one from nearest neighbours.

    value: the figure over all units. halves: the figure over random halves of the units, drawn without repetition:
    their standard deviation estimates that of the figure over all units (delete-d jackknife with d = n/2, Shao and Wu
    1989). Returns (low, high), value ± z · standard deviation. Raises ValueError for fewer than two halves, or a level
    outside (0, 1).
    """
    if len(halves) < 2:
        raise ValueError(f"there are {len(halves)} halves: give at least 2")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}: give a share between 0 and 1, for example 0.95")
    reach = NormalDist().inv_cdf((1 + level) / 2) * float(np.std(halves, ddof=1))
    return value - reach, value + reach
