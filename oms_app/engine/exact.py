"""`exact`: pictures are measured, and made again with a corrected aim, until their mean colour is what was set."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image

from oms_app.engine.stages import Corrected, FinishedPicture, Job

MORE_RUNS = 2
TOLERANCE = 0.001  # of full scale, in every channel: a tenth of a point
SLOPES = 0.4, 2.5  # of the picture's change to the aim's; a secant outside of them is not trusted
MAX_AIM = 0.5  # of full scale


@dataclass
class _Trials:
    """The runs of one picture: aims and errors (3,), and the picture that came closest."""

    aims: list[np.ndarray] = field(default_factory=list)
    errors: list[np.ndarray] = field(default_factory=list)
    best: FinishedPicture | None = None

    def add(self, aim: np.ndarray, error: np.ndarray, picture: FinishedPicture) -> None:
        if not self.errors or np.abs(error).max() < min(np.abs(one).max() for one in self.errors):
            self.best = picture
        self.aims.append(aim)
        self.errors.append(error)

    def next_aim(self) -> np.ndarray:
        """The secant through the last two runs, channel by channel; after one run, a slope of 1."""
        slope = np.ones(3)
        if len(self.aims) > 1:
            step = self.aims[-1] - self.aims[-2]
            moved = np.abs(step) > TOLERANCE / 4
            slope[moved] = ((self.errors[-1] - self.errors[-2])[moved] / step[moved]).clip(*SLOPES)
        return (self.aims[-1] - self.errors[-1] / slope).clip(-MAX_AIM, MAX_AIM)


class ExactRuns:
    """Decides after each run which pictures are made again, and with which aim."""

    def __init__(self) -> None:
        self._trials: dict[Hashable, _Trials] = {}
        self.runs = 0

    def measure(self, corrected: Corrected, made: Mapping[Hashable, FinishedPicture]) -> tuple[Job, ...]:
        """The jobs to run again. made: the pictures of the run, by the key of their jobs."""
        self.runs += 1
        again = []
        for job, steering in zip(corrected.jobs, corrected.steerings, strict=True):
            if steering is None or not steering.target.sets_mean or steering.free is None:
                continue
            if made[job.key].blackened:  # by the safety checker: says nothing of the light
                continue
            trials = self._trials.setdefault(job.key, _Trials())
            got = torch.from_numpy(mean_rgb(made[job.key].image))
            error = steering.target.error(got, steering.free).numpy()
            trials.add(np.array(job.aim), error, made[job.key])
            if self.runs <= MORE_RUNS and np.abs(error).max() > TOLERANCE:
                red, green, blue = trials.next_aim().tolist()
                again.append(replace(job, aim=(red, green, blue)))
        return tuple(again)

    @property
    def best(self) -> dict[Hashable, FinishedPicture]:
        """The closest picture of every job that was measured."""
        return {key: trials.best for key, trials in self._trials.items() if trials.best is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._trials:
            return ("Exact has no effect: no new picture has a mean brightness, tint or warmth to reach",)
        return (f"exact: {self.runs} {'run' if self.runs == 1 else 'runs'}",)


def mean_rgb(image: Image.Image) -> np.ndarray:
    """(3,): the mean of R, G and B, 0…1."""
    return np.asarray(image.convert("RGB"), np.float64).mean((0, 1)) / 255
