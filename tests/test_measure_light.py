"""Measures of asked and got light: against published pairs, closed forms, and pictures that must fail."""

from __future__ import annotations

import numpy as np
import pytest

from oms_app.measure.light import (
    ciede2000,
    clipped_share,
    coarse_lightness,
    correlation,
    halves,
    hue_difference,
    rank_correlation,
    with_mean,
)

# Sharma, Wu and Dalal (2005), Table 1.
SHARMA = (
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, 2.8361, -74.02), (50, 0, -82.7485), 3.4412),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ((50, 2.5, 0), (56, -27, -3), 31.9030),
    ((50, 2.5, 0), (58, 24, 15), 19.4535),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.2630),
    ((35.0831, -44.1164, 3.7933), (35.0232, -40.0716, 1.5901), 1.8645),
    ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.441), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
)


@pytest.mark.parametrize(("first", "second", "wanted"), SHARMA)
def test_ciede2000_of_the_published_pairs(first: tuple[float, ...], second: tuple[float, ...], wanted: float) -> None:
    assert float(ciede2000(first, second)) == pytest.approx(wanted, abs=1e-4)
    assert float(ciede2000(second, first)) == pytest.approx(wanted, abs=1e-4)


def test_hues_are_compared_around_the_circle() -> None:
    assert float(hue_difference((50, 10, 1), (50, 10, -1))) == pytest.approx(2 * np.degrees(np.arctan(0.1)))
    assert float(hue_difference((50, 10, 0), (90, -3, 0))) == pytest.approx(180)


def test_clipped_pixels_are_counted_once() -> None:
    picture = np.full((4, 4, 3), 100, np.uint8)
    assert clipped_share(picture) == 0
    picture[0, 0] = (0, 255, 7)
    picture[0, 1] = (1, 254, 255)
    assert clipped_share(picture) == 2 / 16


def test_halves_and_cells_follow_the_light() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, :8] = 255
    assert halves(picture)["left"] == pytest.approx(100) and halves(picture)["top"] == 0
    assert halves(picture[:, ::-1])["left"] == pytest.approx(-100)
    assert halves(picture.transpose(1, 0, 2))["top"] == pytest.approx(100)
    assert np.allclose(coarse_lightness(picture), [[100, 100, 0, 0]] * 4)
    middle = np.zeros((16, 16, 3), np.uint8)
    middle[4:12, 4:12] = 255
    assert halves(middle)["centre"] == pytest.approx(100)


def test_correlations() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [5, 5, 5]) == 0
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)


@pytest.mark.parametrize("mean", [30.0, 128.0, 220.0])
def test_a_gain_in_linear_light_reaches_the_mean(mean: float) -> None:
    picture = np.random.default_rng(0).integers(1, 255, (32, 32, 3), np.uint8)
    assert with_mean(picture, mean).mean() == pytest.approx(mean, abs=0.5)
    assert with_mean(np.zeros((4, 4, 3), np.uint8), mean).mean() == 0
