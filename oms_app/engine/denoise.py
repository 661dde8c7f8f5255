"""Stages 3, 5 and 6: the shared noise, the stock pipeline's one call per chunk, and the decoding.

The denoising loop itself is the stock pipeline's: it takes `latents=`, so nothing of it is subclassed or copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from oms_app.models.recorded import recorded
from oms_app.models.scheduler_factory import make_scheduler as make_scheduler
from oms_app.models.text import Embedding
from oms_app.schema import Stopped, StudioError

PIXELS_PER_CALL = 16 * 256 * 256  # of one pipeline call, all its pictures together: bounds the memory


@dataclass(frozen=True)
class Noise:
    """One picture's noise: x_S (1, C, h, w), and the generator's state after that draw, a (5056,) tensor of bytes."""

    x_s: torch.Tensor
    state: torch.Tensor

    def generator(self) -> torch.Generator:
        """A copy of the generator as it stood after x_S: every variant gets its own, so they share all later noise."""
        generator = torch.Generator("cpu")
        generator.set_state(self.state)
        return generator


def draw(seed: int, shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> Noise:
    """x_S ~ N(0, I) of shape (1, C, h, w), as the stock pipeline draws it for one picture of this seed.

    The generator lives on the CPU whatever the device, so that a seed gives the same picture on every machine.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    x_s = randn_tensor((1, *shape), generator=generator, device=device, dtype=dtype)
    return Noise(x_s, generator.get_state())


def chunks(count: int, width: int, height: int, *, singly: bool = False) -> list[range]:
    """Ranges that cut `count` pictures into calls of at most PIXELS_PER_CALL, or of one, as even as can be."""
    at_most = 1 if singly else max(1, PIXELS_PER_CALL // (width * height))
    calls = -(-count // at_most)
    edges = [round(i * count / calls) for i in range(calls + 1)] if calls else [0]
    return [range(start, stop) for start, stop in pairwise(edges)]


@torch.no_grad()
def denoise(
    pipeline: Any,
    scheduler: Any,
    latents: torch.Tensor,
    generators: Sequence[torch.Generator],
    prompt: Embedding,
    negative: Embedding | None,
    *,
    steps: int,
    guidance_scale: float,
    guidance_rescale: float,
    on_step: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> torch.Tensor:
    """One call of the stock pipeline. latents (B, C, h, w), one generator per picture.

    Returns the clean scaled latents (B, C, h, w). on_step(step, steps) counts the pipeline's own timesteps (Heun makes
    39 of 20). Raises Stopped within one step of should_stop(), StudioError where the latents are no numbers.
    """

    def after_step(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, pipe.num_timesteps)
        if should_stop():
            pipe._interrupt = True  # the pipeline then skips its remaining steps
        return {}

    batch = len(latents)
    factor = pipeline.vae_scale_factor
    pooled: dict[str, torch.Tensor] = {}
    if prompt.pooled is not None:  # SDXL
        pooled["pooled_prompt_embeds"] = prompt.pooled.repeat(batch, 1)
        if negative is not None and negative.pooled is not None:
            pooled["negative_pooled_prompt_embeds"] = negative.pooled.repeat(batch, 1)
    pipeline.scheduler = scheduler
    with recorded(pipeline.unet):
        clean = pipeline(
            prompt=None,
            prompt_embeds=prompt.hidden.repeat(batch, 1, 1),
            negative_prompt_embeds=None if negative is None else negative.hidden.repeat(batch, 1, 1),
            **pooled,
            num_images_per_prompt=1,
            height=latents.shape[-2] * factor,
            width=latents.shape[-1] * factor,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            latents=latents.to(pipeline.unet.dtype),
            generator=list(generators),
            output_type="latent",
            callback_on_step_end=after_step,
        ).images
    if pipeline.interrupt or should_stop():
        raise Stopped("stopped")
    require_finite(clean, "the base model's latents")
    return clean


@torch.no_grad()
def to_rgb(pipeline: Any, latents: torch.Tensor, *, tiled: bool = False) -> torch.Tensor:
    """Scaled latents (B, C, h, w) through the VAE: (B, 3, H, W), -1 black to 1 white, not clipped.

    tiled: one picture after the other, large ones in overlapping tiles: less memory, and seams of a level or two.
    """
    vae, config = pipeline.vae, pipeline.vae.config
    vae.use_tiling = tiled
    vae.use_slicing = tiled or latents.device.type != "cpu"
    unscaled = latents.to(vae.dtype) / config.scaling_factor
    if config.latents_mean is not None and config.latents_std is not None:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(unscaled) for v in (config.latents_mean, config.latents_std))
        unscaled = unscaled * std + mean
    image: torch.Tensor = vae.decode(unscaled + (config.shift_factor or 0.0), return_dict=False)[0]
    pipeline.maybe_free_model_hooks()  # nothing of an offloaded model stays on the device
    return image


@torch.no_grad()
def decode(pipeline: Any, latents: torch.Tensor, *, tiled: bool = False) -> tuple[list[Image.Image], list[bool]]:
    """Scaled latents (B, C, h, w) to B RGB pictures, and which of them the model's safety checker blackened."""
    image = to_rgb(pipeline, latents, tiled=tiled)
    require_finite(image, "the decoded picture")
    flagged = None
    if hasattr(pipeline, "run_safety_checker"):
        image, flagged = pipeline.run_safety_checker(image, latents.device, latents.dtype)
    blackened = [bool(flag) for flag in flagged] if flagged is not None else [False] * len(latents)
    pictures = pipeline.image_processor.postprocess(
        image, output_type="pil", do_denormalize=[not flag for flag in blackened]
    )
    return pictures, blackened


def require_finite(tensor: torch.Tensor, what: str) -> None:
    """Raises StudioError naming the fault. A black picture is no fault; one made of NaN is."""
    if not torch.isfinite(tensor).all():
        raise StudioError(
            f"{what} are not finite numbers (NaN or infinite): the model's weights are damaged or its precision is too "
            "low; restore its files, or lower the guidance scale"
        )
