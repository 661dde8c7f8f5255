"""Light and colour as asked against as got: dials of the embedded model beside other ways. `evaluate dials`

Pictures are made prompt by prompt; the figures of each prompt are stored in one JSON file, so a stopped run resumes.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from oms_app.engine.studio import Studio
from oms_app.evaluate import scene_clip, subject_classifier
from oms_app.evaluate.dial_rivals import Rivals, brightness_word
from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.evaluate.pictures import state_key
from oms_app.evaluate.quality import clip_scores
from oms_app.light import LIGHTS
from oms_app.measure.light import clipped_share, coarse_lightness, halves, with_mean
from oms_app.paths import EMBEDDED, atomic_write
from oms_app.schema import OMS, GenerateRequest, Variant

LEVELS = (10, 20, 30, 40, 50, 60, 70, 80, 85, 90)  # percent of mean brightness
EXACT_LEVELS = (20, 50, 80)
RIVAL_LEVELS = (20, 80)
RIVAL_TINT = ("#3060ff", "blue")
TINTS = {
    "red": "#b03030",
    "orange": "#c07830",
    "yellow": "#b8a840",
    "lime": "#80a840",
    "green": "#409850",
    "teal": "#309890",
    "sky": "#4090c0",
    "blue": "#4060c0",
    "violet": "#7050b8",
    "magenta": "#a848a0",
    "pink": "#d090a8",
    "brown": "#806040",
}
FIXED = {"luminance": 40.0, "tint": "#4060c0"}  # one prompt, many seeds
FIXED_SEEDS = 16
RIVALS = ("offset", "signal_leak", "recentre")


@dataclass(frozen=True)
class DialJob:
    """What one run measures. prompts × seeds pictures of each setting, from `PROMPTS`."""

    home: Path
    device: str
    folder: Path
    model: str = EMBEDDED
    seeds: int = 4
    rivals: bool = True
    offset_scale: float = 1.0


def painted_light() -> Image.Image:
    """A painted layout: bright in the upper left, dark in the lower right, a second light at the right border."""
    y, x = np.mgrid[0:64, 0:64] / 63
    light = (
        0.15
        + 0.75 * np.exp(-((x - 0.2) ** 2 + (y - 0.2) ** 2) / 0.1)
        + 0.4 * np.exp(-((x - 1) ** 2 + (y - 0.6) ** 2) / 0.05)
    )
    return Image.fromarray(np.repeat(np.asarray(255 * np.clip(light, 0, 1), np.uint8)[..., None], 3, axis=2))


def settings() -> dict[str, Variant]:
    """Every variant of one run by name: free is OMS without a dial."""
    dial = Variant(name="dial", correction="dial")
    changes: dict[str, dict[str, Any]] = {f"luminance {level}": {"luminance": float(level)} for level in LEVELS}
    changes |= {f"tint {name}": {"tint": tint} for name, tint in TINTS.items()}
    changes |= {"tint rival": {"tint": RIVAL_TINT[0]}}
    changes |= {f"light {where}": {"light": where} for where in LIGHTS}
    made = {"free": OMS.model_copy(update={"name": "free"})}
    for name, change in changes.items():
        made[name] = Variant(**{**dial.model_dump(), "name": name, **change})
    painted = Variant(name="painted", correction="dial", light=painted_light())
    return made | {"painted": painted.model_copy(update={"light_strength": 1.0})}


def figures_of(picture: NDArray[np.uint8], label: str, clip: float, judged: str) -> dict[str, Any]:
    """What is stored of one picture (H, W, 3)."""
    return {
        "mean": float(picture.mean()) / 2.55,
        "rgb": [float(v) for v in picture.reshape(-1, 3).mean(0)],
        "clipped": clipped_share(picture),
        "halves": halves(picture),
        "cells": coarse_lightness(picture).tolist(),
        "clip": clip,
        "subject": judged == label,
    }


class DialRun:
    """Makes and measures the pictures of prompts, in one process."""

    def __init__(self, job: DialJob, studio: Studio | None = None) -> None:
        self._job = job
        self._studio = studio or Studio(home=job.home, device=job.device)
        self._clip = scene_clip.load()
        self._classifier, _ = subject_classifier.load()
        self._rivals = Rivals(job.offset_scale) if job.rivals else None

    def run(self, i: int) -> dict[str, Any]:
        """The figures of prompt i: setting → one record for each seed. Stored, and read if stored before."""
        path = self._job.folder / f"prompt-{i:02}.json"
        if path.exists():
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return stored
        prompt, label = PROMPTS[i]
        seed = 1000 * i
        pictures = self._generate(prompt, seed, tuple(settings().values()))
        exact = [settings()[f"luminance {level}"] for level in EXACT_LEVELS]
        exactly = self._generate(prompt, seed, tuple(exact), exact=True)
        pictures |= {f"exact {name.removeprefix('luminance ')}": made for name, made in exactly.items()}
        pictures |= self._rival_pictures(prompt, range(seed, seed + self._job.seeds), pictures["free"])
        if i == 0:
            fixed = Variant(name="fixed", correction="dial", **FIXED)
            pictures |= self._generate(prompt, seed, (fixed,), count=FIXED_SEEDS)
        found = {name: self._figures(made, prompt, label) for name, made in pictures.items()}
        atomic_write(path, json.dumps(found))
        return found

    def _generate(
        self, prompt: str, seed: int, variants: tuple[Variant, ...], *, exact: bool = False, count: int | None = None
    ) -> dict[str, list[NDArray[np.uint8]]]:
        request = GenerateRequest(
            prompt=prompt,
            model=self._job.model,
            variants=variants,
            seed=seed,
            count=count or self._job.seeds,
            exact=exact,
        )
        made: dict[str, list[NDArray[np.uint8]]] = {}
        for image in self._studio.generate(request).images:
            made.setdefault(image.variant, []).append(np.asarray(image.image))
        return made

    def _rival_pictures(
        self, prompt: str, seeds: Sequence[int], free: Sequence[NDArray[np.uint8]]
    ) -> dict[str, list[NDArray[np.uint8]]]:
        made = {f"gain {level}": [with_mean(one, 2.55 * level) for one in free] for level in RIVAL_LEVELS}
        if self._rivals is None:
            return made
        tint = [v / 255 for v in bytes.fromhex(RIVAL_TINT[0][1:])]
        asked = {str(level): [level / 100] * 3 for level in RIVAL_LEVELS} | {"tint": tint}
        words = {str(level): brightness_word(level) for level in RIVAL_LEVELS} | {"tint": RIVAL_TINT[1]}
        for name, colour in asked.items():
            for rival in RIVALS:
                made[f"{rival} {name}"] = list(getattr(self._rivals, rival)(prompt, seeds, colour))
            made[f"words {name}"] = list(self._rivals.words(prompt, seeds, words[name]))
        return made

    def _figures(self, pictures: Sequence[NDArray[np.uint8]], prompt: str, label: str) -> list[dict[str, Any]]:
        batch = np.stack(pictures)
        text = np.repeat(self._clip.encode_texts([prompt]), len(batch), 0)
        scores = clip_scores(self._clip.encode_images(batch), text)
        judged = [subject_classifier.LABELS[k] for k in subject_classifier.classify(self._classifier, batch)]
        return [figures_of(*one) for one in zip(batch, [label] * len(batch), map(float, scores), judged, strict=True)]


def _run_share(job: DialJob, share: Sequence[int]) -> list[tuple[int, dict[str, Any]]]:
    torch.set_num_threads(1)
    run = DialRun(job)
    return [(i, run.run(i)) for i in share]


def collect(
    studio: Studio,
    *,
    prompts: int = len(PROMPTS),
    seeds: int = 4,
    rivals: bool = True,
    processes: int = 1,
    on_prompt: Callable[[int, int, float], None] | None = None,
) -> list[dict[str, Any]]:
    """The figures of the first `prompts` prompts. on_prompt(done, total, seconds left): progress."""
    key = state_key(studio, "dials", seeds, rivals, sorted(settings()))
    job = DialJob(
        studio.home, str(studio.device), studio.home / "evaluation" / f"dials-{key}", seeds=seeds, rivals=rivals
    )
    job.folder.mkdir(parents=True, exist_ok=True)
    if rivals:
        job = replace(job, offset_scale=_offset_scale(job.folder))
    found: dict[int, dict[str, Any]] = {}
    began, stored = time.monotonic(), sum((job.folder / f"prompt-{i:02}.json").exists() for i in range(prompts))

    def done(i: int, figures: dict[str, Any]) -> None:
        found[i] = figures
        if on_prompt is not None:
            made = len(found) - stored
            pace = (time.monotonic() - began) / made if made > 0 else 0.0
            on_prompt(len(found), prompts, pace * (prompts - len(found)))

    if processes == 1:
        run = DialRun(job, studio)
        for i in range(prompts):
            done(i, run.run(i))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            size = max(1, min(5, prompts // processes))
            shares = [range(k, min(k + size, prompts)) for k in range(0, prompts, size)]
            for future in as_completed([pool.submit(_run_share, job, share) for share in shares]):
                for i, figures in future.result():
                    done(i, figures)
    return [found[i] for i in range(prompts)]


def _offset_scale(folder: Path) -> float:
    """The searched constant of offset noise, stored."""
    path = folder / "offset.json"
    if not path.exists():
        colours = [[level / 100] * 3 for level in RIVAL_LEVELS]
        atomic_write(path, json.dumps(Rivals().search_offset([PROMPTS[0][0], PROMPTS[9][0]], colours)))
    return float(json.loads(path.read_text(encoding="utf-8")))
