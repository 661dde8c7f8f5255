"""Signal-leak bias (Everaert et al., arXiv 2309.15842): the part of a picture left in x_T, drawn from statistics.

No network. The low frequencies of encoded pictures, channel means among them, are modelled as one Gaussian; a draw u
from it takes the place of One More Step's x̂0. It adds brightness variance and ignores the prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

MODES = 4  # cosines per side


def _cosines(count: int, size: int, like: Tensor) -> Tensor:
    """(count, size): cos(π i (x + ½)/size), rows of DCT-II at amplitude 1, so that they mean the same at any size."""
    x = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    rows = torch.cos(math.pi * torch.arange(count, dtype=torch.float64)[:, None] * x)
    return rows.to(like)


def low_modes(latents: Tensor, count: int = MODES) -> Tensor:
    """Amplitudes of the lowest count × count cosines of latents (N, C, h, w): (N, C, count, count); [0, 0] is the mean.

    Raises ValueError if a side has fewer values than cosines.
    """
    h, w = latents.shape[-2:]
    if min(h, w) < count:
        raise ValueError(f"latents of {h}×{w} have fewer than {count} cosines per side: use larger pictures")
    rows, columns = _cosines(count, h, latents), _cosines(count, w, latents)
    twice = torch.full((count,), 2.0).to(latents)
    twice[0] = 1.0
    projected = torch.einsum("nchw,ih,jw->ncij", latents, rows, columns) / (h * w)
    return projected * twice[:, None] * twice


def from_modes(modes: Tensor, height: int, width: int) -> Tensor:
    """The smooth latents (N, C, height, width) of amplitudes (N, C, k, k)."""
    rows, columns = _cosines(modes.shape[-2], height, modes), _cosines(modes.shape[-1], width, modes)
    return torch.einsum("ncij,ih,jw->nchw", modes, rows, columns)


@dataclass(frozen=True)
class LeakStatistics:
    """mean: (C, k, k), of the amplitudes of scaled latents. factor: (Ck², Ck²), F Fᵀ their covariance."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, latents: Tensor, count: int = MODES) -> LeakStatistics:
        """Of scaled latents (N, C, h, w). Raises ValueError for fewer than two pictures."""
        if len(latents) < 2:
            raise ValueError(f"{len(latents)} pictures do not define a covariance: give at least two")
        modes = low_modes(latents.double(), count)
        flat = modes.flatten(1)
        values, vectors = torch.linalg.eigh(torch.cov(flat.T))
        return cls(modes.mean(0).float(), (vectors * values.clamp(min=0).sqrt()).float())

    def sample(self, generator: Generator, height: int, width: int) -> Tensor:
        """u (1, C, height, width), on the generator's device; it advances the generator."""
        z = torch.randn(len(self.factor), generator=generator, device=generator.device)
        modes = self.mean.to(z) + (self.factor.to(z) @ z).view(self.mean.shape)
        return from_modes(modes[None], height, width)
