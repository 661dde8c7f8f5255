"""Pairs for a blind ranking, a dial picture beside a gain in linear light on the free one, and a reader's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.evaluate.dial_jobs import weights_of
from oms_app.evaluate.dials import FREE, RIVAL_LEVELS
from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.measure.light import with_mean
from oms_app.output.sheets import tiled
from oms_app.paths import EMBEDDED, atomic_write
from oms_app.schema import GenerateRequest, Variant

PAIRS = 20
FIRST_SEED = 5_000
QUESTION = """Each file shows two pictures of one prompt. Which is the better picture of it: left or right?
Write your answers into a file: {"01": "left", "02": "right", ...}, one for every picture.
"""


def write_pairs(studio: Studio, folder: Path, model: str = EMBEDDED, rng: np.random.Generator | None = None) -> None:
    """Pairs at 20 and 80 % in turn, the order random in each, unless `rng` is given.

    key.json, in a folder of its own beside `folder`, says which is which.
    """
    rng = rng or np.random.default_rng()
    pairs = {}
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(PAIRS):
        name, prompt, level = f"{i + 1:02}", PROMPTS[i][0], RIVAL_LEVELS[i % 2]
        dial = Variant(name="dial", correction="dial", luminance=float(level))
        request = GenerateRequest(prompt=prompt, model=model, variants=(FREE, dial), seed=FIRST_SEED + i)
        made = {image.variant: image.image for image in studio.generate(request).images}
        shown = {"dial": made["dial"], "gain": Image.fromarray(with_mean(np.asarray(made["free"]), 2.55 * level))}
        left, right = (str(one) for one in rng.permutation(list(shown)))
        tiled([shown[left], shown[right]], 2, gap=12).save(folder / f"{name}.png")
        pairs[name] = {"left": left, "right": right, "prompt": prompt, "percent": level}
    key = {"model": studio.catalog.find(model, "base").id, "weights": weights_of(studio, model), "pairs": pairs}
    atomic_write(_key_path(folder), json.dumps(key, indent=1) + "\n")
    prompts = "\n".join(f"{name}: {pair['prompt']}" for name, pair in pairs.items())
    atomic_write(folder / "questions.txt", f"{QUESTION}\n{prompts}\n")


def score(folder: Path, answers: Path) -> dict[str, Any]:
    """How often the dial was preferred. answers: a JSON file, pair → "left" or "right".

    Raises StudioError if a file cannot be read, or a pair has no answer.
    """
    key, given = _read(_key_path(folder)), _read(answers)
    pairs = key["pairs"]
    if wrong := sorted((pairs.keys() ^ given.keys()) | {name for name, side in given.items() if side not in _SIDES}):
        raise StudioError(f"{answers} must say left or right for every pair, and nothing else: see {', '.join(wrong)}")
    chosen = {name: pair[given[name]] == "dial" for name, pair in pairs.items()}
    by_level = {
        str(level): {
            "dial": sum(chosen[name] for name, pair in pairs.items() if pair["percent"] == level),
            "pairs": sum(pair["percent"] == level for pair in pairs.values()),
        }
        for level in RIVAL_LEVELS
    }
    counts = {"dial": sum(chosen.values()), "pairs": len(pairs), "by_level": by_level}
    return {"model": key["model"], "weights": key["weights"], **counts}


_SIDES = ("left", "right")


def _key_path(folder: Path) -> Path:
    return folder.with_name(folder.name + "-key") / "key.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudioError(f"{path} cannot be read ({error}): give a JSON file") from error
    if not isinstance(found, dict):
        raise StudioError(f"{path} is not an object: write {{pair: left or right}}")
    return found
