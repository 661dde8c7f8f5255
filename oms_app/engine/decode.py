"""Stage 6: clean latents to pictures."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from oms_app.errors import StudioError
from oms_app.models.vae import decode_latents


@torch.no_grad()
def decode(pipeline: Any, latents: torch.Tensor, *, tiled: bool = False) -> tuple[list[Image.Image], list[bool]]:
    """Scaled latents (B, C, h, w) to B RGB pictures, and which of them the model's safety checker blackened.

    tiled: with less memory, see `decode_latents`.
    """
    flagged = None
    try:
        image = decode_latents(pipeline.vae, latents, tiled=tiled)
        require_finite(image, "the decoded picture")
        if hasattr(pipeline, "run_safety_checker"):
            image, flagged = pipeline.run_safety_checker(image, latents.device, latents.dtype)
    finally:
        pipeline.maybe_free_model_hooks()  # no part of an offloaded model stays on the device
    blackened = [bool(flag) for flag in flagged] if flagged is not None else [False] * len(latents)
    pictures = pipeline.image_processor.postprocess(
        image, output_type="pil", do_denormalize=[not flag for flag in blackened]
    )
    return pictures, blackened


def require_finite(tensor: torch.Tensor, what: str) -> None:
    """Raises StudioError naming the fault. A black picture is not a fault; one of NaN is."""
    if not torch.isfinite(tensor).all():
        raise StudioError(
            f"{what} are not finite numbers (NaN or infinite): the model's weights are damaged or its precision is too "
            "low (float16 on a GTX 16xx card); use --precision float32, restore its files, or lower the guidance scale"
        )
