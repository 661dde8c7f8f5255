"""A base model's VAE: scaled latents to colours, whole or in tiles, and the linear map that previews use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from oms_app.prestep.colour import ColourMap

FLAT_CELLS = 8  # latent cells per side of a flat colour
FLAT_RANGE = 0.15, 0.85  # saturated colours, which few pictures have as their mean, would bend the map
LARGE_TILE, SMALL_TILE = 512, 256  # pixels per side


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor, *, tiled: bool = False) -> Tensor:
    """Scaled latents (B, C, h, w) through the VAE: (B, 3, H, W), -1 black to 1 white, not clipped.

    tiled: one picture after the other, in overlapping tiles: a quarter of the memory or less, and seams of a level or
    two. diffusers' own tiles are as large as the pictures that the VAE was trained on, which saves no memory.
    """
    config = vae.config
    factor = 2 ** (len(config.block_out_channels) - 1)
    vae.use_tiling = tiled
    vae.use_slicing = tiled or latents.device.type != "cpu"
    if tiled:
        tile = LARGE_TILE if max(latents.shape[-2:]) * factor > LARGE_TILE else SMALL_TILE
        vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // factor
    unscaled = latents.to(vae.dtype) / config.scaling_factor
    if statistics := _statistics(vae, unscaled):
        mean, std = statistics
        unscaled = unscaled * std + mean
    image: Tensor = vae.decode(unscaled + (config.shift_factor or 0.0), return_dict=False)[0]
    return image


def decode_colours(vae: Any, latents: Tensor) -> Tensor:
    """As `decode_latents`, whole, in float32 and as colours: (B, 3, H, W), clipped to 0…1."""
    return (decode_latents(vae, latents).float().clamp(-1, 1) + 1) / 2


def encode_pictures(vae: Any, pictures: Tensor) -> Tensor:
    """Scaled latents (B, C, h, w) of pictures (B, 3, H, W), -1 black to 1 white: the inverse of `decode_latents`."""
    config = vae.config
    encoded: Tensor = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist.mode()
    encoded = encoded - (config.shift_factor or 0.0)
    if statistics := _statistics(vae, encoded):
        mean, std = statistics
        encoded = (encoded - mean) / std
    return encoded * config.scaling_factor


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of each latent channel, (1, C, 1, 1), if the VAE's config has both."""
    given = vae.config.latents_mean, vae.config.latents_std
    if given[0] is None or given[1] is None:
        return None
    mean, std = (torch.tensor(values).view(1, -1, 1, 1).to(like) for values in given)
    return mean, std


def fit_rgb_map(latents: Tensor, rgb: Tensor) -> Tensor:
    """The affine map from latents (B, C, h, w) to colours (B, 3, h, w) with the least squared error: (C + 1, 3).

    Its last row is the constant. Exact if the colours are an affine map of the latents.
    """
    return _least_squares(_cells(latents), _cells(rgb))


def _least_squares(given: Tensor, wanted: Tensor) -> Tensor:
    """(D + 1, E), float32: the affine map from `given` (N, D) to `wanted` (N, E), its last row the constant.

    Solved in float64: in float32 its last digits, and with them a dial's pictures, differ from one start of the program
    to the next, because LAPACK's sums depend on where in memory the numbers are.
    """
    rows = torch.cat([given, torch.ones_like(given[:, :1])], dim=1)
    return torch.linalg.lstsq(rows.double(), wanted.double()).solution.float()


@torch.no_grad()
def colour_map_of(pipeline: Any, rgb_map: Tensor) -> ColourMap:
    """The affine maps between mean colours and latents of a pipeline's VAE: `encode` fitted to 64 flat colours.

    rgb_map: of `rgb_map_of`.
    """
    vae, side, colours = pipeline.vae, FLAT_CELLS * pipeline.vae_scale_factor, _flat_colours()
    latents = [
        encode_pictures(vae, (2 * part - 1)[:, :, None, None].expand(-1, -1, side, side)).mean((2, 3))
        for part in colours.split(16)
    ]
    decode = rgb_map.clone() / 2
    decode[-1] += 0.5
    return ColourMap(decode, encode=_least_squares(colours, torch.cat(latents).float().cpu()))


@torch.no_grad()
def colour_map_error(pipeline: Any, colours: ColourMap) -> float:
    """Root mean square error of 64 flat colours that go through `encode` and the VAE's decoder, in points of 100."""
    wanted = _flat_colours()
    flat = torch.stack([colours.flat(colour, FLAT_CELLS, FLAT_CELLS) for colour in wanted])
    error = decode_colours(pipeline.vae, flat.to(pipeline._execution_device)).cpu().mean((2, 3)) - wanted
    return 100 * float(error.square().mean().sqrt())


def _flat_colours() -> Tensor:
    """(64, 3), 0…1."""
    levels = torch.linspace(*FLAT_RANGE, 4)
    return torch.cartesian_prod(levels, levels, levels)


@torch.no_grad()
def rgb_map_of(pipeline: Any) -> Tensor:
    """The map of a pipeline's VAE, (C + 1, 3), to colours of -1 to 1: fitted to eight pictures of smooth colours.

    They go through the encoder, so that the latents are typical of pictures, and are decoded again.
    """
    vae, generator = pipeline.vae, torch.Generator().manual_seed(0)
    side = 8 * pipeline.vae_scale_factor
    colours = interpolate(torch.rand((8, 3, 4, 4), generator=generator) * 2 - 1, size=(side, side), mode="bilinear")
    latents = encode_pictures(vae, colours)
    decoded = decode_latents(vae, latents).float()
    return fit_rgb_map(latents.float().cpu(), interpolate(decoded, size=latents.shape[-2:], mode="area").cpu())


def _cells(tensor: Tensor) -> Tensor:
    """(B, C, h, w) → (B·h·w, C)."""
    return tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
