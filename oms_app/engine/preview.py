"""Previews of unfinished pictures: the correction's x̂0, and the base's x̂0 after each step.

The correction's x̂0 is decoded by the VAE; it needs no denoising. The base's x̂0 is shown through a linear map from
latents to colours, which costs next to nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from oms_app.engine.caches import ByteCache
from oms_app.engine.correct import CorrectionRunner
from oms_app.engine.decode import decode
from oms_app.engine.image_stats import image_stats
from oms_app.engine.stages import Drawn, Job
from oms_app.models.loading import LoadedBase
from oms_app.models.vae import rgb_map_of
from oms_app.prestep.schedule import x0_of_step
from oms_app.schema import ImageResult, Preview

MOST_CELLS = 64  # of the latents of a decoded preview, in each direction; light is smooth, and decoding costs by area
LOOKS = 8  # approximate number of previews per run


def preview_x0(drawn: Drawn, cache: ByteCache[Tensor]) -> tuple[ImageResult, ...]:
    """The decoded x̂0 of each of the jobs, whose corrections must have one; at most 64 latent cells a side."""
    if not drawn.jobs:
        return ()
    runner = CorrectionRunner(drawn, cache)
    x0 = torch.cat([runner.x0(job) for job in drawn.jobs])
    small = adaptive_avg_pool2d(x0, (min(x0.shape[-2], MOST_CELLS), min(x0.shape[-1], MOST_CELLS)))
    pictures, _ = decode(drawn.base.pipeline, small)
    return tuple(
        ImageResult(
            variant=job.variant.name,
            index=job.index,
            seed=drawn.request.seed + job.index,
            image=picture,
            stats=image_stats(picture),
        )
        for job, picture in zip(drawn.jobs, pictures, strict=True)
    )


def apply_rgb_map(latents: Tensor, rgb_map: Tensor) -> Tensor:
    """latents (B, C, h, w) through a map of `fit_rgb_map`: colours (B, 3, h, w)."""
    weights, constant = rgb_map[:-1].to(latents), rgb_map[-1].to(latents)
    return torch.einsum("bchw,cd->bdhw", latents, weights) + constant.view(1, -1, 1, 1)


class StepPreviewer:
    """Records x̂0 at every step of a request's scheduler, inside `with`, and makes previews from it."""

    def __init__(self, base: LoadedBase, scheduler: Any) -> None:
        self._base = base
        self._scheduler = scheduler
        self._x0: Tensor | None = None  # of the last step

    def __enter__(self) -> StepPreviewer:
        scheduler, step = self._scheduler, self._scheduler.step

        @functools.wraps(step)  # the pipeline looks up its parameters by name
        def observed(output: Tensor, timestep: Any, sample: Tensor, *rest: Any, **settings: Any) -> Any:
            self._x0 = x0_of_step(scheduler, output, timestep, sample)
            return step(output, timestep, sample, *rest, **settings)

        scheduler.step = observed
        return self

    def __exit__(self, *_: object) -> None:
        del self._scheduler.step  # the class's method again: nothing keeps the base model alive
        self._x0 = None

    def previews(self, batch: Sequence[Job], step: int, steps: int) -> tuple[Preview, ...]:
        """Small pictures of the batch after this step: about eight times in a run, and not after its last step."""
        due = step * LOOKS // steps > (step - 1) * LOOKS // steps
        if self._x0 is None or not due or step == steps:
            return ()
        if self._base.rgb_map is None:
            self._base.rgb_map = rgb_map_of(self._base.pipeline)
        colours = apply_rgb_map(self._x0.float().cpu(), self._base.rgb_map)
        pixels = ((colours.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).numpy()
        return tuple(
            Preview(variant=job.variant.name, index=job.index, image=Image.fromarray(one))
            for job, one in zip(batch, pixels, strict=True)
        )
