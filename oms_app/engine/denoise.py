"""Stages 3 and 5: the shared noise, and the stock pipeline's one call per chunk.

The denoising loop itself is the stock pipeline's: it takes `latents=`, so nothing of it is subclassed or copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from oms_app.engine.decode import require_finite
from oms_app.engine.stages import Corrected, Noise
from oms_app.errors import Stopped
from oms_app.models.recorded import recorded
from oms_app.models.text import Embedding

PIXELS_PER_CALL = 16 * 256 * 256  # per pipeline call, all its pictures together: limits the memory


def draw(seed: int, shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> Noise:
    """x_S ~ N(0, I) of shape (1, C, h, w), drawn on the CPU in float32 and cast.

    So a seed gives the same noise on every device and in every precision; in float16 and bfloat16 a generator draws
    other numbers. It equals the stock pipeline's draw for one picture of this seed only in float32.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    x_s = torch.randn((1, *shape), generator=generator, dtype=torch.float32)
    return Noise(x_s.to(device, dtype), generator.get_state())


def chunks(count: int, width: int, height: int, *, one_by_one: bool = False) -> list[range]:
    """Ranges that cut `count` pictures into calls of at most PIXELS_PER_CALL, or of one, as even as can be."""
    at_most = 1 if one_by_one else max(1, PIXELS_PER_CALL // (width * height))
    calls = -(-count // at_most)
    edges = [round(i * count / calls) for i in range(calls + 1)] if calls else [0]
    return [range(start, stop) for start, stop in pairwise(edges)]


@dataclass(frozen=True)
class PipelineCall:
    """One call of the stock pipeline, for a batch of pictures that differ only in their latents.

    latents: (B, C, h, w), one generator per picture. negative: None if there is no classifier-free guidance.
    """

    latents: torch.Tensor
    generators: Sequence[torch.Generator]
    prompt: Embedding
    negative: Embedding | None
    steps: int
    guidance_scale: float
    guidance_rescale: float


def call_for(corrected: Corrected, part: range) -> PipelineCall:
    """The call that generates these jobs of the request."""
    request, text = corrected.request, corrected.base.text
    return PipelineCall(
        latents=torch.cat([corrected.latents[i] for i in part]),
        generators=[corrected.noises[corrected.jobs[i].index].generator() for i in part],
        prompt=corrected.embedding(text, request.prompt),
        negative=corrected.embedding(text, request.negative_prompt) if request.guided else None,
        steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        guidance_rescale=request.guidance_rescale,
    )


@torch.no_grad()
def denoise(
    pipeline: Any,
    scheduler: Any,
    call: PipelineCall,
    on_step: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> torch.Tensor:
    """Stage 5: one call of the stock pipeline. Returns the clean scaled latents (B, C, h, w).

    on_step(step, steps) counts the pipeline's own timesteps (Heun makes 39 of 20). Raises Stopped within one step of
    should_stop(), StudioError if the latents are not finite.
    """

    def after_step(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, pipe.num_timesteps)
        if should_stop():
            pipe._interrupt = True  # the pipeline then skips its remaining steps
        return {}

    batch = len(call.latents)
    factor = pipeline.vae_scale_factor
    pooled: dict[str, torch.Tensor] = {}
    if call.prompt.pooled is not None:  # SDXL
        pooled["pooled_prompt_embeds"] = call.prompt.pooled.repeat(batch, 1)
        if call.negative is not None and call.negative.pooled is not None:
            pooled["negative_pooled_prompt_embeds"] = call.negative.pooled.repeat(batch, 1)
    with recorded(pipeline.unet), scheduled(pipeline, scheduler):
        clean = pipeline(
            prompt=None,
            prompt_embeds=call.prompt.hidden.repeat(batch, 1, 1),
            negative_prompt_embeds=None if call.negative is None else call.negative.hidden.repeat(batch, 1, 1),
            **pooled,
            num_images_per_prompt=1,
            height=call.latents.shape[-2] * factor,
            width=call.latents.shape[-1] * factor,
            num_inference_steps=call.steps,
            guidance_scale=call.guidance_scale,
            guidance_rescale=call.guidance_rescale,
            latents=call.latents.to(pipeline.unet.dtype),
            generator=list(call.generators),
            output_type="latent",
            callback_on_step_end=after_step,
        ).images
    if pipeline.interrupt or should_stop():
        raise Stopped("stopped")
    require_finite(clean, "the base model's latents")
    return clean


@contextmanager
def scheduled(pipeline: Any, scheduler: Any) -> Iterator[None]:
    """The pipeline runs with this scheduler inside the block, and has its own again afterwards."""
    own = pipeline.scheduler
    pipeline.scheduler = scheduler
    try:
        yield
    finally:
        pipeline.scheduler = own
