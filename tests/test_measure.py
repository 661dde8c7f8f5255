"""Colour, figures of pictures and distances against published values, closed forms and second implementations."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_app.measure.color import srgb_to_lab
from oms_app.measure.distances import bootstrap_interval, wasserstein
from oms_app.measure.picture import PictureStats, measure
from oms_app.schema import ImageStats

numbers = st.floats(-1e3, 1e3, allow_nan=False)
samples = st.lists(numbers, min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # Lindbloom's calculator: sRGB, D65
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
        ((1, 1, 1), (0.27, 0.0, 0.0)),  # the linear part of both curves
    ],
)
def test_lab_of_known_colours(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    assert srgb_to_lab(np.array(rgb, dtype=np.uint8)) == pytest.approx(lab, abs=0.01)
    assert srgb_to_lab(np.array(rgb, dtype=np.float64)) == pytest.approx(lab, abs=0.01)


def test_bytes_and_floats_give_the_same_lab() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(srgb_to_lab(rgb), srgb_to_lab(rgb.astype(np.float32)))


@given(st.integers(0, 254))
def test_greys_have_no_colour_and_their_lightness_increases(grey: int) -> None:
    lab = srgb_to_lab(np.full((1, 3), grey, dtype=np.uint8) + np.array([[0], [1]], dtype=np.uint8))
    np.testing.assert_allclose(lab[:, 1:], 0.0, atol=1e-9)
    assert lab[1, 0] > lab[0, 0]


@pytest.mark.parametrize("bad", [np.array([300.0, 0, 0]), np.array([-1.0, 0, 0]), np.array([math.nan, 0, 0])])
def test_lab_refuses_values_outside_the_range(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[0, 255\]"):
        srgb_to_lab(bad)


def test_lab_refuses_a_wrong_last_axis() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        srgb_to_lab(np.zeros((2, 4), dtype=np.uint8))


def test_figures_have_the_fields_of_the_result() -> None:
    assert [field.name for field in fields(PictureStats)] == list(ImageStats.model_fields)


def test_figures_of_a_half_black_half_white_picture() -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[:, 4:] = 255
    stats = measure(picture)
    assert stats.mean == 127.5
    assert stats.lightness == pytest.approx(50.0)
    assert (stats.p1, stats.p99) == pytest.approx((0.0, 100.0))
    assert (stats.a, stats.b) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert stats.histogram == (32, *[0] * 62, 32)


def test_p1_and_p99_are_percentiles_of_lightness() -> None:
    picture = np.full((10, 20, 3), 119, dtype=np.uint8)
    picture[0, :3] = 0  # 3 of 200 pixels: more than 1 %
    picture[1, :1] = 255  # 1 of 200: less than 1 %
    stats = measure(picture)
    assert stats.p1 == pytest.approx(0.0, abs=1e-9)
    assert stats.p99 == pytest.approx(50.03, abs=0.01)


def test_figures_of_red() -> None:
    picture = np.full((4, 4, 3), [255, 0, 0], dtype=np.uint8)
    stats = measure(picture)
    assert (stats.mean, stats.lightness, stats.a, stats.b) == pytest.approx((85.0, 53.24, 80.09, 67.20), abs=0.01)
    assert sum(stats.histogram) == 16


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_measure_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="H, W, 3"):
        measure(np.zeros(shape, dtype=np.uint8))


def test_measure_refuses_floats() -> None:
    with pytest.raises(ValueError, match="float64"):
        measure(np.zeros((4, 4, 3)))  # type: ignore[arg-type]


def by_quantiles(a: list[float], b: list[float]) -> float:
    """W = ∫ |Q_a(u) - Q_b(u)| du: both samples are repeated to a common length, then paired in order."""
    length = math.lcm(len(a), len(b))
    quantiles_a, quantiles_b = np.repeat(np.sort(a), length // len(a)), np.repeat(np.sort(b), length // len(b))
    return float(np.mean(np.abs(quantiles_a - quantiles_b)))


@given(samples, samples)
def test_wasserstein_agrees_with_the_quantile_form(a: list[float], b: list[float]) -> None:
    assert wasserstein(a, b) == pytest.approx(by_quantiles(a, b), abs=1e-9)


@given(samples, samples, numbers)
def test_wasserstein_is_a_distance(a: list[float], b: list[float], shift: float) -> None:
    assert wasserstein(a, a) == 0.0
    assert wasserstein(a, b) == pytest.approx(wasserstein(b, a), abs=1e-9)
    assert wasserstein(a, [value + shift for value in a]) == pytest.approx(abs(shift), abs=1e-9)


def test_wasserstein_closed_forms() -> None:
    assert wasserstein([0.0], [3.0]) == 3.0
    assert wasserstein([0.0, 1.0], [0.5]) == 0.5
    u = (np.arange(20_000) + 0.5) / 20_000
    assert wasserstein(u, 3 * u) == pytest.approx(1.0, abs=1e-4)  # uniforms on [0, 1] and [0, 3]: ∫ 2u du


@pytest.mark.parametrize("bad", [[], [math.nan], [math.inf, 1.0]])
def test_wasserstein_refuses_empty_and_infinite_samples(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        wasserstein(bad, [0.0])


def test_bootstrap_interval_of_a_mean_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(lambda i: float(values[i].mean()), len(values), resamples=2000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_bootstrap_interval_depends_on_the_seed_and_keeps_units_paired() -> None:
    values = np.random.default_rng(2).normal(size=50)
    run = [bootstrap_interval(lambda i: float(values[i].mean()), 50, resamples=100, seed=seed) for seed in (3, 3, 4)]
    assert run[0] == run[1] != run[2]
    paired = bootstrap_interval(lambda i: float((values[i] + 1.0 - values[i]).mean()), 50, resamples=100)
    assert paired == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("bad", [{"n": 0}, {"resamples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_bootstrap_interval_refuses_bad_settings(bad: dict) -> None:
    with pytest.raises(ValueError):
        bootstrap_interval(lambda i: 0.0, **{"n": 5, **bad})
