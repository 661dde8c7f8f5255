"""Lumen's autoencoder: 256 px pictures to 4×32×32 latents and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from diffusers import AutoencoderKL

from oms_app.training.loop import Batch, Growth, Plan, State, grown, train
from oms_app.training.scenes import painter as scenes

LATENT_CHANNELS = 4
WIDTHS = (16, 32, 80, 128)
NOISE = 0.05  # standard deviation of the posterior, the same everywhere, of latents of unit variance
# Half of the latents are decoded with more noise than that, up to this much. The UNet's latents are never exact, and a
# decoder that knows exact ones alone draws their errors as halos and wavy edges.
MOST_NOISE = 0.4
# Standard deviations of `colours` over scenes: with them each guided channel has about unit variance.
COLOUR_STD = (0.62, 0.28, 0.14)
GUIDE_WEIGHT = 4.0
DETAIL_WEIGHT = 0.01  # keeps the variance of the free channel at one
EDGE_WEIGHT = 1.0  # of the absolute error of differences between neighbouring pixels
# SD's schedule was made for 64×64 latents. A picture's low frequencies are averages over four times as many values
# there as in our 32×32; latents twice as strong give them the same signal-to-noise ratio at each step (Hoogeboom et al.
# 2023, simple diffusion, Eq. 3), at T above all, where the flaw and OMS act.
SCALING = 2.0
BORDER, BORDER_WEIGHT = 8, 4.0  # pixels; there half the surroundings are missing, and errors stand out as lines


def build(widths: tuple[int, ...] = WIDTHS) -> AutoencoderKL:
    """SD's layout, 8 × down, without attention."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        norm_num_groups=4,  # more groups would normalise the colour of flat pictures away
        mid_block_add_attention=False,
        scaling_factor=SCALING,
        sample_size=scenes.SIZE,
    )
    into = vae.quant_conv
    assert into is not None
    with torch.no_grad():
        into.weight[LATENT_CHANNELS:] = 0.0
        into.bias[LATENT_CHANNELS:] = 2 * float(np.log(NOISE))
    return vae


def to_tensor(pictures: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(images: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] → (B, H, W, 3) uint8."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def distance(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Mean of absolute and squared errors of (B, 3, H, W) and of the absolute errors of its edges: differences between
    neighbours one and two pixels apart. The borders weigh more."""
    error = (made - true).float()
    weight = torch.full(error.shape[-2:], BORDER_WEIGHT, device=error.device)
    weight[BORDER:-BORDER, BORDER:-BORDER] = 1.0
    value = ((torch.sqrt(error**2 + 1e-4) + 2.0 * error**2) * weight).mean() / weight.mean()
    for reach in (1, 2):
        across = (error[..., reach:] - error[..., :-reach]).abs().mean()
        down = (error[..., reach:, :] - error[..., :-reach, :]).abs().mean()
        value = value + EDGE_WEIGHT / 2 * (across + down)
    return value


Guide = tuple[tuple[int, float], ...]  # for each of `colours`: the latent channel that holds it, and its sign
GUIDE: Guide = ((0, 1.0), (1, 1.0), (2, 1.0))


def colours(pictures: torch.Tensor) -> torch.Tensor:
    """What three of the four latent channels are to hold, (B, 3, H, W) in [-1, 1] → (B, 3, H/8, W/8): mean light, red
    against blue, green against both."""
    r, g, b = F.avg_pool2d(pictures, 8).unbind(1)
    return torch.stack([(r + g + b) / 3, (r - b) / 2, g / 2 - (r + b) / 4], dim=1)


def _noisy(mean: torch.Tensor) -> torch.Tensor:
    """Latents as the decoder is given them: every second one with `NOISE`, the others with up to `MOST_NOISE`."""
    strength = NOISE + (MOST_NOISE - NOISE) * torch.rand(len(mean), 1, 1, 1, device=mean.device)
    strength[::2] = NOISE
    return mean + strength * torch.randn_like(mean)


def loss(models: torch.nn.ModuleDict, batch: Batch, guide: Guide = GUIDE) -> torch.Tensor:
    """Reconstruction from noisy latents, with three channels guided towards the picture's local colour.

    The guide keeps light and colour in the latents' low frequencies, where the schedule's flaw and OMS act, and makes
    them easy to learn for a small diffusion model. Without it, light took three channels and colour was lost
    (dev/LOG.md). The fourth channel is free: it says where in a cell the edges lie.
    """
    vae: Any = models["vae"]
    pictures = batch["pictures"]
    mean = vae.encode(pictures).latent_dist.mean.float()
    value = distance(vae.decode(_noisy(mean)).sample, pictures)
    if mean.requires_grad:
        wanted = colours(pictures)
        for (channel, sign), std, colour in zip(guide, COLOUR_STD, wanted.unbind(1), strict=True):
            value = value + GUIDE_WEIGHT / 3 * ((sign * std * mean[:, channel] - colour) ** 2).mean()
        free = mean[:, [k for k in range(LATENT_CHANNELS) if k not in dict(guide)]]
        value = value + DETAIL_WEIGHT * ((free**2).mean() - 1) ** 2
    return value


def _batches(
    pictures: np.ndarray, device: torch.device, state: State, plan: Plan, seed: int, crops: Growth, many: int
) -> Iterator[Batch]:
    """Crops that grow as the budget is used up: small ones teach fastest, whole pictures finish."""
    rng = np.random.default_rng((seed, state.step, PartialState().process_index))
    while True:
        side, count = grown(crops, state.used(plan))
        parts = []
        for index in rng.integers(len(pictures), size=many * count):
            y, x = rng.integers(scenes.SIZE - side + 1, size=2)
            part = pictures[index, y : y + side, x : x + side]
            parts.append(part[:, ::-1] if rng.random() < 0.5 else part)
        yield {"pictures": to_tensor(np.stack(parts), device)}


# Until which share of the budget: pixels a side, crops a step.
CROPS = ((0.2, 64, 32), (0.85, 128, 8), (1.0, 256, 2))
DECODER_CROPS = ((0.4, 128, 8), (1.0, 256, 2))


def train_autoencoder(
    vae: AutoencoderKL,
    pictures: np.ndarray,
    plan: Plan,
    crops: Growth,
    *,
    work: Path,
    device: str,
    many: int = 1,
    guide: Guide = GUIDE,
) -> AutoencoderKL:
    """pictures: (N, 256, 256, 3) uint8; many: how many times the crops of a step. Returns EMA weights; latents have
    mean 0, variance SCALING² a channel."""
    vae = _train("autoencoder", vae, pictures, plan, crops, work, device, many, guide)
    normalise(vae, pictures[:: max(1, len(pictures) // 512)])
    return vae


def train_decoder(
    vae: AutoencoderKL, pictures: np.ndarray, plan: Plan, crops: Growth, *, work: Path, device: str, many: int = 1
) -> AutoencoderKL:
    """Train the decoder alone: the latent domain stays as it is, so UNet and OMS module stay valid."""
    vae.encoder.requires_grad_(False)
    assert vae.quant_conv is not None
    vae.quant_conv.requires_grad_(False)
    return _train("decoder", vae, pictures, plan, crops, work, device, many, GUIDE)


def _train(
    name: str,
    vae: AutoencoderKL,
    pictures: np.ndarray,
    plan: Plan,
    crops: Growth,
    work: Path,
    device: str,
    many: int,
    guide: Guide,
) -> AutoencoderKL:
    seed = {"autoencoder": 1, "decoder": 4}[name]
    models = train(
        name,
        torch.nn.ModuleDict({"vae": vae}),
        lambda models, batch, _: loss(models, batch, guide),
        lambda where, state: _batches(pictures, where, state, plan, seed, crops, many),
        plan,
        work=work,
        device=device,
    )
    return models["vae"]


@torch.no_grad()
def encode(
    vae: AutoencoderKL, pictures: np.ndarray, device: torch.device | str = "cpu", batch: int = 16
) -> torch.Tensor:
    """(N, 256, 256, 3) uint8 → scaled latents (N, 4, 32, 32) float32: the posterior's mean times the scaling factor."""
    parts = [
        vae.encode(to_tensor(pictures[i : i + batch], device)).latent_dist.mean.float().cpu()
        for i in range(0, len(pictures), batch)
    ]
    return torch.cat(parts) * vae.config.scaling_factor


@torch.no_grad()
def normalise(vae: AutoencoderKL, pictures: np.ndarray) -> None:
    """Fold a per-channel shift and scale into the two 1×1 convolutions between encoder and decoder.

    Exact: pictures come out as before, while the latents get mean 0 and, before the scaling factor, variance 1 in
    every channel, so that a latent of 0 is the data's mean colour.
    """
    latents = encode(vae, pictures) / vae.config.scaling_factor
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3)).clamp(min=1e-3)
    into, out = vae.quant_conv, vae.post_quant_conv
    assert into is not None and out is not None
    n = LATENT_CHANNELS
    into.weight[:n] /= std[:, None, None, None]
    into.bias[:n] = (into.bias[:n] - mean) / std
    into.bias[n:] -= 2 * torch.log(std)
    out.bias += (out.weight[:, :, 0, 0] * mean).sum(1)
    out.weight *= std[None, :, None, None]


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 8) -> np.ndarray:
    """Peak signal-to-noise ratio of the reconstruction of each picture, in dB, (N,), from 8-bit values."""
    values = []
    for i in range(0, len(pictures), batch):
        part = pictures[i : i + batch]
        made = to_pictures(vae.decode(vae.encode(to_tensor(part)).latent_dist.mean).sample)
        mse = ((made.astype(np.float64) - part) ** 2).mean((1, 2, 3))
        values.append(10 * np.log10(255**2 / np.maximum(mse, 1e-2)))
    return np.concatenate(values)
