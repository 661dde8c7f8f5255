"""Stage 6: clean latents to pictures."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from oms_app.errors import StudioError


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
