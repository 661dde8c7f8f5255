"""Previews of unfinished pictures: the correction's x̂0, and the base's x̂0 after each step.

The correction's x̂0 is decoded by the VAE; it needs no denoising. The base's x̂0 is shown through a linear map from
latents to colours, which costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from oms_app.engine.caches import ByteCache
from oms_app.engine.correct import CorrectionRunner, rgb_map_for
from oms_app.engine.decode import decode
from oms_app.engine.image_stats import image_stats
from oms_app.engine.stages import Drawn, Job
from oms_app.models.loading import LoadedBase
from oms_app.models.vae import decode_colours
from oms_app.schema import ImageResult, Preview

MOST_CELLS = 64  # of the latents of a decoded preview, in each direction; light is smooth, and decoding costs by area


def preview_x0(drawn: Drawn, cache: ByteCache[Tensor]) -> tuple[ImageResult, ...]:
    """The decoded x̂0 of each of the jobs, whose corrections must have one; at most 64 latent cells a side.

    A brightness that was set is measured in it and reached, as the feedback of a run does.
    """
    if not drawn.jobs:
        return ()
    runner = CorrectionRunner(drawn, cache)
    x0 = torch.cat([runner.x0(job) for job in drawn.jobs])
    small = adaptive_avg_pool2d(x0, (min(x0.shape[-2], MOST_CELLS), min(x0.shape[-1], MOST_CELLS)))
    for i, job in enumerate(drawn.jobs):
        steering = runner.steering(job)
        if steering and steering.target.luminance is not None and steering.target.only_brightness:
            steering.learn_picture(small[i], decode_colours(drawn.base.pipeline.vae, small[i : i + 1])[0])
            small[i] = steering.move(small[i])
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


def step_previews(base: LoadedBase, x0: Tensor, batch: Sequence[Job]) -> tuple[Preview, ...]:
    """Small pictures of x̂0 (B, C, h, w), one for each job."""
    colours = apply_rgb_map(x0.float().cpu(), rgb_map_for(base))
    pixels = ((colours.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).numpy()
    return tuple(
        Preview(variant=job.variant.name, index=job.index, image=Image.fromarray(one))
        for job, one in zip(batch, pixels, strict=True)
    )


def apply_rgb_map(latents: Tensor, rgb_map: Tensor) -> Tensor:
    """latents (B, C, h, w) through a map of `fit_rgb_map`: colours (B, 3, h, w)."""
    weights, constant = rgb_map[:-1].to(latents), rgb_map[-1].to(latents)
    return torch.einsum("bchw,cd->bdhw", latents, weights) + constant.view(1, -1, 1, 1)
