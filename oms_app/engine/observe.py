"""The one wrapper of `scheduler.step` in a run: it shows x̂0 to previews, and lets feedback move it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from oms_app.engine.preview import step_previews
from oms_app.engine.stages import Job
from oms_app.models.loading import LoadedBase
from oms_app.models.vae import decode_colours
from oms_app.prestep.dial import Steering
from oms_app.prestep.schedule import output_of_x0, x0_of_step
from oms_app.schema import Preview

POOLED_TRIALS = 8  # cells per side of x̂0 that are averaged before trials are decoded
SMALLEST = 4  # cells per side that are left at least
PREVIEWS = 8  # approximate number of previews per run


class StepObserver:
    """Sees x̂0 at every step of a request's scheduler, after guidance, inside `with`.

    Call `begin` before each call of the pipeline.
    """

    def __init__(self, base: LoadedBase, scheduler: Any) -> None:
        self._base = base
        self._scheduler = scheduler
        self._x0: Tensor | None = None  # of the last step
        self._batch: Sequence[Job] = ()
        self._steerings: dict[int, Steering] = {}  # by row of the batch
        self._step = 0

    def __enter__(self) -> StepObserver:
        step = self._scheduler.step

        @functools.wraps(step)  # the pipeline looks up its parameters by name
        def observed(output: Tensor, timestep: Any, sample: Tensor, *rest: Any, **settings: Any) -> Any:
            return step(self._observe(output, timestep, sample), timestep, sample, *rest, **settings)

        self._scheduler.step = observed
        return self

    def __exit__(self, *_: object) -> None:
        del self._scheduler.step  # the class's method again: nothing keeps the base model alive
        self._x0 = None
        self._steerings = {}

    def begin(self, batch: Sequence[Job], steerings: Sequence[Steering | None]) -> None:
        """The rows of the pipeline's next call, and the feedback of those that have one."""
        self._batch = batch
        self._steerings = {row: steering for row, steering in enumerate(steerings) if steering is not None}
        self._x0, self._step = None, 0

    def previews(self, step: int, steps: int) -> tuple[Preview, ...]:
        """Small pictures of the batch after this step: about eight times in a run, and not after its last step."""
        due = step * PREVIEWS // steps > (step - 1) * PREVIEWS // steps
        if self._x0 is None or not due or step == steps:
            return ()
        return step_previews(self._base, self._x0, self._batch)

    def _observe(self, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
        """The output to step with: the network's own, except in rows whose x̂0 feedback moves."""
        scheduler, step, steps = self._scheduler, self._step, len(self._scheduler.timesteps)
        self._step += 1
        x0 = x0_of_step(scheduler, output, timestep, sample)
        rows = [row for row, steering in self._steerings.items() if steering.observes(step, steps)]
        if rows:
            seen = x0_of_step(scheduler, output[rows].float(), timestep, sample[rows].float())
            moved = self._moved(seen, rows, step, steps)
            output, x0 = output.clone(), x0.clone()
            output[rows] = output_of_x0(scheduler, moved, timestep, sample[rows].float()).to(output)
            x0[rows] = moved.to(x0)
        self._x0 = x0
        return output

    def _moved(self, x0: Tensor, rows: Sequence[int], step: int, steps: int) -> Tensor:
        """x̂0 (n, C, h, w) of these rows after feedback; those that measure are decoded once and moved again."""
        steerings = [self._steerings[row] for row in rows]
        for one, steering in zip(x0, steerings, strict=True):
            if factor := steering.measures(step, steps):
                decoded = self._decoded(one[None], factor)[0]
                steering.learn_picture(one, decoded)
                if not steering.knows_response:
                    steering.learn_response(*self._tried(one, steering, decoded.mean((1, 2))))
        return torch.stack([steering.move(one) for steering, one in zip(steerings, x0, strict=True)])

    def _tried(self, x0: Tensor, steering: Steering, colour: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of the cells of x̂0 (C, h, w), and by how much they change its decoded mean colour, (n, 3) both."""
        changes = steering.trial_changes(x0, colour).to(x0)
        cells = changes.view(-1, 3, 1, 1).expand(-1, -1, *x0.shape[1:])
        pictures = torch.stack([x0, *(x0 + steering.colours.change(one) for one in cells)])
        means = self._decoded(pictures, POOLED_TRIALS).mean((2, 3))
        return changes, means[1:] - means[:1]

    @torch.no_grad()
    def _decoded(self, x0: Tensor, factor: int) -> Tensor:
        """(n, 3, H, W), 0…1: pictures, with a factor above 1 at that fraction of their size, which costs little."""
        while factor > 1 and min(x0.shape[-2:]) // factor < SMALLEST:
            factor //= 2
        return decode_colours(self._base.pipeline.vae, avg_pool2d(x0, factor) if factor > 1 else x0)
