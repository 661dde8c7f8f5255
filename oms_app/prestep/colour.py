"""Colours of a picture and its latents: affine maps between them, and the colours that the dials ask for.

Colours are sRGB values in 0…1, as tensors (3,) of R, G and B; a picture's brightness is the mean of all three. Cells
are the colours of each latent cell, (3, h, w), not confined to 0…1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

ENCODING = 2.2  # of sRGB, approximately: colour = light^(1/2.2)
NEUTRAL, WARMEST, COOLEST = 154.0, 357.0, 50.0  # mired: 6500, 2800 and 20000 K


@dataclass(frozen=True)
class ColourMap:
    """Affine maps of one VAE.

    decode: (C + 1, 3), from scaled latents to colours, its last row the constant; fitted to smooth pictures.
    encode: (4, C), from flat colours to scaled latents, its last row the constant.
    """

    decode: Tensor
    encode: Tensor

    def cells(self, x0: Tensor) -> Tensor:
        """(C, h, w) → (3, h, w)."""
        decode = self.decode.to(x0)
        return torch.einsum("chw,cd->dhw", x0, decode[:-1]) + decode[-1].view(3, 1, 1)

    def change(self, cells: Tensor) -> Tensor:
        """The smallest change of latents (C, h, w) that changes the cells by (3, h, w).

        The change between flat colours is larger: it also takes away what makes edges, and with them the subject.
        """
        return torch.einsum("dhw,dc->chw", cells, self._smallest.to(cells))

    @cached_property
    def _smallest(self) -> Tensor:
        """(3, C): from a change of colour to the smallest change of latents."""
        return torch.linalg.pinv(self.decode[:-1].double())

    def flat(self, colour: Tensor, height: int, width: int) -> Tensor:
        """The latents (C, height, width) of a picture of one colour."""
        latents = torch.cat([colour, colour.new_ones(1)]) @ self.encode.to(colour)
        return latents.view(-1, 1, 1).expand(-1, height, width)


def mean_colour(cells: Tensor) -> Tensor:
    """(3,): of cells (3, h, w) as a picture shows them, which clips at black and white."""
    return cells.clamp(0, 1).mean((1, 2))


def parse_colour(text: str) -> Tensor:
    """`#rrggbb` → (3,) float32."""
    return torch.tensor([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def at_brightness(colour: Tensor, brightness: float) -> Tensor:
    """The colour at another brightness: towards black as less light makes it, towards white as more light does.

    Always between 0 and 1 if the colour is.
    """
    have = float(colour.mean())
    if brightness <= have:
        return colour * (brightness / max(have, 1e-6))
    return 1 - (1 - colour) * ((1 - brightness) / max(1 - have, 1e-6))


def chromaticity_at(colour: Tensor, brightness: float) -> tuple[Tensor, bool]:
    """The colour's chromaticity at a brightness, and whether it exists.

    If a channel would pass 1, the nearest that does not: mixed with the grey of this brightness.
    """
    have = float(colour.mean())
    wanted = colour * (brightness / have) if have > 0 else torch.full_like(colour, brightness)
    over = float(wanted.max())
    if over <= 1:
        return wanted, True
    return brightness + (wanted - brightness) * ((1 - brightness) / (over - brightness)), False


def warmed(colour: Tensor, warmth: float) -> Tensor:
    """The colour as warmer (above 0) or cooler light shows it, at the same brightness if it can be.

    A black body's colour from 2800 K at 1 to 20000 K at -1, relative to 6500 K; even steps in mired look even.
    """
    if warmth == 0:
        return colour
    mired = NEUTRAL + warmth * ((WARMEST - NEUTRAL) if warmth > 0 else (NEUTRAL - COOLEST))
    gain = (_black_body(1e6 / mired) / _black_body(1e6 / NEUTRAL)).clamp(min=0) ** (1 / ENCODING)
    return chromaticity_at(colour * gain.to(colour), float(colour.mean()))[0]


def _black_body(kelvin: float) -> Tensor:
    """Linear sRGB (3,) of a black body of brightness 1, 1667…25000 K (Kim et al., US patent 7024034)."""
    t = 1e3 / kelvin
    if kelvin < 4000:
        x = ((-0.2661239 * t - 0.2343589) * t + 0.8776956) * t + 0.179910
    else:
        x = ((-3.0258469 * t + 2.1070379) * t + 0.2226347) * t + 0.240390
    if kelvin < 2222:
        y = ((-1.1063814 * x - 1.34811020) * x + 2.18555832) * x - 0.20219683
    elif kelvin < 4000:
        y = ((-0.9549476 * x - 1.37418593) * x + 2.09137015) * x - 0.16748867
    else:
        y = ((3.0817580 * x - 5.87338670) * x + 3.75112997) * x - 0.37001483
    xyz = torch.tensor([x / y, 1.0, (1 - x - y) / y], dtype=torch.float64)
    to_rgb = torch.tensor(
        [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]],
        dtype=torch.float64,
    )
    return to_rgb @ xyz
