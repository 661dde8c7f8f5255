"""The schedulers that a request may name: one table, without torch.

A scheduler of diffusers has two kinds of settings. What the model was trained with (betas, number of timesteps,
prediction type, zero terminal SNR, timestep spacing) comes from the model: see models/scheduler_factory.py. What the
sampler does with it is defined here, and never comes from the config of another scheduler class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class SchedulerSpec:
    """One scheduler.

    diffusers_class: its class there. a1111_name: what A1111 calls the sampler. settings: the sampler's settings.
    spacing: its timestep spacing for a model whose config names none. zero_snr: it can start at an SNR of 0.
    predictions: prediction types that it can use. max_steps: the limit of steps, if there is one.
    """

    diffusers_class: str
    a1111_name: str
    settings: dict[str, Any] = field(default_factory=dict)
    spacing: Literal["leading", "linspace", "trailing"] = "linspace"
    zero_snr: bool = True
    predictions: tuple[str, ...] = ("epsilon", "v_prediction", "sample")
    max_steps: int | None = None


# Latents are not confined to [-1, 1], so nothing is clipped; the last step ends at the model's own first ᾱ, as
# Stable Diffusion's does. All other settings are the defaults of the sampler's own class.
_LATENTS = {"clip_sample": False, "thresholding": False, "set_alpha_to_one": False}
LCM_STEPS = 50  # timesteps that consistency models were trained at; the sampler uses some of them

SCHEDULER_SPECS: dict[str, SchedulerSpec] = {
    "ddim": SchedulerSpec("DDIMScheduler", "DDIM", _LATENTS, spacing="leading"),
    # PNDM as in Stable Diffusion: without the Runge-Kutta start, which costs nine passes and fails below four steps.
    "pndm": SchedulerSpec(
        "PNDMScheduler",
        "PLMS",
        {"skip_prk_steps": True, "set_alpha_to_one": False},
        spacing="leading",
        zero_snr=False,
        predictions=("epsilon", "v_prediction"),
    ),
    "dpm++2m": SchedulerSpec("DPMSolverMultistepScheduler", "DPM++ 2M", {"thresholding": False}),
    "unipc": SchedulerSpec("UniPCMultistepScheduler", "UniPC", {"thresholding": False}),
    "lcm": SchedulerSpec(
        "LCMScheduler",
        "LCM",
        _LATENTS | {"original_inference_steps": LCM_STEPS, "timestep_scaling": 10.0},
        spacing="leading",
        max_steps=LCM_STEPS,
    ),
    "euler": SchedulerSpec("EulerDiscreteScheduler", "Euler"),
    "euler-a": SchedulerSpec("EulerAncestralDiscreteScheduler", "Euler a", predictions=("epsilon", "v_prediction")),
    "heun": SchedulerSpec("HeunDiscreteScheduler", "Heun", {"clip_sample": False}, zero_snr=False),
}
SCHEDULERS = tuple(SCHEDULER_SPECS)
