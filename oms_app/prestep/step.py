"""The OMS step: from pure noise x_S to a first latent x̃_T with the light and colour of the prompt.

All latents are (B, C, h, w), scaled as the UNet sees them. Equation numbers are those of the One More Step paper
(OMS, arXiv 2311.15744). Every function is linear in its latents.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oms_app.prestep.schedule import add_noise, first_alpha_bar, snr

# Below it, the noise hides a picture's mean in every latent space we know: nothing leaks, so nothing to correct.
MIN_TERMINAL_SNR = 1e-6


def predicted_x0(v: Tensor) -> Tensor:
    """x̂0 = -v: Eq. 9 at ᾱ = 0, where OMS predicts."""
    return -v


def guide(v_uncond: Tensor, v_cond: Tensor, w: float) -> Tensor:
    """Classifier-free guidance of the OMS prediction (Eq. 21): 0 is the unconditional one, 1 the conditional one."""
    return v_uncond + w * (v_cond - v_uncond)


def normalised_guide(x0_uncond: Tensor, x0_cond: Tensor, g: float) -> Tensor:
    """SingDiffusion's guidance of its x̂0, with g the base's CFG: (ŷ_∅ + g (ŷ_c - ŷ_∅))/g for g > 1 (arXiv 2403.08381).

    The result is divided by g, so that strong guidance does not overshoot in brightness.
    """
    return x0_cond if g <= 1.0 else guide(x0_uncond, x0_cond, g) / g


def mix(x0s: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """x̂0 = Σ w_i x̂0(c_i): exact, since the step is linear in x̂0. Weights may be negative; they are not normalised.

    Raises ValueError if there are no predictions, or if the number of weights differs.
    """
    if not x0s or len(x0s) != len(weights):
        raise ValueError(f"{len(x0s)} predictions and {len(weights)} weights: give equal numbers of both, at least one")
    return torch.stack([weight * x0 for x0, weight in zip(x0s, weights, strict=True)]).sum(dim=0)


def ode_step(x0_hat: Tensor, x_s: Tensor, alpha_bar: float) -> Tensor:
    """x̃_T = √ᾱ_τ x̂0 + √(1-ᾱ_τ) x_S (Eq. 20). The noise is kept, so a pair keeps its composition."""
    return add_noise(x0_hat, x_s, alpha_bar)


def sde_step(x0_hat: Tensor, z: Tensor, alpha_bar: float) -> Tensor:
    """x̃_T = √ᾱ_τ x̂0 + √(1-ᾱ_τ) z, with z a second draw of noise (Eq. 17)."""
    return add_noise(x0_hat, z, alpha_bar)


def offset_noise(x_s: Tensor, offset: Tensor, strength: float) -> Tensor:
    """x_S + s n, n ~ N(0, 1) constant over each channel (B, C, 1, 1) or picture (B, 1, 1, 1) (Guttenberg 2023)."""
    return x_s + strength * offset


def reference_step(x0_hat: Tensor, z: Tensor, alpha_bar: float) -> Tensor:
    """x̃_T = √ᾱ_τ x̂0 + (1-ᾱ_τ) z, as the published code has it (0.9953 of the noise where Eq. 17 has 0.9977)."""
    return alpha_bar**0.5 * x0_hat + (1 - alpha_bar) * z


def for_scheduler(x_T: Tensor, scheduler: Any) -> Tensor:
    """The `latents=` to give a diffusers pipeline so that the first tensor into its UNet equals x_T.

    A pipeline multiplies its latents by `init_noise_sigma`, and `scale_model_input` multiplies by another number:
    both are 1 for DDIM and similar schedulers, while sigma schedulers (Euler, Heun …) divide by √(σ_0²+1), and the
    two cancel only under `leading` spacing. A copy of the scheduler computes the product, since it counts the calls.
    For corrected latents only: raw noise is passed unchanged, as in the stock pipeline.
    """
    one = torch.ones(1, dtype=torch.float64)
    seen = copy.copy(scheduler).scale_model_input(one * scheduler.init_noise_sigma, scheduler.timesteps[0])
    return x_T / float(seen)


def check_hand_over(scheduler: Any) -> None:
    """Raise ValueError if no rescaling gives the UNet x̃_T itself, to 1e-4, at the first timestep.

    `for_scheduler` divides by one number, so a scheduler must scale all latents alike, by a finite number other than 0.
    Call `set_timesteps` first.
    """
    probe = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    given = for_scheduler(probe, scheduler) * scheduler.init_noise_sigma
    seen = copy.copy(scheduler).scale_model_input(given, scheduler.timesteps[0])
    if not torch.allclose(seen, probe, rtol=1e-4):
        raise ValueError(
            f"{type(scheduler).__name__} changes its input latents in a way that cannot be undone, so x̃_T "
            "cannot be passed to it exactly; use another scheduler, such as ddim"
        )


def is_without_leak(scheduler: Any) -> bool:
    """Whether SNR at the first timestep is below 1e-6, so that nothing leaks. Call `set_timesteps` first."""
    return snr(first_alpha_bar(scheduler)) < MIN_TERMINAL_SNR


def check_terminal_snr(scheduler: Any) -> None:
    """Raise ValueError, with the reason, if there is no leak for OMS to correct at the first timestep.

    This is so if SNR(τ) is below 1e-6 (betas rescaled to zero terminal SNR), and for flow matching. Call
    `set_timesteps` first.
    """
    if is_without_leak(scheduler):
        ratio = snr(first_alpha_bar(scheduler))
        raise ValueError(
            f"SNR at the first timestep is {ratio:.1e}, below {MIN_TERMINAL_SNR:g}: this schedule starts from pure "
            "noise, so One More Step has nothing to correct; use the raw variant, or a model with the usual betas"
        )


def check_prediction(scheduler: Any) -> None:
    """Raise ValueError if the schedule has zero terminal SNR and the model predicts ε.

    At SNR 0 the input is only noise, so ε says nothing about the picture (Lin et al., arXiv 2305.08891, 3.2).
    Call `set_timesteps` first.
    """
    if is_without_leak(scheduler) and scheduler.config.prediction_type == "epsilon":
        ratio = snr(first_alpha_bar(scheduler))
        raise ValueError(
            f"its schedule starts at SNR {ratio:.1e} but it predicts noise, which says nothing of the picture there; "
            "use a model trained for zero terminal SNR (v-prediction), or the usual betas"
        )
