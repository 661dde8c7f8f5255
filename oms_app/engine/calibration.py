"""How exactly a base obeys the dial: mean brightness asked against got, measured once and stored.

Measurements of the embedded models are shipped; the user's own, in calibration.json of the user's folder, come first.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from oms_app.paths import PRESETS, atomic_write, user_folder
from oms_app.schema import Frozen, GenerateRequest, Variant

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio

logger = logging.getLogger(__name__)
SHIPPED = PRESETS / "calibration.json"
FILE = "calibration.json"
ASKED = (10, 30, 50, 70, 90)  # percent
PROMPTS = ("mountains", "the sea", "a house by a lake", "a flower", "a city", "a vase", "a forest", "hills")
LOW_SLOPE = 0.8  # below it, the dial reaches less than was set


class Calibration(Frozen):
    """Mean brightness of a base's pictures with its defaults, one run each: got = slope · asked + offset, in percent.

    median_error, p90_error: in points. pictures: how many were measured.
    """

    slope: float
    offset: float
    median_error: float
    p90_error: float
    pictures: int

    @property
    def expectation(self) -> str:
        """What to expect, in a sentence."""
        low = self.slope < LOW_SLOPE
        weak = f"; 10 points more set make it {10 * self.slope:.1f} points brighter" if low else ""
        return (
            f"brightness within {self.median_error:.1f} points in half of the pictures, "
            f"{self.p90_error:.1f} in 90 %{weak}, with the model's default settings and no LoRA"
        )


_FILE: TypeAdapter[dict[str, Calibration]] = TypeAdapter(dict[str, Calibration])


def calibrate(studio: Studio, model: str, prompts: tuple[str, ...] = PROMPTS) -> Calibration:
    """Measures a base with its defaults, and stores it in the user's folder. Raises StudioError as `generate` does."""
    variants = tuple(Variant(name=str(asked), correction="dial", luminance=asked) for asked in ASKED)
    got = [
        [image.stats.mean / 2.55 for image in studio.generate(request).images]
        for seed, prompt in enumerate(prompts)
        for request in [GenerateRequest(prompt=prompt, model=model, seed=seed, variants=variants)]
    ]
    asked = np.broadcast_to(ASKED, np.shape(got))
    slope, offset = np.polyfit(asked.ravel(), np.ravel(got), 1)
    errors = np.abs(np.array(got) - asked)
    found = Calibration(
        slope=round(float(slope), 4),
        offset=round(float(offset), 3),
        median_error=round(float(np.median(errors)), 3),
        p90_error=round(float(np.quantile(errors, 0.9)), 3),
        pictures=errors.size,
    )
    path = user_folder(studio.home) / FILE
    write(path, read(path) | {model: found})
    return found


def expected(model: str, home: Path | None = None) -> Calibration | None:
    """The stored measurement of a base: the user's own, else the shipped one; None if there is none."""
    return (read(SHIPPED) | read(user_folder(home) / FILE)).get(model)


def read(path: Path) -> dict[str, Calibration]:
    """By model. A file that is damaged counts as empty, with a warning in the log."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        logger.warning("%s is ignored: %s", path, str(error).splitlines()[0])
        return {}


def write(path: Path, measured: dict[str, Calibration]) -> None:
    """Raises OSError."""
    atomic_write(path, json.dumps({model: one.model_dump() for model, one in measured.items()}, indent=1) + "\n")
