"""Writes the captions of `evaluate` with scenes that they describe: `python -m oms_app.evaluate.held_out`.

Scenes that no training sees are drawn and grouped by caption. A caption is used if four different scenes have exactly
this caption: the four are samples of what the caption leaves open, above all the light. Ten prompts that say nothing of
light have 64 scenes each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tqdm.auto import tqdm

from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.evaluate.pictures import CAPTIONS, REFERENCES
from oms_app.evaluate.spread import NEUTRAL_PROMPTS, PROMPT_COUNT, SCENES_PER_PROMPT
from oms_app.paths import atomic_write
from oms_app.training.lumen.stages import HELD_OUT
from oms_app.training.scenes import painter

POOL = 40_000
COUNT = 1_000


def _captions(seed: int) -> tuple[int, tuple[str, ...]]:
    return seed, painter.draw(seed).captions


def seeds_by_caption(pool: int = POOL) -> dict[str, list[int]]:
    """The scenes of a pool, by caption, in ascending order."""
    seeds_of: dict[str, list[int]] = {}
    with ProcessPoolExecutor() as workers:
        seeds = range(HELD_OUT, HELD_OUT + pool)
        for seed, captions in tqdm(workers.map(_captions, seeds, chunksize=64), total=pool, desc="captions"):
            for caption in dict.fromkeys(captions):
                seeds_of.setdefault(caption, []).append(seed)
    return seeds_of


def select_prompts(seeds_of: Mapping[str, list[int]]) -> list[dict[str, object]]:
    """[{"caption", "scene_seeds": SCENES_PER_PROMPT ints}] of the first neutral prompts.

    Raises ValueError if the pool has too few scenes.
    """
    selected: list[dict[str, object]] = []
    for prompt, _ in PROMPTS[:PROMPT_COUNT]:
        free = seeds_of.get(prompt, [])
        if len(free) < SCENES_PER_PROMPT:
            raise ValueError(
                f"only {len(free)} of {SCENES_PER_PROMPT} scenes are called {prompt!r}: draw a larger pool"
            )
        selected.append({"caption": prompt, "scene_seeds": free[:SCENES_PER_PROMPT]})
    return selected


def select_captions(seeds_of: Mapping[str, list[int]], pool: int = POOL, count: int = COUNT) -> list[dict[str, object]]:
    """[{"caption", "scene_seeds": four ints}], in random order; captions are distinct, scenes are used once.

    Raises ValueError if the pool has too few scenes.
    """
    rng = np.random.default_rng(7)
    selected: list[dict[str, object]] = []
    used: set[int] = set()
    for caption in rng.permutation(sorted(seeds_of)):
        free = [s for s in seeds_of[str(caption)] if s not in used]
        if len(free) >= REFERENCES:
            scene_seeds = [int(s) for s in rng.choice(free, REFERENCES, replace=False)]
            used.update(scene_seeds)
            selected.append({"caption": str(caption), "scene_seeds": scene_seeds})
        if len(selected) == count:
            return selected
    raise ValueError(
        f"only {len(selected)} of {count} captions have {REFERENCES} scenes in a pool of {pool}: draw a larger pool"
    )


if __name__ == "__main__":
    found = seeds_by_caption()
    for path, entries in ((CAPTIONS, select_captions(found)), (NEUTRAL_PROMPTS, select_prompts(found))):
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        atomic_write(path, '{"captions": [\n' + lines + "\n]}\n")
