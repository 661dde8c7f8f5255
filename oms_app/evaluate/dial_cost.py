"""What a dial costs: a pair of base and dial timed against a pair of base and free run, and the decodes in between."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.autoencoders.vae import Decoder
from torch.nn.modules.module import register_module_forward_hook

from oms_app.engine.studio import Studio
from oms_app.evaluate.dials import FREE
from oms_app.schema import RAW, GenerateRequest, Variant

PROMPT = "mountains"
RUNS = 9
DIALS = {
    "brightness": Variant(name="dial", correction="dial", luminance=30.0),
    "tint": Variant(name="dial", correction="dial", tint="#4060c0"),
}


def cost(studio: Studio, model: str, runs: int = RUNS) -> dict[str, Any]:
    """Medians in seconds of interleaved runs, from encoding to decoding, with models loaded and other caches empty.

    By dial: ratio, its pair over the free pair; extra_decodes, the pictures, most of them small, that are decoded
    during the steps of one picture; extra_pixels, their pixels together in units of a picture's.
    """
    pairs = {"free": (RAW, FREE), **{name: (RAW, dial) for name, dial in DIALS.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in pairs}
    for run in range(-2, runs):  # two runs to warm up: a pass is recorded after 20 calls
        for name, variants in pairs.items():
            studio.forget()
            started = time.perf_counter()
            studio.generate(GenerateRequest(prompt=PROMPT, model=model, seed=run + 2, variants=variants))
            if run >= 0:
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    decoded = {name: _decoded(studio, model, dial) for name, dial in DIALS.items()}
    return {
        "ratio": {name: median[name] / median["free"] for name in DIALS},
        "seconds": median,
        "runs": runs,
        "threads": torch.get_num_threads(),
        "device": str(studio.device),
        "extra_decodes": {name: len(pixels) - 1 for name, pixels in decoded.items()},
        "extra_pixels": {name: sum(pixels) / max(pixels) - 1 for name, pixels in decoded.items()},
    }


def _decoded(studio: Studio, model: str, dial: Variant) -> list[int]:
    """The pixels of every picture that is decoded for one picture, itself included."""
    studio.forget()
    with _counting() as found:
        studio.generate(GenerateRequest(prompt=PROMPT, model=model, seed=0, variants=(dial,)))
    return found


@contextmanager
def _counting() -> Iterator[list[int]]:
    """The pixels of every picture that a VAE decodes inside."""
    found: list[int] = []

    def after(module: torch.nn.Module, given: Any, made: Any) -> None:
        if isinstance(module, Decoder):
            found.extend([made.shape[-2] * made.shape[-1]] * len(made))

    hook = register_module_forward_hook(after)
    try:
        yield found
    finally:
        hook.remove()
