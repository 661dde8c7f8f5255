"""The ways to start the sampler from one noise: small objects with one method, so that the engine has no `if oms`.

Equation numbers are those of the One More Step paper (OMS, arXiv 2311.15744).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor

from oms_app.prestep.step import ode_step, reference_step, sde_step


@dataclass(frozen=True)
class Start:
    """What a correction may use, for one picture.

    x_s: the drawn noise x_S ~ N(0, I), (1, C, h, w).
    alpha_bar: ᾱ_τ at the scheduler's first timestep.
    generator: in the state after the draw of x_S. It is read, never advanced: the sampler's own noise follows from
        the same state, and must be the same for all variants.
    predict: gives the guided and mixed x̂0, (1, C, h, w); costs a forward pass, so it is called only where needed.
    """

    x_s: Tensor
    alpha_bar: float
    generator: Generator
    predict: Callable[[], Tensor]

    def second_noise(self) -> Tensor:
        """z ~ N(0, I), (1, C, h, w): the draw that would follow x_S, from a copy of the generator."""
        generator = Generator(self.generator.device)
        generator.set_state(self.generator.get_state())
        z = torch.randn(self.x_s.shape, generator=generator, device=generator.device, dtype=self.x_s.dtype)
        return z.to(self.x_s.device)


class Correction(Protocol):
    needs_module: ClassVar[bool]  # whether predict, and so an OMS module, is used

    def correct(self, start: Start) -> Tensor:
        """x̃_T (1, C, h, w), the first tensor that the denoising UNet is to see."""


class Raw:
    """The noise as it is: what every sampler does, and what the others are compared with."""

    needs_module: ClassVar[bool] = False

    def correct(self, start: Start) -> Tensor:
        return start.x_s


class Oms:
    """One More Step with its noise kept (Eq. 20), so that the pair keeps its composition."""

    needs_module: ClassVar[bool] = True

    def correct(self, start: Start) -> Tensor:
        return ode_step(start.predict(), start.x_s, start.alpha_bar)


class OmsSde:
    """One More Step with a second draw of noise (Eq. 17)."""

    needs_module: ClassVar[bool] = True

    def correct(self, start: Start) -> Tensor:
        return sde_step(start.predict(), start.second_noise(), start.alpha_bar)


class OmsReference:
    """The published code's arithmetic, for parity alone; see `reference_step`."""

    needs_module: ClassVar[bool] = True

    def correct(self, start: Start) -> Tensor:
        return reference_step(start.predict(), start.second_noise(), start.alpha_bar)


CORRECTIONS: Mapping[str, Correction] = MappingProxyType(
    {"raw": Raw(), "oms": Oms(), "oms-sde": OmsSde(), "oms-reference": OmsReference()}
)
