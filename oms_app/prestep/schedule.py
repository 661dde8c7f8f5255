"""Noise schedules, and how much of the picture remains in the latents at the last timestep.

Variance preserving throughout: x_t = √ᾱ_t x0 + √(1-ᾱ_t) ε. Equation numbers are those of the One More Step paper
(OMS, arXiv 2311.15744). Schedules are float64, of shape (T,); latents (B, C, h, w).
"""

from __future__ import annotations

import copy
import math
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", Tensor, float)


class TableRow(TypedDict):
    """One row of OMS, Table 1. Radii and their gap are lengths in the space of `dimensions` coordinates."""

    schedule: str
    dimensions: int
    second_moment: float
    snr: float
    radius_training: float
    radius_sampling: float
    radius_gap: float


def scaled_linear_betas(timesteps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Stable Diffusion's betas, linear in √β (Eq. 11): (T,) float64."""
    return torch.linspace(math.sqrt(start), math.sqrt(end), timesteps, dtype=torch.float64) ** 2


def linear_betas(timesteps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """DDPM's betas (Ho et al. 2020): (T,) float64."""
    return torch.linspace(start, end, timesteps, dtype=torch.float64)


def cosine_betas(timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """Betas of the cosine schedule (Nichol and Dhariwal 2021, Eq. 17): (T,) float64."""
    t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    alpha_bar = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta)


def alphas_cumprod(betas: Tensor) -> Tensor:
    """ᾱ_t = Π (1 - β_s) for s ≤ t: (T,), of the betas' type."""
    return torch.cumprod(1 - betas, dim=0)


def snr(alpha_bar: Number) -> Number:
    """Signal-to-noise ratio ᾱ/(1-ᾱ) (Eq. 4)."""
    return alpha_bar / (1 - alpha_bar)


def rescale_zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas whose √ᾱ_T is 0 and whose √ᾱ_1 is kept (Lin et al., arXiv 2305.08891, Algorithm 1): (T,)."""
    root = alphas_cumprod(betas).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


def _roots(alpha_bar: Tensor | float, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """√ᾱ and √(1-ᾱ); of a (B,) ᾱ in x's type, on its device, and shaped to multiply (B, C, h, w)."""
    if not isinstance(alpha_bar, Tensor):
        return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    if alpha_bar.ndim:
        alpha_bar = alpha_bar.reshape(-1, *[1] * (x.ndim - 1))
    return alpha_bar.sqrt().to(x), (1 - alpha_bar).sqrt().to(x)  # roots first: 1 - ᾱ is lost in float16


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """x_t = √ᾱ x0 + √(1-ᾱ) ε (Eq. 3). x0, noise (B, C, h, w); alpha_bar a number or (B,)."""
    root, root_noise = _roots(alpha_bar, x0)
    return root * x0 + root_noise * noise


def v_target(x0: Tensor, noise: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """v = √ᾱ ε - √(1-ᾱ) x0 (Eq. 8). Shapes as in `add_noise`. At ᾱ = 0 it is -x0, the target of OMS."""
    root, root_noise = _roots(alpha_bar, x0)
    return root * noise - root_noise * x0


def x0_from_v(x_t: Tensor, v: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """x0 = √ᾱ x_t - √(1-ᾱ) v (Eq. 9). Shapes as in `add_noise`."""
    root, root_noise = _roots(alpha_bar, x_t)
    return root * x_t - root_noise * v


def x0_from_epsilon(x_t: Tensor, epsilon: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """x0 = (x_t - √(1-ᾱ) ε)/√ᾱ (Eq. 3, solved for x0). Shapes as in `add_noise`; ᾱ above 0."""
    root, root_noise = _roots(alpha_bar, x_t)
    return (x_t - root_noise * epsilon) / root


def radii(dimensions: int, second_moment: float, alpha_bar: float) -> tuple[float, float]:
    """Root mean square lengths (r_T, r_S) of x_T in training and of the noise that sampling starts from (Eq. 13, 14).

    r_T = √(d(ᾱ_T·m2 + 1-ᾱ_T)), r_S = √d, with m2 the mean square of one coordinate of the data.
    """
    return math.sqrt(dimensions * (alpha_bar * second_moment + 1 - alpha_bar)), math.sqrt(dimensions)


def table1() -> list[TableRow]:
    """Table 1 in closed form. The paper samples; its cosine gap, 3.05e-05, is one float32 step at a radius of 443.

    Pixels are uniform in [-1, 1] (m2 = 1/3). The latents' m2 = 0.8845 is solved back from the paper's own gap: with
    unit variance, as its text says, the gap would be 0.
    """
    pixels, latents = 3 * 256 * 256, 4 * 64 * 64
    setups = [
        ("cosine", cosine_betas(), pixels, 1 / 3),
        ("linear", linear_betas(), pixels, 1 / 3),
        ("LDM pixels", scaled_linear_betas(), pixels, 1 / 3),
        ("LDM latents", scaled_linear_betas(), latents, 0.8845),
    ]
    rows: list[TableRow] = []
    for name, betas, dimensions, second_moment in setups:
        alpha_bar = float(alphas_cumprod(betas)[-1])
        training, sampling = radii(dimensions, second_moment, alpha_bar)
        rows.append(
            TableRow(
                schedule=name,
                dimensions=dimensions,
                second_moment=second_moment,
                snr=snr(alpha_bar),
                radius_training=training,
                radius_sampling=sampling,
                radius_gap=sampling - training,
            )
        )
    return rows


def is_flow_matching(scheduler: Any) -> bool:
    """Whether a diffusers scheduler, of whatever class, follows a flow rather than a variance-preserving schedule."""
    config = scheduler.config
    return (
        type(scheduler).__name__.startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas", False))
        or config.get("prediction_type") == "flow_prediction"
    )


def first_alpha_bar(scheduler: Any) -> float:
    """ᾱ_τ at the first timestep τ = `scheduler.timesteps[0]` of a diffusers scheduler.

    τ is not always T-1 (`leading` spacing), and is read from sigmas[0] if there are sigmas, ᾱ = 1/(σ²+1), for
    sigmas may be respaced (Karras) and then fall between timesteps. Call `set_timesteps` first.
    Raises ValueError if that was not done, or if the scheduler has no ᾱ (flow matching, EDM).
    """
    name = type(scheduler).__name__
    if is_flow_matching(scheduler):
        raise ValueError(
            f"{name} is a flow-matching scheduler: it has no ᾱ; use a variance-preserving one, such as ddim"
        )
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"{name} has no ᾱ; use a variance-preserving scheduler, such as ddim")
    if getattr(scheduler, "num_inference_steps", None) is None:
        raise ValueError(f"{type(scheduler).__name__} has no first timestep yet: call set_timesteps(steps) first")
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        return 1 / (float(sigmas[0]) ** 2 + 1)
    return float(scheduler.alphas_cumprod[int(scheduler.timesteps[0])])


def x0_of_step(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    """x̂0 (B, C, h, w) of one step of a diffusers scheduler, from what its `step` is given, before it steps.

    Computed from ᾱ and the prediction type, since only some schedulers return `pred_original_sample`. If there are
    sigmas, the level is σ of the current step: timesteps may fall between the trained ones (Karras), and Heun visits
    each twice. `scale_model_input` turns the σ-scaled samples of Euler and Heun into x_t, and does not change others.
    Raises ValueError for an unknown prediction type.
    """
    alpha_bar, x_t = _level_of_step(scheduler, timestep, sample)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return x0_from_epsilon(x_t, output, alpha_bar)
    if kind == "v_prediction":
        return x0_from_v(x_t, output, alpha_bar)
    if kind == "sample":
        return output
    raise ValueError(f"x0 cannot be computed from the prediction type {kind!r}: use epsilon, v_prediction or sample")


def output_of_x0(scheduler: Any, x0: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    """The model output (B, C, h, w) with which `x0_of_step` gives x0: its inverse, of the same arguments.

    ε = (x_t - √ᾱ x0)/√(1-ᾱ) and v = √ᾱ ε - √(1-ᾱ) x0. Raises ValueError for an unknown prediction type.
    """
    alpha_bar, x_t = _level_of_step(scheduler, timestep, sample)
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return x0
    epsilon = (x_t - math.sqrt(alpha_bar) * x0) / math.sqrt(1 - alpha_bar)
    if kind == "epsilon":
        return epsilon
    if kind == "v_prediction":
        return v_target(x0, epsilon, alpha_bar)
    raise ValueError(f"no output follows from x0 for the prediction type {kind!r}: use epsilon, v_prediction or sample")


def _level_of_step(scheduler: Any, timestep: Any, sample: Tensor) -> tuple[float, Tensor]:
    """ᾱ of the current step of a diffusers scheduler, and x_t, from the sample that its `step` is given."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        alpha_bar = 1 / (float(sigmas[scheduler.step_index or 0]) ** 2 + 1)
    else:
        alpha_bar = float(scheduler.alphas_cumprod[int(timestep)])
    return alpha_bar, copy.copy(scheduler).scale_model_input(sample, timestep)
