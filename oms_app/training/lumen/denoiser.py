"""How the base's UNet learns: at which timesteps, from which noise, with which weights. Called by `lumen`.

ε-prediction on SD's schedule. Two things keep the words for colour from being passed over, since a network that can
read colour off the noise learns nothing else (dev/LOG.md, the eighth round): the text encoder goes on answering what a
caption tells, and at first the noise of pictures whose ground is named has a mean of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from oms_app.prestep.schedule import add_noise
from oms_app.training.loop import Batch
from oms_app.training.lumen.autoencoder import SCALING

SNR_GAMMA = 5.0  # Hang et al. 2023, min-SNR: the weight of nearly clean latents is capped
NOISY_WEIGHT = 5.0  # at most; the words' meaning is decided at high noise, where ε alone would weigh it little
# The lowest frequencies, light and colour, are a thousandth of ε's values, so they have a loss of their own: the error
# averaged over a 4 × 4 grid, and a weight that the cap does not touch before T.
LOWEST_CELLS, LOWEST_WEIGHT = 4, 60.0
FIRST_STEPS_SHARE = 1 / 3  # of a batch, at the noisiest tenth of the timesteps
READING_WEIGHT = 0.03  # of the encoder's loss, which is about ten times the UNet's
OFFSET, OFFSET_HOLDS, OFFSET_ENDS = 0.1, 0.2, 0.5  # standard deviation; until and from which share of the budget


def unet_weight(snr: torch.Tensor, most: float = NOISY_WEIGHT) -> torch.Tensor:
    """The weight of ‖ε̂ - ε‖² at a signal-to-noise ratio: v-prediction's, (1 + SNR)/SNR, at most `most` at high noise,
    times min-SNR's at low noise. It is the same for all of x_T, so the flaw is learned as SD learned it."""
    return torch.clamp((1 + snr) / snr, max=most) * torch.clamp(SNR_GAMMA / snr, max=1.0)


def spread_timesteps(batch: int, count: int) -> torch.Tensor:
    """A batch's timesteps in random order, of 0 to count - 1: `FIRST_STEPS_SHARE` of them spread evenly over the
    noisiest tenth, the others over all. int64 of shape (batch,).

    The sampler's first steps settle a picture's light and colours, and there the words weigh most against the noise.
    """

    def evenly(n: int) -> torch.Tensor:
        return (torch.arange(n) + torch.rand(n)) / max(n, 1)

    first = round(FIRST_STEPS_SHARE * batch)
    places = torch.cat((0.9 + 0.1 * evenly(first), evenly(batch - first)))[torch.randperm(batch)]
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
) -> torch.Tensor:
    """‖ε̂ - ε‖², weighted by `unet_weight`, on latents averaged `factor` × `factor`; and the same of its lowest
    frequencies, which changes no optimum, only how soon the words for light and colour are learned. With a part
    "reading" among the models (`words.Reading`) its loss of what the encoder reads, too.

    strength: the standard deviation of the latents, which the weight's SNR counts in: the VAE's scaling factor, since
    ours gives unit variance before it.
    offset: the standard deviation of a mean of its own that each channel of the noise has where the batch says "named":
    the ground's colour stands in the caption and cannot be read off that noise. White noise's mean has 1/32.

    The noise of averaged latents would be `factor` times as weak; they are made that much stronger instead, so that a
    timestep hides the same shapes at each size. Timesteps: see `spread_timesteps`.
    """
    x0 = factor * F.avg_pool2d(batch["latents"], factor)
    count = len(alphas_cumprod)
    t = spread_timesteps(len(x0), count).to(x0.device)
    alpha_bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(x0)
    if offset:
        means = torch.randn_like(noise[..., :1, :1]) * batch["named"].view(-1, 1, 1, 1)
        noise = noise + factor * offset * means
    hidden = models["text"](batch["tokens"]).last_hidden_state
    made = models["unet"](add_noise(x0, noise, alpha_bar), t, hidden).sample
    error, snr = made.float() - noise, strength**2 * alpha_bar / (1 - alpha_bar)
    lowest = F.avg_pool2d(error, error.shape[-1] // LOWEST_CELLS)
    loss = (unet_weight(snr) * error**2).mean() + (unet_weight(snr, LOWEST_WEIGHT) * lowest**2).mean()
    if "reading" in models:
        loss = loss + READING_WEIGHT * models["reading"](hidden, batch["tokens"], batch["scenes"])
    return loss
