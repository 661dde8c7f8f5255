"""What the proofs share: the studio's pictures, the stock pipelines, and the difference between two pictures."""

from __future__ import annotations

import gc
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from PIL import Image

from oms_app import GenerateRequest, Studio, Variant
from oms_app.paths import PRESETS

PROMPT = "a wolf at night"
RAW = Variant(name="raw")
SAMPLERS: dict[str, Any] = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
AGAIN = "sd15-again"  # a second SD 1.5 in the catalogue
SEED, GUIDANCE, STEPS = 7, 7.5, 2
FLAT, CLIPPED = 5.0, 0.5  # a picture that varies less, or has more values at 0 or 255, would prove nothing


@dataclass(frozen=True)
class Row:
    """One measured value of a case. target: what it must not exceed, or not fall below if `at_least`; None if it is
    only told."""

    measure: str
    value: float
    unit: str = ""
    target: float | None = None
    at_least: bool = False

    @property
    def passed(self) -> bool:
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True)
class Place:
    """Where the models lie and how large the pictures are: `folder`/home/models/ID, `folder`/presets/models/ID.json."""

    folder: Path
    pixels: int = 256

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def presets(self) -> Path:
        return self.folder / "presets/models"

    def prepare(self) -> None:
        """The shipped catalogue and AGAIN, with pictures of `pixels` allowed for every base."""
        self.models.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.presets, ignore_errors=True)
        self.presets.mkdir(parents=True)
        for path in (PRESETS / "models").glob("*.json"):
            entry = json.loads(path.read_text(encoding="utf-8"))
            if "defaults" in entry:
                entry["defaults"]["min_size"] = min(entry["defaults"]["min_size"], self.pixels)
            (self.presets / path.name).write_text(json.dumps(entry), encoding="utf-8")
            if path.stem == "sd15":
                (self.presets / f"{AGAIN}.json").write_text(json.dumps(entry | {"id": AGAIN}), encoding="utf-8")

    def studio(self, **settings: Any) -> Studio:
        return Studio(home=self.home, presets=self.presets, device="cpu", **settings)

    def request(self, model: str, **settings: Any) -> GenerateRequest:
        given = {"seed": SEED, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "variants": (RAW,)}
        size = {"width": self.pixels, "height": self.pixels}
        return GenerateRequest(prompt=PROMPT, model=model, **(size | given | settings))

    def noise(self) -> torch.Tensor:
        """x_S of SEED, (1, 4, h, w) in float32: what the stock pipeline draws for it too."""
        side = self.pixels // 8
        return torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(SEED))


def painted(place: Place, model: str, samplers: tuple[str, ...], **settings: Any) -> dict[str, Image.Image]:
    """The studio's pictures by "SAMPLER VARIANT". The studio and its models are gone afterwards."""
    precision = settings.pop("precision", "auto")
    studio = place.studio(precision=precision)
    pictures: dict[str, Image.Image] = {}
    for sampler in samplers:
        result = studio.generate(place.request(model, scheduler=sampler, **settings))
        pictures |= {f"{sampler} {one.variant}": one.image for one in result.images}
    studio.forget(models=True)
    del studio
    gc.collect()
    return pictures


def stock_pipeline(folder: Path, kind: Any = StableDiffusionPipeline, dtype: torch.dtype = torch.float32) -> Any:
    """diffusers' own pipeline from the float16 files of a folder, as its documentation loads it."""
    pipeline = kind.from_pretrained(folder, variant="fp16", dtype=dtype, local_files_only=True, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_picture(pipeline: Any, place: Place, sampler: str, latents: torch.Tensor | None = None, **more: Any) -> Any:
    """One call of the stock pipeline. latents: None for its own draw from SEED."""
    own = pipeline.scheduler.config
    pipeline.scheduler = SAMPLERS[sampler].from_config(own)
    try:
        return pipeline(
            PROMPT, width=place.pixels, height=place.pixels, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(SEED), latents=latents, **more,
        ).images[0]  # fmt: skip
    finally:
        pipeline.scheduler = type(pipeline.scheduler).from_config(own)


def difference(what: str, got: Image.Image, wanted: Image.Image) -> list[Row]:
    """The greatest difference of two pictures, and whether the wanted one has enough in it to compare."""
    ours, theirs = np.asarray(got, int), np.asarray(wanted, int)
    apart = np.abs(ours - theirs)
    return [
        Row(f"{what}: greatest difference", float(apart.max()), "of 255", 1.0),
        Row(f"{what}: values that differ", 100 * float((apart > 0).mean()), "%"),
        Row(f"{what}: spread of the picture", float(theirs.std()), "of 255", FLAT, at_least=True),
        Row(f"{what}: values at 0 or 255", 100 * float(((theirs == 0) | (theirs == 255)).mean()), "%", 100 * CLIPPED),
    ]


class PeakMemory:
    """peak: the most resident bytes of this process since the last `reset`, looked at every few milliseconds."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.peak = 0

    def now(self) -> int:
        return int(self._process.memory_info().rss)

    def reset(self) -> None:
        self.peak = self.now()

    @contextmanager
    def watch(self) -> Iterator[PeakMemory]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.005):
                self.peak = max(self.peak, self.now())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()


class BytesRead:
    """count: bytes that this process read inside `with`, with read() or from mapped files that were not in memory."""

    def __enter__(self) -> BytesRead:
        self.count = 0
        before = _read_so_far()
        self._before = _read_so_far()
        self._own = self._before - before  # reading the counters counts too
        return self

    def __exit__(self, *_: object) -> None:
        self.count = _read_so_far() - self._before - self._own


def _read_so_far() -> int:
    with open("/proc/self/io", encoding="ascii") as file:
        counts = dict(line.split(": ") for line in file.read().splitlines())
    return int(counts["rchar"]) + int(counts["read_bytes"])
