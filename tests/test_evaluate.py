"""The luminance measure: its figures on made-up distributions, and a small run through the engine."""

from __future__ import annotations

import numpy as np
import pytest

from oms_app import Studio, StudioError
from oms_app.evaluate import Held, luminance, report
from oms_app.requests import OMS, RAW


def test_perfect_pictures_reach_the_floor_and_grey_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    light = rng.uniform(0, 255, 300)
    scenes = light[:, None] + rng.normal(0, 5, (300, 4))
    figures = report(
        {"raw": np.full(300, 128.0), "oms": light + rng.normal(0, 5, 300), "half": 64 + light / 2}, scenes, resamples=50
    )
    assert figures["wasserstein"]["oms"] == pytest.approx(figures["floor"], abs=2)
    assert figures["wasserstein"]["raw"] > 50
    assert abs(figures["ratio"]["oms"]) < 0.05
    assert figures["ratio"]["half"] == pytest.approx(0.5, abs=0.1)
    low, high = figures["interval"]["ratio"]["half"]
    assert 0.4 < low < high < 0.6
    assert "raw" not in figures["ratio"]


def test_a_run_through_the_engine(studio: Studio) -> None:
    held = [Held(caption="black sea", scene_seeds=(1, 2, 3, 4)), Held(caption="white snow", scene_seeds=(5, 6, 7, 8))]
    seen: list[tuple[int, int]] = []
    figures = luminance(
        studio,
        captions=2,
        variants=(RAW, OMS),
        held=held,
        scene_mean=lambda seed: 20.0 * seed,
        on_caption=lambda done, of: seen.append((done, of)),
    )
    assert figures["n"] == 2
    assert set(figures["wasserstein"]) == {"raw", "oms"}
    assert set(figures["ratio"]) == {"oms"}
    assert figures["mean"]["scenes"] == 90
    assert seen == [(1, 2), (2, 2)]
    with pytest.raises(StudioError, match="only 2 are held out"):
        luminance(studio, captions=3, variants=(RAW,), held=held)


def test_the_same_seed_gives_the_same_figures(studio: Studio) -> None:
    held = [Held(caption=c, scene_seeds=(1, 2, 3, 4)) for c in ("black", "white", "red")]
    runs = []
    for _ in range(2):
        studio.forget()
        runs.append(luminance(studio, captions=2, variants=(RAW,), seed=4, held=held, scene_mean=float))
    assert runs[0] == runs[1]
