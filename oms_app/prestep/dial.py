"""Light that obeys a number: mean brightness, tint, and where the light is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from oms_app.prestep.methods import Oms, Start
from oms_app.prestep.step import ode_step


@dataclass(frozen=True)
class Dial(Oms):
    """One More Step whose x̂0 gets the light that was set.

    luminance: 0…100 percent. tint: "#rrggbb". The others as in the table of fields.
    """

    luminance: float | None = None
    tint: str | None = None
    tint_strength: float = 1.0
    warmth: float = 0.0
    light: str | None = None
    light_strength: float = 0.5
    spread: float = 0.0

    def correct(self, start: Start) -> Tensor:
        if start.predict is None or start.alpha_bar == 0:
            return start.x_s
        return ode_step(self.x0(start), start.x_s, start.alpha_bar)
