"""The ways to start the sampler from one noise: small objects with one method, so that the engine has no `if oms`.

Equation numbers are those of the One More Step paper (OMS, arXiv 2311.15744).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol

import torch
from torch import Generator, Tensor

from oms_app.prestep.step import ode_step, offset_noise, reference_step, sde_step

Need = Literal["oms", "singdiffusion", "signal_leak"]  # what a correction asks its light of


@dataclass(frozen=True)
class Start:
    """What a correction may use, for one picture.

    x_s: the drawn noise x_S ~ N(0, I), (1, C, h, w).
    alpha_bar: ᾱ_τ at the scheduler's first timestep.
    generator: in the state after the draw of x_S. It is read, never advanced: the sampler's own noise follows from
        the same state, and must be the same for all variants.
    predict: gives x̂0, (1, C, h, w), from what the correction `needs`: guided and mixed predictions of a network, or
        a draw from statistics. It may cost a forward pass, so it is called only where needed.
    """

    x_s: Tensor
    alpha_bar: float
    generator: Generator
    predict: Callable[[], Tensor]

    def second_noise(self, shape: tuple[int, ...] | None = None) -> Tensor:
        """z ~ N(0, I), of x_S's shape or another: the draw that would follow x_S, from a copy of the generator."""
        generator = copy_of(self.generator)
        z = torch.randn(
            self.x_s.shape if shape is None else shape,
            generator=generator,
            device=generator.device,
            dtype=self.x_s.dtype,
        )
        return z.to(self.x_s.device)


def copy_of(generator: Generator) -> Generator:
    copied = Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied


class Correction(Protocol):
    needs: ClassVar[Need | None]  # where `predict` comes from; None: it is not used

    def correct(self, start: Start) -> Tensor:
        """x̃_T (1, C, h, w), the first tensor that the denoising UNet is to see."""


class Raw:
    """The noise as it is: what every sampler does, and what the others are compared with."""

    needs: ClassVar[Need | None] = None

    def correct(self, start: Start) -> Tensor:
        return start.x_s


class Oms:
    """One More Step with its noise kept (Eq. 20), so that the pair keeps its composition."""

    needs: ClassVar[Need | None] = "oms"

    def correct(self, start: Start) -> Tensor:
        return ode_step(start.predict(), start.x_s, start.alpha_bar)


class OmsSde:
    """One More Step with a second draw of noise (Eq. 17)."""

    needs: ClassVar[Need | None] = "oms"

    def correct(self, start: Start) -> Tensor:
        return sde_step(start.predict(), start.second_noise(), start.alpha_bar)


class OmsReference:
    """The published code's arithmetic, for parity alone; see `reference_step`."""

    needs: ClassVar[Need | None] = "oms"

    def correct(self, start: Start) -> Tensor:
        return reference_step(start.predict(), start.second_noise(), start.alpha_bar)


class SingDiffusion(Oms):
    """OMS's step; x̂0 is the mean picture of the prompt, guided with the base's CFG (arXiv 2403.08381)."""

    needs: ClassVar[Need | None] = "singdiffusion"


class SignalLeak(Oms):
    """OMS's step; x̂0 is drawn from statistics of many pictures, whatever the prompt (arXiv 2309.15842)."""

    needs: ClassVar[Need | None] = "signal_leak"


@dataclass(frozen=True)
class OffsetNoise:
    """One random value for all of a channel, or of a picture, on top of the noise: chance light (Guttenberg 2023)."""

    needs: ClassVar[Need | None] = None
    strength: float = 0.1
    per: Literal["channel", "picture"] = "channel"

    def correct(self, start: Start) -> Tensor:
        channels = start.x_s.shape[1] if self.per == "channel" else 1
        return offset_noise(start.x_s, start.second_noise((1, channels, 1, 1)), self.strength)


CORRECTIONS: Mapping[str, type[Correction]] = MappingProxyType(
    {
        "raw": Raw,
        "oms": Oms,
        "oms-sde": OmsSde,
        "oms-reference": OmsReference,
        "singdiffusion": SingDiffusion,
        "offset_noise": OffsetNoise,
        "signal_leak": SignalLeak,
    }
)
