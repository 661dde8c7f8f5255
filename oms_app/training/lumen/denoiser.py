"""How the base's UNet learns: at which timesteps, from which noise, with which weights. Called by `stages`.

ε-prediction on SD's schedule. A network that can read colour off the noise learns nothing from the words for it
(dev/LOG.md, the eighth round): so at first the noise of pictures whose ground is named has a mean of its own.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from oms_app.prestep.schedule import add_noise, v_target
from oms_app.training.loop import Batch
from oms_app.training.lumen.autoencoder import SCALING

Prediction = Literal["epsilon", "v_prediction"]
SNR_GAMMA = 5.0  # Hang et al. 2023, min-SNR: the weight of nearly clean latents is capped
NOISY_WEIGHT = 5.0  # at most; the words' meaning is decided at high noise, where ε alone would weigh it little
# The lowest frequencies, light and colour, are a thousandth of ε's values, so they have a loss of their own: the error
# averaged over a 4 × 4 grid, and a weight that the cap does not touch before T.
LOWEST_CELLS, LOWEST_WEIGHT = 4, 60.0
FIRST_STEPS_SHARE = 0.25  # of a batch, at the noisiest tenth of the timesteps
CLEAN_POWER = 0.8  # of the others; below 1 nearly clean latents, whose noise the decoder removes, come less often
OFFSET, OFFSET_HOLDS, OFFSET_ENDS = 0.1, 0.2, 0.45  # standard deviation; until and from which share of the budget


def unet_weight(snr: torch.Tensor, most: float = NOISY_WEIGHT) -> torch.Tensor:
    """The weight of ‖ε̂ - ε‖² at a signal-to-noise ratio: v-prediction's, (1 + SNR)/SNR, at most `most` at high noise,
    times min-SNR's at low noise. It is the same for all of x_T, so the flaw is learned as SD learned it."""
    return torch.clamp((1 + snr) / snr, max=most) * torch.clamp(SNR_GAMMA / snr, max=1.0)


def spread_timesteps(batch: int, count: int) -> torch.Tensor:
    """A batch's timesteps in random order, of 0 to count - 1: `FIRST_STEPS_SHARE` of them spread evenly over the
    noisiest tenth, the others over all, the nearly clean ones less densely. int64 of shape (batch,).

    The sampler's first steps settle a picture's light and colours, and there the words weigh most against the noise.
    """

    def evenly(n: int) -> torch.Tensor:
        return (torch.arange(n) + torch.rand(n)) / max(n, 1)

    first = round(FIRST_STEPS_SHARE * batch)
    places = torch.cat((0.9 + 0.1 * evenly(first), evenly(batch - first) ** CLEAN_POWER))[torch.randperm(batch)]
    return (places * count).long().clamp(max=count - 1)


def offset_strength(used: float) -> float:
    """The standard deviation of the noise's mean at a share of the budget: constant, then falling, then none."""
    return OFFSET * min(1.0, max(0.0, (OFFSET_ENDS - used) / (OFFSET_ENDS - OFFSET_HOLDS)))


def unet_loss(
    models: torch.nn.ModuleDict,
    batch: Batch,
    alphas_cumprod: torch.Tensor,
    factor: int = 1,
    strength: float = SCALING,
    offset: float = 0.0,
    prediction: Prediction = "epsilon",
) -> torch.Tensor:
    """‖ε̂ - ε‖², weighted by `unet_weight`, on latents averaged `factor` × `factor`; and the same of its lowest
    frequencies, which changes no optimum, only how soon the words for light and colour are learned.

    models: "unet" and "text", the encoder, which is not trained here.
    strength: the standard deviation of the latents, which the weight's SNR counts in: the VAE's scaling factor, since
    ours gives unit variance before it.
    offset: the standard deviation of a mean of its own that each channel of the noise has for scenes that the batch
    calls "named": the ground's colour stands in the caption and cannot be read off that noise. White noise's mean has
    1/32.
    prediction: what the UNet's output is.

    The noise of averaged latents would be `factor` times as weak; they are made that much stronger instead, so that a
    timestep hides the same shapes at each size. Timesteps: see `spread_timesteps`.
    """
    x0 = factor * F.avg_pool2d(batch["latents"], factor)
    t = spread_timesteps(len(x0), len(alphas_cumprod)).to(x0.device)
    alpha_bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(x0)
    if offset:
        means = torch.randn_like(noise[..., :1, :1]) * batch["named"].view(-1, 1, 1, 1)
        noise = noise + factor * offset * means
    with torch.no_grad():
        hidden = models["text"](batch["tokens"]).last_hidden_state
    made = models["unet"](add_noise(x0, noise, alpha_bar), t, hidden).sample.float()
    snr = strength**2 * alpha_bar / (1 - alpha_bar)
    if prediction == "epsilon":
        error, weight, lowest_weight = made - noise, unet_weight(snr), unet_weight(snr, LOWEST_WEIGHT)
    else:
        error = made - v_target(x0, noise, alpha_bar)
        weight = lowest_weight = v_weight(snr)
    lowest = F.avg_pool2d(error, error.shape[-1] // LOWEST_CELLS)
    return (weight * error**2).mean() + (lowest_weight * lowest**2).mean()


def v_weight(snr: torch.Tensor) -> torch.Tensor:
    """The weight of ‖v̂ - v‖², which at high noise is the error of x0: min-SNR's, also at SNR 0."""
    return torch.clamp(SNR_GAMMA / snr.clamp(min=1e-6), max=1.0)
