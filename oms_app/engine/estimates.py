"""Estimates how long a request will take on this machine, from earlier requests."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oms_app.errors import StudioError, one_line
from oms_app.paths import atomic_write
from oms_app.records import locked, read_record, set_aside
from oms_app.schema import GenerateRequest, GenerateResult

logger = logging.getLogger(__name__)
KEPT = 8  # runs stored per model; estimates use their median
MAX_MODELS = 100
MAX_WARNINGS = 8


class RunTimesFile(BaseModel):
    """What the file holds: seconds per unit of work (see `work`), the newest last, by model."""

    model_config = ConfigDict(extra="ignore")  # a newer version may add fields
    rates: dict[str, list[float]] = Field(default_factory=dict)


def work(request: GenerateRequest, pictures: int) -> float:
    """pictures × steps × megapixels, twice that with guidance. Every default of the request must be filled in."""
    assert request.width and request.height and request.num_inference_steps and request.guidance_scale is not None
    passes = 2 if request.guidance_scale > 1 else 1
    return pictures * request.num_inference_steps * passes * request.width * request.height / 1e6


class RunTimes:
    """Learns from results and estimates requests. file: where runs are stored; created with the first one.

    warnings: what the user should know; a damaged file is kept under another name.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.warnings: deque[str] = deque(maxlen=MAX_WARNINGS)
        self._lock = threading.Lock()
        _, self._rates = self._read()

    def learn(self, result: GenerateResult) -> None:
        """Remembers the time per unit of work of the pictures that were generated for this result."""
        if not result.painted:
            return
        seconds = result.seconds.correct + result.seconds.denoise + result.seconds.decode
        rate = seconds / work(result.request, result.painted)
        with self._lock:
            rates = self._rates.pop(result.request.model, [])
            self._rates[result.request.model] = [*rates, rate][-KEPT:]
            while len(self._rates) > MAX_MODELS:
                self._rates.pop(next(iter(self._rates)))
            self._write()

    def estimate(self, requests: Iterable[GenerateRequest], defaults: Mapping[str, Any]) -> float | None:
        """Seconds for these requests together, each picture counted once; None if one of their models has not
        run on this machine yet. defaults: of each model, by its id, for settings that a request leaves to the model.
        """
        seen: set[Any] = set()
        seconds = 0.0
        for request in requests:
            rates, known = self._rates.get(request.model), defaults.get(request.model)
            if not rates or known is None:
                return None
            names = ("width", "height", "num_inference_steps", "guidance_scale")
            missing = {name: getattr(known, name) for name in names if getattr(request, name) is None}
            filled = request.model_copy(update={**missing, "variants": (), "seed": None, "count": 1})
            pictures = {
                (filled, (request.seed or 0) + index, variant.model_copy(update={"name": "any"}))
                for variant in request.variants
                for index in range(request.count)
            }
            seconds += median(rates) * work(filled, len(pictures - seen))
            seen |= pictures
        return seconds

    def _read(self) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """The whole file, and its rates. Both are empty if it is damaged."""
        record: dict[str, Any] = {}
        try:
            record = read_record(self.file) or {}
            rates = RunTimesFile.model_validate(record).rates
        except (StudioError, ValidationError) as error:
            kept = ""
            with contextlib.suppress(OSError):
                kept = f": it is kept as {set_aside(self.file).name}"
            warning = f"{self.file} cannot be read ({one_line(error)[:200]}){kept}"
            if warning not in self.warnings:  # every result reads the file, and perhaps it cannot be set aside
                self.warnings.append(warning)
                logger.warning("%s", warning)
            return {}, {}
        return record, {
            model: rates for model, rates in rates.items() if rates and all(0 < rate < 1e6 for rate in rates)
        }

    def _write(self) -> None:
        try:
            with locked(self.file):
                record, others = self._read()
                rates = {model: rates for model, rates in others.items() if model not in self._rates} | self._rates
                atomic_write(self.file, json.dumps({"version": 1} | record | {"rates": rates}))
        except OSError as error:  # a full disk: the estimates of this session stay
            logger.warning("%s cannot be written: %s", self.file, error)
