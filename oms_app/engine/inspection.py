"""The figures of `inspect` for a base model: its schedule's leak, its radii, its latent domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from oms_app.engine.correct import colour_map_for
from oms_app.models import vae
from oms_app.models.catalog import Entry
from oms_app.models.loading import LoadedBase
from oms_app.models.scheduler_factory import make_scheduler
from oms_app.prestep.schedule import first_alpha_bar, snr


def describe(entry: Entry, base: LoadedBase, domain: str, modules: Sequence[str]) -> dict[str, Any]:
    """Figures of the default scheduler and size. Radii are those of the paper's Table 1, in scaled latents.

    colour_map_error: of the dials' map from colours to latents, root mean square over 64 flat colours, in percent.

    radius_training = √(d(ᾱ_T·m2 + 1 - ᾱ_T)), radius_sampling = √d, d the number of latent values.
    """
    defaults = entry.defaults
    assert defaults is not None  # every base model has them: catalog.Entry
    pipeline = base.pipeline
    scheduler = make_scheduler(
        pipeline.scheduler.config, defaults.scheduler, defaults.num_inference_steps, torch.device("cpu")
    )
    try:
        colour_map_error = vae.colour_map_error(pipeline, colour_map_for(base))
    finally:
        pipeline.maybe_free_model_hooks()  # no part of an offloaded model stays on the device
    at_end = float(scheduler.alphas_cumprod[-1])
    at_first = first_alpha_bar(scheduler)
    factor = pipeline.vae_scale_factor
    shape = (int(pipeline.unet.config.in_channels), defaults.height // factor, defaults.width // factor)
    d = int(np.prod(shape))
    m2 = 1.0 if entry.second_moment is None else entry.second_moment
    return {
        "model": entry.id,
        "title": entry.title,
        "licence": entry.licence,
        "prediction_type": scheduler.config.prediction_type,
        "scheduler": defaults.scheduler,
        "timestep_spacing": scheduler.config.get("timestep_spacing"),
        "alpha_bar_T": at_end,
        "terminal_snr": float(snr(at_end)),
        "first_timestep": int(scheduler.timesteps[0]),
        "alpha_bar_first": at_first,
        "snr_first": float(snr(at_first)),
        "latent_shape": list(shape),
        "second_moment": m2,
        "second_moment_is_measured": entry.second_moment is not None,
        "radius_training": float(np.sqrt(d * (at_end * m2 + 1 - at_end))),
        "radius_sampling": float(np.sqrt(d)),
        "domain": domain,
        "colour_map_error": round(colour_map_error, 2),
        "oms_modules": list(modules),
        "parameters": {
            part: sum(tensor.numel() for tensor in getattr(pipeline, part).parameters())
            for part in ("unet", "vae", "text_encoder")
        },
    }
