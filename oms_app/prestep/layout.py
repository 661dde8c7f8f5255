"""Where the light is: smooth basis pictures, whose coefficients in x̂0 are held.

Cells are colours of 0…1 for each latent cell, (3, h, w), as in colour.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oms_app.light import MODES, layout_values, towards
from oms_app.prestep.leak import from_modes, low_modes

FULL = 0.6  # of full scale, the coefficient at strength 1: 0.5 is ±0.3
GLOW = 0.35  # squared half sides: how fast a centre's glow fades; a vignette is level instead, and dark in the corners
OWN = 0.5  # the share that is kept of the free picture's own light, where it comes from the other side
LEAST = 0.5  # of what is asked for, that is left at least then
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


def hold_direction(cells: Tensor, basis: Tensor, strength: float, against: float = 0.0) -> Tensor:
    """Cells whose brightness has this coefficient of a direction: 0.6 × strength, less if there is no room for it.

    basis: the direction, (h, w). against: the coefficient, 0 or more, of the light that the free picture has from the
    other side. A part of it is kept: a sky that is much darker than the land below is a night sky.
    """
    level = float(cells.mean().clamp(0, 1))
    wanted = max(FULL * strength - OWN * against, LEAST * FULL * strength)
    wanted = min(wanted, ROOM * max(min(level, 1 - level), 0.05))
    return cells + (wanted - coefficient(cells, basis)) * basis


def coefficient(cells: Tensor, basis: Tensor) -> float:
    """How much of a basis picture the brightness of cells has."""
    return float((cells.mean(0) * basis).sum() / (basis * basis).sum())


def picture_modes(text: str) -> Tensor:
    """The amplitudes (3, 4, 4) of a `light.layout_text`."""
    return torch.tensor(list(layout_values(text))).view(3, MODES, MODES)


def hold_picture(cells: Tensor, modes: Tensor, free: Tensor, strength: float) -> Tensor:
    """Cells with the low modes of a picture: `strength` of them, the rest those of the free picture (3, 4, 4)."""
    wanted = torch.lerp(free.to(cells), modes.to(cells), strength)
    return cells + from_modes((wanted - modes_of(cells))[None], *cells.shape[1:])[0]


def modes_of(cells: Tensor) -> Tensor:
    """The low modes (3, 4, 4) of cells."""
    return low_modes(cells[None], MODES)[0]
