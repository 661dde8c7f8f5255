"""Seconds that a request spends on models when it changes to another cached base: `python -m oms_app bench switch`.

Two base models, the embedded one and a copy of it, take turns with raw and OMS; the first turn of each loads it.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from oms_app.engine.studio import Studio
from oms_app.paths import EMBEDDED
from oms_app.schema import GenerateRequest


def benchmark(studio: Studio, *, model: str = EMBEDDED, runs: int = 9) -> dict[str, Any]:
    """Median and greatest seconds of the stage "load" after a switch, and what the first loads took."""
    entry = studio.catalog.find(model, "base")
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        shutil.copytree(studio.catalog.weights(entry), other, ignore=shutil.ignore_patterns("examples"))
        seconds: list[float] = []
        for turn in range(2 * (runs + 1)):
            request = GenerateRequest(
                prompt="mountains at night", model=(model, str(other))[turn % 2], num_inference_steps=1, seed=turn
            )
            seconds.append(studio.generate(request).seconds.load)
        cached = studio.statistics()
    first, warm = seconds[:2], seconds[2:]
    return {
        "model": model,
        "runs": len(warm),
        "first_load": max(first),
        "switch": {"median": statistics.median(warm), "greatest": max(warm)},
        "cached_models": cached.models,
        "cached_bytes": cached.bytes_used,
    }
