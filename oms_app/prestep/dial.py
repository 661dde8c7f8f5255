"""Light that obeys a number: mean brightness, tint, warmth, and where the light is.

One More Step's x̂0 gets the light that was set, and the noise loses its channel means, which the network reads as light.
Then feedback: at each of the first steps the sampler's own x̂0 is moved to that light, and the network's output is
replaced by the one that belongs to the moved x̂0. The last 30 % of the steps are the network's alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from oms_app.light import LIGHTS
from oms_app.prestep.colour import (
    ColourMap,
    at_brightness,
    chromaticity_at,
    mean_colour,
    parse_colour,
    warmed,
)
from oms_app.prestep.layout import (
    coefficient,
    direction,
    hold_direction,
    hold_picture,
    modes_of,
    picture_modes,
)
from oms_app.prestep.methods import Oms, Start
from oms_app.prestep.step import mix, ode_step

FEEDBACK = 0.7  # share of the steps with feedback
NEWTON_STEPS = 6  # to find the shift whose clipped mean is the target
# After which shares of the steps x̂0 is decoded, and how much smaller than a picture's latents.
MEASURED_BRIGHTNESS, MEASURED_COLOUR = ((0.45, 1),), ((0.35, 4), (0.55, 2))
MEMORY = 0.7  # weight of the earlier steps in what is known of how much of a shift stays
PER_STEP = 0.35  # share of the error that one step is to correct
MAX_GAIN = 2.5  # how many times the error a shift may be
MAX_SHIFT = 0.5  # of full scale, of the cells in one step
TRIAL = 0.05, 0.15  # least and greatest change of the cells whose effect is measured
DAMPING = 0.05  # keeps a shift small in colours that hardly change with the cells
REACH = 0.02, 0.98  # the means of a channel that are aimed at: a flat black or white is no picture
MAX_EXTRA = 0.15  # of full scale: how much further than the mean alone says a shift may go to make up for clipping
MIN_OPEN = 0.1  # the share of cells within 0…1 that is assumed at least, so that a step of the search stays small


def feedback_steps(steps: int) -> int:
    """In how many of a sampler's steps, its first ones, x̂0 is moved."""
    return math.floor(FEEDBACK * steps)


@dataclass(frozen=True)
class Target:
    """The light that was set, as the dial's settings say it; see the table of fields."""

    luminance: float | None = None
    tint: str | None = None
    tint_strength: float = 1.0
    warmth: float = 0.0
    light: str | None = None
    light_strength: float = 0.5
    light_angle: float = 0.0

    @property
    def sets_mean(self) -> bool:
        return self.luminance is not None or self.tint is not None or self.warmth != 0

    @property
    def is_free(self) -> bool:
        return not self.sets_mean and self.light is None

    @property
    def is_relative(self) -> bool:
        """Whether the mean colour to reach depends on that of the picture without the dial."""
        return self.warmth != 0 if self.tint is None else self.tint_strength < 1

    def colour(self, free: Tensor) -> tuple[Tensor, bool]:
        """The mean colour to reach, and whether it exists, for a picture whose mean colour would be `free`."""
        asked, exists = free, True
        if self.luminance is not None:
            asked = at_brightness(free, self.luminance / 100)
        if self.tint is not None:
            tint = parse_colour(self.tint).to(free)
            if self.luminance is not None:
                tint, exists = chromaticity_at(tint, self.luminance / 100)
            asked = torch.lerp(asked, tint, self.tint_strength)
        return warmed(asked, self.warmth), exists

    @property
    def only_brightness(self) -> bool:
        """Whether of the mean colour only the brightness is set, so that the rest stays the sampler's own."""
        return self.tint is None and self.warmth == 0

    def error(self, got: Tensor, free: Tensor) -> Tensor:
        """(3,): how far a picture's mean colour is from what was set, in each channel; all alike for brightness."""
        if self.only_brightness:
            assert self.luminance is not None
            return (got.mean() - self.luminance / 100).expand(3)
        return got - self.colour(free.to(got))[0]


@dataclass
class Steering:
    """The feedback of one picture within one run.

    aim: (3,) added to the mean colour to reach, by `exact`. free, modes: the mean colour and the low modes (3, 4, 4)
    of the picture without the dial, as OMS's x̂0 or else the first x̂0 of the run says. against: by how much that
    picture's own light comes from the other side, a coefficient of the direction.
    On the CPU: _seen, (3,) each, a decoded mean colour of x̂0 and the mean of its cells. _response, (3, 3), the change
    of the decoded mean colour, its rows, for changes of the cells, its columns; a multiple of the identity if only
    brightness is set, which the decoded picture says without a trial. _mean, _shift, (3,), of the last step's cells,
    and by how much they were moved. _kept, Σ kept · shift and Σ shift²; their quotient is the share that stays.
    """

    target: Target
    colours: ColourMap
    aim: Tensor = field(default_factory=lambda: torch.zeros(3))
    free: Tensor | None = None
    modes: Tensor | None = None
    against: float = 0.0
    _seen: tuple[Tensor, Tensor] | None = None
    _response: Tensor | None = None
    _mean: Tensor | None = None
    _shift: Tensor | None = None
    _kept: tuple[float, float] = (0.0, 0.0)

    def observes(self, step: int, steps: int) -> bool:
        """Whether x̂0 is moved at this step, 0 … steps - 1."""
        return not self.target.is_free and step < feedback_steps(steps)

    def measures(self, step: int, steps: int) -> int | None:
        """The factor by which x̂0 is made smaller to be decoded at this step; None if it is not decoded."""
        if not self.target.sets_mean:
            return None
        last = feedback_steps(steps) - 1
        chosen = MEASURED_BRIGHTNESS if self.target.only_brightness else MEASURED_COLOUR
        return {min(math.floor(share * steps), last): factor for share, factor in chosen}.get(step)

    @property
    def knows_response(self) -> bool:
        """Whether this run has measured by how much changes of cells change the decoded colour."""
        return self._response is not None

    def trial_changes(self, x0: Tensor, decoded: Tensor) -> Tensor:
        """(3, 3): changes of the cells of x̂0 (C, h, w) whose effect is worth knowing, one a row, one channel each.

        decoded: its mean colour (3,).
        """
        if self.free is None:
            self.learn_free_light(self.colours.cells(x0.float()))
        error = self._wanted(decoded.float()) - decoded.float()
        return torch.diag(_trial(error))

    def learn_response(self, changes: Tensor, effects: Tensor) -> None:
        """By how much `changes` of the cells (3, 3) change the decoded mean colour: `effects` (3, 3), both by rows."""
        self._response = torch.linalg.solve(changes.cpu().double(), effects.cpu().double()).T.float()

    def learn_picture(self, x0: Tensor, decoded: Tensor) -> None:
        """What x̂0 (C, h, w) looks like: decoded (3, H, W), 0…1. Its clipping tells how brightness answers."""
        self._seen = decoded.mean((1, 2)).cpu(), self.colours.cells(x0.float()).mean((1, 2)).cpu()
        if self.target.only_brightness:
            mean = decoded.mean()
            error = (self._wanted(self._seen[0]) - self._seen[0]).mean().to(mean)
            change = _trial(error)
            self._response = torch.eye(3) * float(((decoded + change).clamp(0, 1).mean() - mean) / change)

    def move(self, x0: Tensor) -> Tensor:
        """x̂0 (C, h, w) in the light that was set, in float32."""
        x0 = x0.float()
        cells = self.colours.cells(x0)
        if self.free is None:
            self.learn_free_light(cells)
        return x0 + self.colours.change(self._lit(cells) - cells)

    def learn_free_light(self, cells: Tensor) -> None:
        """Takes the mean colour and the low modes of the free picture from its cells (3, h, w)."""
        self.free = mean_colour(cells)
        if self.target.light is None:
            return
        if self.target.light in LIGHTS:
            self.against = max(0.0, -coefficient(cells, self._basis(cells)))
        else:
            self.modes = modes_of(cells)

    def _basis(self, cells: Tensor) -> Tensor:
        assert self.target.light is not None
        return direction(self.target.light, cells.shape[1], cells.shape[2], self.target.light_angle).to(cells)

    def _lit(self, cells: Tensor) -> Tensor:
        target = self.target
        if target.light is not None:
            if target.light in LIGHTS:
                cells = hold_direction(cells, self._basis(cells), target.light_strength, self.against)
            else:
                assert self.modes is not None
                cells = hold_picture(cells, picture_modes(target.light), self.modes, target.light_strength)
        return self._with_mean(cells) if target.sets_mean else cells

    def _wanted(self, seen: Tensor) -> Tensor:
        """(3,): the mean colour to reach, for a picture whose mean colour is `seen`."""
        if self.target.only_brightness:
            assert self.target.luminance is not None
            wanted = at_brightness(seen.clamp(0, 1), self.target.luminance / 100)
        else:
            assert self.free is not None
            wanted = self.target.colour(self.free.to(seen))[0]
        return (wanted + self.aim.to(seen)).clamp(*REACH)

    def _with_mean(self, cells: Tensor) -> Tensor:
        """Cells shifted, the same everywhere, towards the mean colour to reach.

        x_t changes by a part of a shift in one step, and the network takes back the rest. So a shift goes beyond the
        target, the further the less of earlier ones has stayed.
        """
        mean = cells.mean((1, 2)).cpu()  # few numbers, and not every device solves equations
        if self._mean is not None and self._shift is not None:
            kept = float((mean - self._mean) @ self._shift), float(self._shift @ self._shift)
            self._kept = MEMORY * self._kept[0] + kept[0], MEMORY * self._kept[1] + kept[1]
        shift = self._clipped_shift(cells).cpu() if self._seen is None else self._measured_shift(mean)
        if self._kept[1] > 1e-8:
            shift = shift * min(MAX_GAIN, max(1.0, PER_STEP / max(self._kept[0] / self._kept[1], 1e-3)))
        shift = shift.clamp(-MAX_SHIFT, MAX_SHIFT)
        self._mean, self._shift = mean, shift
        return cells + shift.view(3, 1, 1).to(cells)

    def _measured_shift(self, mean: Tensor) -> Tensor:
        """The shift (3,) of cells with this mean that the last measurement says."""
        assert self._seen is not None and self._response is not None
        (decoded, at), response = self._seen, self._response
        seen = decoded + response @ (mean - at)
        error = self._wanted(seen) - seen
        if self.target.only_brightness:
            return (error.mean() / response[0, 0].clamp(min=MIN_OPEN)).expand(3)
        return torch.linalg.solve(response.T @ response + DAMPING * torch.eye(3), response.T @ error)

    def _clipped_shift(self, cells: Tensor) -> Tensor:
        """The shift (3,) after which the clipped mean of the cells is the target."""
        wanted = self._wanted(mean_colour(cells))
        plain = wanted - cells.mean((1, 2))
        shift = torch.zeros_like(wanted)
        for _ in range(NEWTON_STEPS):
            moved = cells + shift.view(3, 1, 1)
            open_share = ((moved > 0) & (moved < 1)).float().mean((1, 2)).clamp(min=MIN_OPEN)
            shift = shift + (wanted - mean_colour(moved)) / open_share
        return torch.minimum(torch.maximum(shift, plain - MAX_EXTRA), plain + MAX_EXTRA)


def _trial(error: Tensor) -> Tensor:
    """Changes whose effect is worth knowing, for these errors: in their direction, neither too small nor too large."""
    return torch.where(error < 0, -1.0, 1.0) * error.abs().clamp(*TRIAL)


@dataclass(frozen=True)
class Dial(Oms):
    """One More Step whose x̂0 gets the light that was set, and is held there by feedback.

    Without an OMS module x̂0 is a flat picture of the target's colour, or grey if that depends on the picture's own
    colour, which is unknown then; at zero terminal SNR nothing leaks, and feedback is all there is.
    centre_noise: whether the noise loses its channel means when a mean is set. spread: how much of a sample of the low
    frequencies' deviation (spread.py) is added to x̂0.
    """

    luminance: float | None = None
    tint: str | None = None
    tint_strength: float = 1.0
    warmth: float = 0.0
    light: str | None = None
    light_strength: float = 0.5
    light_angle: float = 0.0
    spread: float = 0.0
    centre_noise: bool = True

    @property
    def target(self) -> Target:
        return Target(**{one.name: getattr(self, one.name) for one in fields(Target)})

    def x0(self, start: Start) -> Tensor:
        if start.predict is None:
            return self._flat(start)[None]
        x0, steering = self._free_x0(start), self.steering(start)
        return x0 if steering is None else steering.move(x0[0])[None]

    def correct(self, start: Start) -> Tensor:
        target = self.target
        if start.predict is None and (target.is_free or start.alpha_bar == 0):
            return start.x_s
        x_s = start.x_s
        if self.centre_noise and target.sets_mean:
            x_s = x_s - x_s.mean((2, 3), keepdim=True)
        return ode_step(self.x0(start), x_s, start.alpha_bar)

    def steering(self, start: Start) -> Steering | None:
        """The feedback of one run; None if no light was set."""
        if self.target.is_free:
            return None
        steering = Steering(self.target, start.colour_map(), start.aim)
        if start.predict is not None:
            steering.learn_free_light(steering.colours.cells(self._free_x0(start)[0]))
        return steering

    def notes(self, steps: int, reason: str, starts_from_noise: bool) -> tuple[str, ...]:
        found = []
        if self.target.is_free:
            found += [f"no light is set, and {reason}: it is the raw picture"] if reason else []
        elif feedback_steps(steps) == 0:
            if starts_from_noise:
                raise ValueError("this schedule starts from pure noise, so one step can set no light: take 2 or more")
            found.append("one step has no feedback, so the light is set at the start alone: take 2 or more steps")
        if self.tint and self.luminance is not None and not self.target.colour(parse_colour(self.tint))[1]:
            found.append(f"no colour of the tint {self.tint} is as bright as {self.luminance:g} %: it becomes paler")
        return tuple(found)

    def _free_x0(self, start: Start) -> Tensor:
        """OMS's x̂0 (1, C, h, w) before light is set; with a spread it has this picture's sample of low frequencies."""
        x0 = super().x0(start)
        if self.spread == 0:
            return x0
        ends = self._weighted(start.prompt)
        sample = mix([start.sample(text) for text, _ in ends], [weight for _, weight in ends])
        if self.guidance_scale < 1:  # towards the unconditional x̂0, whose pictures vary more; above 1 as at 1
            sample = torch.lerp(start.sample(""), sample, max(0.0, self.guidance_scale))
        return x0 + self.spread * sample

    def _flat(self, start: Start) -> Tensor:
        """x̂0 (C, h, w) without a module."""
        target = Target(luminance=self.luminance) if self.target.is_relative else self.target
        grey = torch.full((3,), 0.5, device=start.x_s.device)
        return start.colour_map().flat(target.colour(grey)[0], *start.x_s.shape[-2:])
