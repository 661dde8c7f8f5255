"""Exact: the aim of each run, what a blackened picture says, and pictures of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from test_dial import DARK, colours

from oms_app import GenerateRequest, Studio, Variant
from oms_app.engine.exact import ExactRuns
from oms_app.engine.image_stats import image_stats
from oms_app.engine.stages import Corrected, FinishedPicture, Job
from oms_app.prestep.dial import Steering, Target


def exact_aims(response: Callable[[np.ndarray], np.ndarray], target: Target, **picture: bool) -> list[Job]:
    """The jobs of each run of `exact`, of pictures whose mean colour is `response` of target + aim."""
    runs, job = ExactRuns(), Job("key", DARK, 0)
    steering = Steering(target, colours(), free=torch.full((3,), 0.5))
    aimed = target.colour(torch.full((3,), 0.5))[0].numpy()
    given: dict[str, Any] = dict.fromkeys(one.name for one in fields(Corrected))
    jobs = [job]
    while True:
        got = np.rint(255 * response(aimed + np.array(jobs[-1].aim)).clip(0, 1)).astype(np.uint8)
        image = Image.fromarray(np.broadcast_to(got, (4, 4, 3)).copy())
        made = FinishedPicture(image, image_stats(image), **({"blackened": False} | picture))
        again = runs.measure(Corrected(**given | {"jobs": (jobs[-1],), "steerings": (steering,)}), {"key": made})
        if not again:
            return jobs
        jobs += again


def test_exact_finds_the_aim_by_the_secant() -> None:
    """A picture that reaches only two thirds of what it is told, and another in each channel."""
    part = np.array([0.65, 0.7, 0.6])
    for target in (Target(luminance=20), Target(tint="#3060c0")):
        jobs = exact_aims(lambda told: 0.5 + part * (told - 0.5), target)
        assert 2 <= len(jobs) <= 3
        wanted = target.colour(torch.full((3,), 0.5))[0].numpy()
        got = 0.5 + part * (wanted + np.array(jobs[-1].aim) - 0.5)
        error = got.mean() - wanted.mean() if target.only_brightness else got - wanted
        assert np.abs(error).max() < 0.02
    assert len(exact_aims(lambda told: told, Target(luminance=20))) == 1


def test_exact_learns_nothing_from_a_picture_that_the_safety_checker_blackened() -> None:
    assert len(exact_aims(lambda told: 0 * told, Target(luminance=60), blackened=True)) == 1
    assert len(exact_aims(lambda told: 0 * told, Target(luminance=60))) == 3


def test_exact_runs_again_and_keeps_the_closest(studio: Studio) -> None:
    free = studio.generate(GenerateRequest(prompt="sea", seed=1, variants=(DARK,)))
    goal = free.images[0].stats.mean / 2.55 + 1  # a point from what one run gives
    near = Variant(name="near", correction="dial", luminance=round(goal, 1))
    once = studio.generate(GenerateRequest(prompt="sea", seed=1, variants=(near,)))
    exact = studio.generate(GenerateRequest(prompt="sea", seed=1, variants=(near,), exact=True))
    errors = [abs(result.images[0].stats.mean / 2.55 - goal) for result in (exact, once)]
    assert errors[0] <= errors[1]
    assert exact.notes[-1] in ("exact: 2 runs", "exact: 3 runs") or (
        errors[1] < 0.15 and exact.notes[-1] == "exact: 1 run"
    )
    again = studio.generate(GenerateRequest(prompt="sea", seed=1, variants=(near,), exact=True))
    assert again.painted == 0 and again.images[0].image.tobytes() == exact.images[0].image.tobytes()
