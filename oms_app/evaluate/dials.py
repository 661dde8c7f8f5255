"""What `evaluate dials` makes and measures: pictures of the dial and of other ways to the same light, part by part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oms_app.engine.studio import Studio
from oms_app.evaluate import scene_clip, subject_classifier
from oms_app.evaluate.dial_rivals import Rivals, brightness_word
from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.evaluate.quality import clip_scores
from oms_app.light import LIGHTS
from oms_app.measure.light import clipped_share, coarse_lightness, halves, with_mean, with_mean_colour
from oms_app.schema import GenerateRequest, Variant

LEVELS = (10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90)  # percent of mean brightness
EVEN_LEVELS = tuple(range(10, 100, 10))  # of which errors, slope and rank correlation are told
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
RIVALS = ("offset", "signal_leak", "recentre", "words")
FREE = Variant(name="free", correction="dial")  # One More Step with no light set; without a module the base alone
Picture = NDArray[np.uint8]  # (H, W, 3)
Records = dict[str, list[dict[str, Any]]]  # setting → one record for each seed


def painted_light() -> Image.Image:
    """A painted layout: bright in the upper left, dark in the lower right, a second light at the right border."""
    y, x = np.mgrid[0:64, 0:64] / 63
    light = (
        0.15
        + 0.75 * np.exp(-((x - 0.2) ** 2 + (y - 0.2) ** 2) / 0.1)
        + 0.4 * np.exp(-((x - 1) ** 2 + (y - 0.6) ** 2) / 0.05)
    )
    return Image.fromarray(np.repeat(np.asarray(255 * np.clip(light, 0, 1), np.uint8)[..., None], 3, axis=2))


def settings() -> dict[str, tuple[Variant, ...]]:
    """Part → the variants of its request. Every part is made and stored on its own, for each prompt."""

    def dial(name: str, **values: Any) -> Variant:
        return Variant(name=name, correction="dial", **values)

    return {
        "brightness": (FREE, *(dial(f"luminance {level}", luminance=float(level)) for level in LEVELS)),
        "exact": tuple(dial(f"exact {level}", luminance=float(level)) for level in EXACT_LEVELS),
        "tint": (
            *(dial(f"tint {name}", tint=tint) for name, tint in TINTS.items()),
            dial("luminance tint", tint=RIVAL_TINT[0]),
        ),
        "light": (
            *(dial(f"light {where}", light=where) for where in LIGHTS),
            dial("painted", light=painted_light(), light_strength=1.0),
        ),
        "rivals": (),
        "fixed": (dial("fixed", **FIXED),),
    }


def rival_tasks() -> dict[str, tuple[list[float], str]]:
    """What the other ways are asked for: name → colour, 0…1, and the word for it."""
    grey = {str(level): ([level / 100] * 3, brightness_word(level)) for level in RIVAL_LEVELS}
    return grey | {"tint": ([v / 255 for v in bytes.fromhex(RIVAL_TINT[0][1:])], RIVAL_TINT[1])}


@dataclass(frozen=True)
class DialJob:
    """How every picture of a run is made. made_with: a hash of weights and code. offset_scale: of offset noise.

    judged: whether the subject classifier and the CLIP of scenes know what the model paints.
    """

    home: Path
    presets: Path
    device: str
    model: str
    made_with: str
    seeds: int
    judged: bool
    offset_scale: float = float("nan")


@dataclass(frozen=True)
class Item:
    """A part of one prompt, PROMPTS[prompt]."""

    part: str
    prompt: int

    @property
    def seed(self) -> int:
        """Of its first picture."""
        return 1000 * self.prompt

    def count(self, job: DialJob) -> int:
        """Seeds: of the other ways, which are many, half."""
        return {"fixed": FIXED_SEEDS, "rivals": -(-job.seeds // 2)}.get(self.part, job.seeds)

    def pictures(self, job: DialJob) -> int:
        """How many are made, about: the exact ones are made up to three times."""
        each = {"rivals": len(RIVALS) * len(rival_tasks()), "exact": 2 * len(EXACT_LEVELS)}
        return self.count(job) * each.get(self.part, len(settings()[self.part]))


def figures_of(picture: Picture) -> dict[str, Any]:
    """What is stored of a picture, besides `judgements`."""
    return {
        "mean": float(picture.mean()) / 2.55,
        "rgb": [float(v) for v in picture.reshape(-1, 3).mean(0)],
        "clipped": clipped_share(picture),
        "halves": halves(picture),
        "cells": coarse_lightness(picture).tolist(),
    }


class Painter:
    """Makes and measures the pictures of items, in one process."""

    def __init__(self, job: DialJob, studio: Studio | None = None) -> None:
        self._job = job
        self._studio = studio or Studio(home=job.home, presets=job.presets, device=job.device)
        self._judges = (scene_clip.load(), subject_classifier.load()[0]) if job.judged else None
        self._rivals: Rivals | None = None

    def run(self, item: Item) -> Records:
        """Its records. Nothing from other items is reused, so they do not depend on the order of the items."""
        self._studio.forget()
        prompt, label = PROMPTS[item.prompt]
        if item.part == "rivals":
            return self._figures(self._rival_pictures(item), prompt, label)
        request = GenerateRequest(
            prompt=prompt,
            model=self._job.model,
            variants=settings()[item.part],
            seed=item.seed,
            count=item.count(self._job),
            exact=item.part == "exact",
        )
        result = self._studio.generate(request)
        made: dict[str, list[Picture]] = {variant.name: [] for variant in request.variants}
        for image in result.images:
            made[image.variant].append(np.asarray(image.image))
        if item.part == "brightness":
            made |= gains(made["free"])
        found = self._figures(made, prompt, label)
        if runs := re.search(r"exact: (\d+) run", " ".join(result.notes)):
            found["exact runs"] = [{"runs": int(runs[1])}]
        return found

    def _rival_pictures(self, item: Item) -> dict[str, list[Picture]]:
        self._rivals = self._rivals or Rivals(self._job.offset_scale)
        seeds = range(item.seed, item.seed + item.count(self._job))
        return self._rivals.pictures(PROMPTS[item.prompt][0], seeds, rival_tasks())

    def _figures(self, made: dict[str, list[Picture]], prompt: str, label: str) -> Records:
        return {
            name: [
                figures_of(picture) | judged
                for picture, judged in zip(pictures, self._judgements(pictures, prompt, label), strict=True)
            ]
            for name, pictures in made.items()
        }

    def _judgements(self, pictures: Sequence[Picture], prompt: str, label: str) -> list[dict[str, Any]]:
        """Of each picture its CLIP score and whether the classifier sees the subject; nothing if neither knows it."""
        if self._judges is None:
            return [{}] * len(pictures)
        clip, classifier = self._judges
        batch = np.stack(pictures)
        scores = clip_scores(clip.encode_images(batch), np.repeat(clip.encode_texts([prompt]), len(batch), 0))
        seen = [subject_classifier.LABELS[k] for k in subject_classifier.classify(classifier, batch)]
        return [{"clip": float(score), "subject": one == label} for score, one in zip(scores, seen, strict=True)]


def gains(free: Sequence[Picture]) -> dict[str, list[Picture]]:
    """The free pictures edited in linear light: one gain to a brightness, one for each channel to the tint."""
    tint = list(bytes.fromhex(RIVAL_TINT[0][1:]))
    edited = {f"gain {level}": [with_mean(one, 2.55 * level) for one in free] for level in RIVAL_LEVELS}
    return edited | {"gain tint": [with_mean_colour(one, tint) for one in free]}
