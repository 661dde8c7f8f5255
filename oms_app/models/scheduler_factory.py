"""Builds a request's scheduler, only from the model's schedule and the sampler's settings.

`Scheduler.from_config` takes every key that both classes have from the config of the class that the model was saved
with, and the target class's defaults for the rest: DDIM then clips latents, and LCM's limit of steps applies to DDIM.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from oms_app.errors import StudioError, one_line
from oms_app.prestep.step import MIN_TERMINAL_SNR
from oms_app.schedulers import SCHEDULER_SPECS

# Stable Diffusion's, for a config without a class that has defaults.
_USUAL = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class ModelSchedule:
    """The settings of a scheduler's config that belong to the model.

    betas: (T,), before any rescaling to zero terminal SNR. spacing: None if the config names none.
    """

    betas: tuple[float, ...]
    prediction_type: str
    zero_terminal_snr: bool
    spacing: str | None
    steps_offset: int


def model_schedule(config: Mapping[str, Any]) -> ModelSchedule:
    """The model's own schedule, from the config of the scheduler class that it was saved with.

    Raises StudioError for betas that cannot be computed.
    """
    assumed = set(config.get("_use_default_values", ()))  # missing keys, from the class's defaults
    defaults = _USUAL | _defaults_of(config.get("_class_name"))

    def value(name: str, otherwise: Any = None) -> Any:
        return config[name] if name in config else defaults.get(name, otherwise)

    def stated(name: str) -> Any:
        return config[name] if name in config and name not in assumed else None

    betas = _betas(value)
    final = float(torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0)[-1])
    # Betas of the model's own that were rescaled before may end just above 0; a cosine schedule ends there unrescaled.
    rescaled = final < MIN_TERMINAL_SNR if config.get("trained_betas") is not None else final == 0.0
    zero = bool(config.get("rescale_betas_zero_snr")) or rescaled
    offset = stated("steps_offset")
    return ModelSchedule(
        betas=betas,
        prediction_type=str(value("prediction_type", "epsilon")),
        zero_terminal_snr=zero,
        spacing=stated("timestep_spacing") or ("trailing" if zero else None),
        # For `leading` spacing: Stable Diffusion was published with 1, and its stock pipeline enforces it.
        steps_offset=1 if offset is None else int(offset),
    )


def make_scheduler(config: Mapping[str, Any], name: str, steps: int, device: torch.device) -> Any:
    """A fresh diffusers scheduler of this name for the model that `config` was saved with, its timesteps set.

    Raises StudioError if the scheduler cannot run the model, or not with this number of steps.
    """
    spec, model = SCHEDULER_SPECS[name], model_schedule(config)
    if model.zero_terminal_snr and not spec.zero_snr:
        able = ", ".join(other for other, one in SCHEDULER_SPECS.items() if one.zero_snr)
        raise StudioError(
            f"the scheduler {name} cannot start from pure noise, and this model was trained for zero terminal SNR: "
            f"choose one of {able}"
        )
    if model.prediction_type not in spec.predictions:
        raise StudioError(
            f"the scheduler {name} cannot run a model with prediction type {model.prediction_type!r}: "
            f"it supports {', '.join(spec.predictions)}; choose another scheduler, such as ddim"
        )
    if spec.max_steps is not None and steps > spec.max_steps:
        raise StudioError(f"{steps} steps are too many for the scheduler {name}: take 1 to {spec.max_steps}")
    rescaled = {"rescale_betas_zero_snr": True} if model.zero_terminal_snr else {}
    try:
        scheduler = getattr(diffusers, spec.diffusers_class)(
            num_train_timesteps=len(model.betas),
            trained_betas=list(model.betas),
            prediction_type=model.prediction_type,
            timestep_spacing=model.spacing or spec.spacing,
            steps_offset=model.steps_offset,
            **rescaled,
            **spec.settings,
        )
        scheduler.set_timesteps(steps, device=device)
    except (ValueError, IndexError) as error:
        raise StudioError(
            f"the scheduler {name} cannot run {steps} steps ({one_line(error)}): take more, or another scheduler"
        ) from error
    return scheduler


def noise_follows_from_betas(scheduler_class: type) -> bool:
    """Whether a class's noise levels follow from its betas alone.

    Not in flow matching, EDM, unCLIP and CogVideoX; nor in IPNDM, whose 1 - ᾱ is sin²(πt/2) of a t in [0, 1], and
    KarrasVe, whose latents are not scaled with the noise.
    """
    parameters = inspect.signature(scheduler_class).parameters
    return "beta_start" in parameters and "snr_shift_scale" not in parameters


def _defaults_of(class_name: Any) -> dict[str, Any]:
    """The defaults of a scheduler class of diffusers; empty for anything else."""
    named = getattr(diffusers, class_name, None) if isinstance(class_name, str) else None
    if not (isinstance(named, type) and issubclass(named, diffusers.SchedulerMixin)):
        return {}
    parameters = inspect.signature(named).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


def _betas(value: Any) -> tuple[float, ...]:
    """(T,), bit for bit as the scheduler classes of diffusers compute them in float32."""
    trained = value("trained_betas")
    if trained is not None:
        return tuple(torch.tensor(trained, dtype=torch.float32).tolist())
    kind = value("beta_schedule")
    settings = {name: value(name) for name in ("num_train_timesteps", "beta_start", "beta_end")}
    classes = (diffusers.DDPMScheduler, diffusers.HeunDiscreteScheduler)  # together they support every kind
    for known in classes:
        try:
            return tuple(known(beta_schedule=kind, **settings).betas.tolist())
        except (NotImplementedError, TypeError, ValueError):
            continue
    raise StudioError(f"the scheduler's config has an unknown beta_schedule {kind!r}: restore the folder")
