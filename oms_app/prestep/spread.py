"""Spread: how the low frequencies of one caption's pictures vary around One More Step's mean.

One More Step gives every picture of a prompt the prompt's mean light, while the pictures of a caption vary: "mountains"
are dark at times. A small network on the embedding of the module's text encoder says how the lowest cosines of x0 are
distributed around the module's x̂0, as a mixture of Gaussians, and a sample is added to x̂0. With the noise as it was
drawn the input then has the low frequencies that it had in training. 0 adds nothing; 1 is the variety of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from oms_app.prestep.leak import from_modes, low_modes

LOG_SCALE = -6.0, 2.0  # range of the components' log standard deviations, in units of the basis
DROPOUT = 0.2  # in training: several thousand scenes are few
STREAM = 0x5350_5245_4144_0001  # makes the samples' seeds differ from every seed of noise


@dataclass(frozen=True)
class SpreadConfig:
    """text_width: of the text encoder, D. channels: of the latents, C. modes: cosines per side, k.

    width: of both hidden layers. temperature: factor of the samples' deviation from their mean, set after training.
    """

    text_width: int
    channels: int = 4
    modes: int = 3
    components: int = 8
    width: int = 88
    temperature: float = 1.0

    @property
    def size(self) -> int:
        """How many numbers a sample has: C·k²."""
        return self.channels * self.modes**2


@dataclass(frozen=True)
class Mixture:
    """B mixtures of K Gaussians with independent values, in units of the basis.

    log_weights: (B, K). means, log_scales: (B, K, C·k²).
    """

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor

    def log_prob(self, values: Tensor) -> Tensor:
        """(B,), of values (B, C·k²)."""
        z = (values[:, None] - self.means) * torch.exp(-self.log_scales)
        each = -0.5 * z.square() - self.log_scales - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(self.log_weights + each.sum(-1), dim=-1)

    def mean(self) -> Tensor:
        """(B, C·k²)."""
        return (self.log_weights.exp()[..., None] * self.means).sum(1)


def pool(hidden: Tensor) -> Tensor:
    """(B, 2D) of prompt embeddings (B, L, D): the mean over the tokens, and the last one, which has seen all others."""
    return torch.cat([hidden.mean(1), hidden[:, -1]], dim=1).float()


def deviation_of(x0: Tensor, predicted: Tensor, modes: int) -> Tensor:
    """(B, C·k²): the low cosines of scaled latents x0 minus those of the module's x̂0, both (B, C, h, w)."""
    return low_modes((x0 - predicted).float(), modes).flatten(1)


class SpreadHead(nn.Module):
    """From pooled prompt embeddings to the distribution of `deviation_of`. basis: (C·k², C·k²), to deviations."""

    def __init__(self, config: SpreadConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Linear(2 * config.text_width, config.width),
            nn.SiLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(config.width, config.width),
            nn.SiLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(config.width, config.components * (1 + 2 * config.size)),
        )
        self.register_buffer("basis", torch.eye(config.size))

    def forward(self, pooled: Tensor) -> Mixture:
        """The mixtures of pooled embeddings (B, 2D)."""
        parts = [1, self.config.size, self.config.size]
        each = self.layers(pooled).unflatten(1, (self.config.components, sum(parts)))
        weights, means, log_scales = each.split(parts, dim=-1)
        return Mixture(weights[..., 0].log_softmax(-1), means, log_scales.clamp(*LOG_SCALE))

    @torch.no_grad()
    def sample(self, hidden: Tensor, generator: Generator, height: int, width: int) -> Tensor:
        """One deviation from x̂0, (1, C, height, width) float32 on the CPU, for a prompt embedding (1, L, D).

        Only `generator` is advanced. The same generator gives samples of different prompts that differ only because
        their distributions do.
        """
        mixture = self(pool(hidden.float().cpu()))
        choice, z = torch.rand(1, generator=generator), torch.randn(self.config.size, generator=generator)
        shares = mixture.log_weights[0].exp().cumsum(0)
        k = min(int(torch.searchsorted(shares, choice)), len(shares) - 1)
        drawn = mixture.means[0, k] + mixture.log_scales[0, k].exp() * z
        mean = mixture.mean()[0]
        values = mean + self.config.temperature * (drawn - mean)
        modes = (self.get_buffer("basis") @ values).view(1, self.config.channels, self.config.modes, self.config.modes)
        return from_modes(modes, height, width)


def generator_of(seed: int) -> Generator:
    """The samples' own generator for a picture's seed: neither x_S nor the sampler's noise uses it."""
    return Generator("cpu").manual_seed(seed ^ STREAM)
