"""The corrections: small classes that turn the noise of one picture into the sampler's input.

Each is registered in corrections.py. Equation numbers are those of the One More Step paper (OMS, arXiv 2311.15744).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator, Tensor

from oms_app.prestep.colour import ColourMap
from oms_app.prestep.leak import LeakStatistics
from oms_app.prestep.step import (
    guide,
    mix,
    normalised_guide,
    ode_step,
    offset_noise,
    predicted_x0,
    reference_step,
    sde_step,
)


@dataclass(frozen=True)
class Start:
    """What a correction may use, for one picture.

    x_s: the drawn noise x_S ~ N(0, I), (1, C, h, w), float32. alpha_bar: ᾱ_τ at the scheduler's first timestep.
    generator: in the state after the draw of x_S. It is read, never advanced: the sampler's own noise follows from the
        same state, and must be the same for all variants.
    prompt, guidance_scale: the request's main prompt and CFG.
    predict: text → the network's output (1, C, h, w) for x_S and that text, one of the correction's `texts`.
    deviation: text → a sample (1, C, h, w) of what the low frequencies of its pictures add to x̂0, always the same for
        this picture; None if the model has no spread head.
    statistics: of a correction that needs statistics instead of a network; else None.
    colours: of the base's VAE, for a correction that steers; else None. aim: (3,), what `exact` adds to its target.
    """

    x_s: Tensor
    alpha_bar: float
    generator: Generator
    prompt: str = ""
    guidance_scale: float = 1.0
    predict: Callable[[str], Tensor] | None = None
    deviation: Callable[[str], Tensor] | None = None
    statistics: LeakStatistics | None = None
    colours: ColourMap | None = None
    aim: Tensor = field(default_factory=lambda: torch.zeros(3))

    def colour_map(self) -> ColourMap:
        """Raises ValueError if the correction was registered without feedback."""
        if self.colours is None:
            raise ValueError("this correction has no colour map: its registration must say that it `steers`")
        return self.colours

    def prediction(self, text: str) -> Tensor:
        """The network's output (1, C, h, w). Raises ValueError if the correction was registered without a model."""
        if self.predict is None:
            raise ValueError("this correction has no model to predict with: its registration must say what it `needs`")
        return self.predict(text)

    def sample(self, text: str) -> Tensor:
        """`deviation` of a text. Raises ValueError if the model has no spread head."""
        if self.deviation is None:
            raise ValueError("this correction's model has no spread head: refuse a spread before it starts")
        return self.deviation(text)

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


class WithoutTexts:
    """A correction that needs no prediction for a text."""

    def texts(self, prompt: str, guidance_scale: float) -> tuple[str, ...]:
        return ()


class Raw(WithoutTexts):
    """The unchanged noise: what every sampler starts from, and the reference for the others."""

    def correct(self, start: Start) -> Tensor:
        return start.x_s


@dataclass(frozen=True)
class Oms:
    """One More Step with its noise kept (Eq. 20), so that the pair keeps its composition.

    prompt: the OMS prompt; None means the main prompt. prompt_b, mix: x̂0 = (1 - mix) x̂0(prompt) + mix x̂0(prompt_b).
    guidance_scale: OMS CFG, w of Eq. 21.
    """

    prompt: str | None = None
    prompt_b: str | None = None
    mix: float = 0.0
    guidance_scale: float = 1.0

    def texts(self, prompt: str, guidance_scale: float) -> tuple[str, ...]:
        ends = [text for text, _ in self._weighted(prompt)]
        return tuple(dict.fromkeys([*ends, ""] if self._is_guided(guidance_scale) else ends))

    def x0(self, start: Start) -> Tensor:
        ends = self._weighted(start.prompt)
        return mix([self._x0_of(start, text) for text, _ in ends], [weight for _, weight in ends])

    def correct(self, start: Start) -> Tensor:
        return ode_step(self.x0(start), start.x_s, start.alpha_bar)

    def _weighted(self, prompt: str) -> list[tuple[str, float]]:
        """The texts at both ends of the OMS prompt slider, with their weights; one text if the slider is at its end."""
        first = prompt if self.prompt is None else self.prompt
        if self.mix == 0.0 or self.prompt_b is None:
            return [(first, 1.0)]
        return [(first, 1.0 - self.mix), (self.prompt_b, self.mix)]

    def _is_guided(self, guidance_scale: float) -> bool:
        """Whether the unconditional prediction is needed. guidance_scale: the base's CFG."""
        return self.guidance_scale != 1.0

    def _x0_of(self, start: Start, text: str) -> Tensor:
        v = start.prediction(text)
        if self._is_guided(start.guidance_scale):
            v = guide(start.prediction(""), v, self.guidance_scale)
        return predicted_x0(v)


class OmsSde(Oms):
    """One More Step with a second draw of noise (Eq. 17)."""

    def correct(self, start: Start) -> Tensor:
        return sde_step(self.x0(start), start.second_noise(), start.alpha_bar)


class OmsReference(Oms):
    """The published code's arithmetic, only for parity tests; see `reference_step`."""

    def correct(self, start: Start) -> Tensor:
        return reference_step(self.x0(start), start.second_noise(), start.alpha_bar)


class SingDiffusion(Oms):
    """OMS's step; the network predicts x̂0 itself, guided with the base's CFG (arXiv 2403.08381)."""

    def _is_guided(self, guidance_scale: float) -> bool:
        return guidance_scale > 1.0

    def _x0_of(self, start: Start, text: str) -> Tensor:
        x0 = start.prediction(text)
        if not self._is_guided(start.guidance_scale):
            return x0
        return normalised_guide(start.prediction(""), x0, start.guidance_scale)


class SignalLeak(WithoutTexts):
    """OMS's step; x̂0 is drawn from statistics of many pictures, whatever the prompt (arXiv 2309.15842)."""

    def x0(self, start: Start) -> Tensor:
        if start.statistics is None:
            raise ValueError("signal leak has no statistics: load a model of kind signal_leak")
        height, width = start.x_s.shape[-2:]
        return start.statistics.sample(copy_of(start.generator), height, width).to(start.x_s.device)

    def correct(self, start: Start) -> Tensor:
        return ode_step(self.x0(start), start.x_s, start.alpha_bar)


@dataclass(frozen=True)
class OffsetNoise(WithoutTexts):
    """One random value for all of a channel, or of a picture, added to the noise: random light (Guttenberg 2023)."""

    offset_strength: float = 0.1
    offset_per: Literal["channel", "picture"] = "channel"

    def correct(self, start: Start) -> Tensor:
        channels = start.x_s.shape[1] if self.offset_per == "channel" else 1
        return offset_noise(start.x_s, start.second_noise((1, channels, 1, 1)), self.offset_strength)
