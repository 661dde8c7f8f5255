"""Is the ground of the colour named, and is the subject the one asked for? `python -m oms_app.evaluate.fidelity`

100 prompts like "a red circle on a blue background" and 100 like "mountains at dusk", one picture each, raw and OMS
CFG 1. The ground is right where the median of the border is within ΔE 20 (CIE76) of the named colour. The subject is
judged by a classifier trained on scenes apart from the base model (oms_app/training/judge.py).
`--told` asks instead which light OMS hands over: the ground of its own x̂0, decoded, before the base model paints.
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
from oms_app.evaluate import subject_classifier as judges
from oms_app.measure.color import srgb_to_lab
from oms_app.models.loading import load_base, load_module
from oms_app.models.text import load_encoder
from oms_app.paths import EMBEDDED_FOLDER
from oms_app.prestep.step import predicted_x0
from oms_app.schema import GenerateRequest
from oms_app.training.scenes.captions import COLOURS, SUBJECTS, article
from oms_app.training.scenes.figures import FIGURES, SHAPES
from oms_app.training.scenes.landscapes import LANDSCAPES
from oms_app.training.scenes.painter import SIZE, apart_from

COUNT = 100
LIMIT = 20.0  # ΔE, CIE76
BORDER = 16  # pixels
TIMES = ("at night", "at sunset", "at dawn", "by day", "in fog", "in snow", "in a storm", "")


def ground_prompts(count: int = COUNT) -> list[tuple[str, str, str]]:
    """(prompt, label, name of the ground's colour); subjects and grounds come round evenly."""
    subjects = [f"shape {s}" for s in SHAPES] + [f"figure {s}" for s in FIGURES]
    rng = np.random.default_rng(0)
    prompts = []
    for i in range(count):
        label, ground = subjects[i % len(subjects)], list(COLOURS)[i % len(COLOURS)]
        colour = str(rng.choice(apart_from(np.array(COLOURS[ground]))))
        noun = article(f"{colour} {label.split()[1]}")
        prompts.append((f"{noun} on {article(ground)} background", label, ground))
    return prompts


def scene_prompts(count: int = COUNT) -> list[tuple[str, str]]:
    """(prompt, label); subjects and lights come round evenly."""
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


def measure(studio: Studio, count: int = COUNT) -> dict[str, Any]:
    """Shares of right grounds and subjects by variant; picture i has seed i."""
    judge, accuracy = judges.load()
    right: dict[str, list[bool]] = {}
    wrong: list[str] = []

    def see(prompt: str, seed: int, label: str, kind: str, ground: str | None = None) -> None:
        for image in studio.generate(GenerateRequest(prompt=prompt, seed=seed)).images:
            picture = np.asarray(image.image)
            seen = judges.LABELS[judges.judged(judge, picture[None])[0]]
            right.setdefault(f"{kind} subject, {image.variant}", []).append(seen == label)
            if seen != label and image.variant == "oms":
                wrong.append(f"{prompt!r} seen as {seen}")
            if ground is not None:
                distance = border_distance(picture, ground)
                right.setdefault(f"ground colour, {image.variant}", []).append(distance <= LIMIT)
                if distance > LIMIT and image.variant == "oms":
                    wrong.append(f"{prompt!r} ground off by ΔE {distance:.0f}")

    for i, (prompt, label, ground) in enumerate(ground_prompts(count)):
        see(prompt, i, label, "shape or figure", ground)
    for i, (prompt, label) in enumerate(scene_prompts(count)):
        see(prompt, i, label, "scene")
    shares = {name: round(float(np.mean(values)), 3) for name, values in right.items()}
    return {"n": count, "judge": accuracy, "right": shares, "wrong": wrong}


@torch.no_grad()
def told(count: int = COUNT) -> dict[str, float]:
    """Share of right grounds, and the median and greatest ΔE, of Lumen's OMS predictions (OMS CFG 1) by themselves."""
    lumen, cpu = EMBEDDED_FOLDER, torch.device("cpu")
    base = load_base(lumen, cpu, torch.float32)
    module = load_module(lumen / "oms", cpu, torch.float32)
    encoder = load_encoder(lumen / "oms", cpu, torch.float32)
    distances = []
    for i, (prompt, _, ground) in enumerate(ground_prompts(count)):
        noise = draw(i, (4, SIZE // 8, SIZE // 8), cpu, torch.float32)
        pictures, _ = decode(base.pipeline, predicted_x0(module.unet(noise.x_s, encoder.encode([prompt]))))
        distances.append(border_distance(np.asarray(pictures[0]), ground))
    return {
        "right": float(np.mean(np.array(distances) <= LIMIT)),
        "median": round(float(np.median(distances)), 1),
        "greatest": round(float(np.max(distances)), 1),
    }


if __name__ == "__main__":
    print(json.dumps(told() if "--told" in sys.argv[1:] else measure(Studio()), indent=1, ensure_ascii=False))
