"""Writes the 1,000 captions of `evaluate`, with four scenes each: `python -m oms_app.evaluate.held_out`.

Scenes that no training sees are drawn and grouped by caption. A caption is used if four different scenes have exactly
this caption: the four are samples of what the caption leaves open, above all the light.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tqdm.auto import tqdm

from oms_app.evaluate.pictures import CAPTIONS, REFERENCES
from oms_app.paths import atomic_write
from oms_app.training.first_scenes import painter
from oms_app.training.lumen.stages import HELD_OUT

POOL = 40_000
COUNT = 1_000


def _captions(seed: int) -> tuple[int, tuple[str, ...]]:
    return seed, painter.draw(seed).captions


def select_captions(pool: int = POOL, count: int = COUNT) -> list[dict[str, object]]:
    """[{"caption", "scene_seeds": four ints}], in random order; captions are distinct, scenes are used once.

    Raises ValueError if the pool has too few scenes.
    """
    seeds_of: dict[str, list[int]] = {}
    with ProcessPoolExecutor() as workers:
        seeds = range(HELD_OUT, HELD_OUT + pool)
        for seed, captions in tqdm(workers.map(_captions, seeds, chunksize=64), total=pool, desc="captions"):
            for caption in dict.fromkeys(captions):
                seeds_of.setdefault(caption, []).append(seed)
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
    lines = ",\n".join(json.dumps(entry) for entry in select_captions())
    atomic_write(CAPTIONS, '{"captions": [\n' + lines + "\n]}\n")
