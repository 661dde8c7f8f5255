"""Where the light is: smooth basis pictures, whose coefficients in x̂0 are held.

Cells are colours of 0…1 for each latent cell, (3, h, w), as in colour.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oms_app.light import LIGHTS, MODES, layout_values, towards
from oms_app.prestep.leak import from_modes, low_modes

FULL = 0.6  # of full scale, the coefficient at strength 1: 0.5 is ±0.3
GLOW = 0.35  # squared half sides: how fast a centre's glow fades; a vignette is level instead, and dark in the corners
ROOM = 0.9  # of the range between brightness and black or white that a direction may take


def direction(name: str, height: int, width: int, angle: float = 0.0) -> Tensor:
    """The basis picture (height, width) of a direction: from -1 to 1, mean 0, bright where it says.

    angle: of a side, degrees clockwise.
    """
    y = ((torch.arange(height) + 0.5) / height * 2 - 1)[:, None].expand(height, width)
    x = ((torch.arange(width) + 0.5) / width * 2 - 1).expand(height, width)
    radius = x * x + y * y  # squared, 2 in the corners
    if name == "centre":
        basis = torch.exp(-radius / GLOW)
    elif name == "vignette":
        basis = -(radius**2)
    else:
        right, down = towards(name, angle)
        basis = right * x + down * y
    basis = basis - basis.mean()
    return basis / basis.abs().max()


def hold_direction(cells: Tensor, name: str, strength: float, angle: float = 0.0) -> Tensor:
    """Cells whose brightness has the direction's coefficient: 0.6 × strength, less if there is no room for it."""
    basis = direction(name, cells.shape[1], cells.shape[2], angle).to(cells)
    brightness = cells.mean(0)
    level = float(brightness.mean().clamp(0, 1))
    wanted = min(FULL * strength, ROOM * max(min(level, 1 - level), 0.05))
    have = (brightness * basis).sum() / (basis * basis).sum()
    return cells + (wanted - have) * basis


def picture_modes(text: str) -> Tensor:
    """The amplitudes (3, 4, 4) of a `light.layout_text`."""
    return torch.tensor(list(layout_values(text))).view(3, MODES, MODES)


def hold_picture(cells: Tensor, modes: Tensor, free: Tensor, strength: float) -> Tensor:
    """Cells with the low modes of a picture: `strength` of them, the rest those of the free picture (3, 4, 4)."""
    wanted = torch.lerp(free.to(cells), modes.to(cells), strength)
    have = low_modes(cells[None], MODES)[0]
    return cells + from_modes((wanted - have)[None], *cells.shape[1:])[0]


def modes_of(cells: Tensor) -> Tensor:
    """The low modes (3, 4, 4) of cells."""
    return low_modes(cells[None], MODES)[0]


def is_direction(light: str) -> bool:
    return light in LIGHTS
