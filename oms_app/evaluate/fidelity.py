"""Do background colour and subject agree with the prompt? `python -m oms_app.evaluate.fidelity`

100 prompts like "a red circle on a blue background" and 100 like "mountains at dusk", one picture each, raw and OMS
CFG 1. A background is right if the median of the border is within ΔE 20 (CIE76) of the named colour. The subject is
recognised by a classifier trained on scenes, independent of the base model (evaluate/subject_classifier.py).
`--predictions` measures OMS alone instead: the background of its decoded x̂0, before the base model denoises.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from oms_app.engine.decode import decode
from oms_app.engine.denoise import draw
from oms_app.engine.studio import Studio
from oms_app.evaluate import subject_classifier
from oms_app.measure.color import srgb_to_lab
from oms_app.models.loading import load_base, load_module
from oms_app.models.text import load_encoder
from oms_app.paths import EMBEDDED, EMBEDDED_FOLDER
from oms_app.prestep.step import predicted_x0
from oms_app.schema import OMS, RAW, GenerateRequest, Variant
from oms_app.training.scenes.captions import article
from oms_app.training.scenes.figures import FIGURES
from oms_app.training.scenes.landscapes import LANDSCAPES
from oms_app.training.scenes.painter import SIZE, apart_from
from oms_app.training.scenes.shapes import SHAPES
from oms_app.training.scenes.words import COLOURS, SUBJECTS

COUNT = 100
LIMIT = 20.0  # ΔE, CIE76
BORDER = 16  # pixels
TIMES = ("at night", "at sunset", "at dawn", "by day", "in fog", "in snow", "in a storm", "")


def background_prompts(count: int = COUNT) -> list[tuple[str, str, str]]:
    """(prompt, label, name of the background's colour); every subject and every colour is equally frequent."""
    subjects = [f"shape {s}" for s in SHAPES] + [f"figure {s}" for s in FIGURES]
    rng = np.random.default_rng(0)
    prompts = []
    for i in range(count):
        label, background = subjects[i % len(subjects)], list(COLOURS)[i % len(COLOURS)]
        colour = str(rng.choice(apart_from(np.array(COLOURS[background]))))
        noun = article(f"{colour} {label.split()[1]}")
        prompts.append((f"{noun} on {article(background)} background", label, background))
    return prompts


def scene_prompts(count: int = COUNT) -> list[tuple[str, str]]:
    """(prompt, label); every subject and every time of day is equally frequent."""
    names = list(LANDSCAPES)
    return [
        (f"{SUBJECTS[names[i % len(names)]][0]} {TIMES[i % len(TIMES)]}".strip(), f"landscape {names[i % len(names)]}")
        for i in range(count)
    ]


def border_distance(picture: np.ndarray, colour: str) -> float:
    """ΔE (CIE76) between the median of the border of a (H, W, 3) uint8 picture and a named colour."""
    inside = np.zeros(picture.shape[:2], bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    median = np.median(srgb_to_lab(picture[~inside]), axis=0)
    return float(np.linalg.norm(median - srgb_to_lab(np.array(COLOURS[colour]) * 255)))


def measure(
    studio: Studio, count: int = COUNT, model: str = EMBEDDED, variants: tuple[Variant, ...] = (RAW, OMS)
) -> dict[str, Any]:
    """Shares of right backgrounds and subjects by variant; picture i has seed i."""
    classifier, accuracy = subject_classifier.load()
    right: dict[str, list[bool]] = {}
    wrong: list[str] = []

    def check(prompt: str, seed: int, label: str, kind: str, background: str | None = None) -> None:
        request = GenerateRequest(prompt=prompt, model=model, variants=variants, seed=seed)
        for image in studio.generate(request).images:
            picture = np.asarray(image.image)
            predicted = subject_classifier.LABELS[subject_classifier.classify(classifier, picture[None])[0]]
            right.setdefault(f"{kind} subject, {image.variant}", []).append(predicted == label)
            if predicted != label and image.variant == "oms":
                wrong.append(f"{prompt!r} classified as {predicted}")
            if background is not None:
                distance = border_distance(picture, background)
                right.setdefault(f"background colour, {image.variant}", []).append(distance <= LIMIT)
                if distance > LIMIT and image.variant == "oms":
                    wrong.append(f"{prompt!r} background off by ΔE {distance:.0f}")

    for i, (prompt, label, background) in enumerate(background_prompts(count)):
        check(prompt, i, label, "shape or figure", background)
    for i, (prompt, label) in enumerate(scene_prompts(count)):
        check(prompt, i, label, "scene")
    shares = {name: round(float(np.mean(values)), 3) for name, values in right.items()}
    return {"n": count, "classifier": accuracy, "right": shares, "wrong": wrong}


@torch.no_grad()
def measure_predictions(count: int = COUNT) -> dict[str, float]:
    """Share of right backgrounds, and the median and greatest ΔE, of the decoded x̂0 of Lumen's OMS module, CFG 1."""
    cpu = torch.device("cpu")
    base = load_base(EMBEDDED_FOLDER, cpu, torch.float32)
    module = load_module(EMBEDDED_FOLDER / "oms", cpu, torch.float32)
    encoder = load_encoder(EMBEDDED_FOLDER, cpu, torch.float32)
    distances = []
    for i, (prompt, _, background) in enumerate(background_prompts(count)):
        noise = draw(i, (4, SIZE // 8, SIZE // 8), cpu, torch.float32)
        pictures, _ = decode(base.pipeline, predicted_x0(module.unet(noise.x_s, encoder.encode([prompt]))))
        distances.append(border_distance(np.asarray(pictures[0]), background))
    return {
        "right": float(np.mean(np.array(distances) <= LIMIT)),
        "median": round(float(np.median(distances)), 1),
        "greatest": round(float(np.max(distances)), 1),
    }


if __name__ == "__main__":
    measured = measure_predictions() if "--predictions" in sys.argv[1:] else measure(Studio())
    print(json.dumps(measured, indent=1, ensure_ascii=False))
