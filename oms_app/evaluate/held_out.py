"""The 1,000 captions of `evaluate luminance`, four scenes to each: `python -m oms_app.evaluate.held_out`.

A pool of scenes that no training sees is drawn and grouped by caption; a caption is kept where four different scenes
carry its exact words. So the four are draws from what the caption leaves open, in light above all.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from tqdm.auto import tqdm

from oms_app.paths import EMBEDDED_FOLDER
from oms_app.training.lumen.stages import HELD_OUT
from oms_app.training.scenes import painter as scenes

POOL = 40_000
COUNT = 1_000
REFERENCES = 4


def _captions(seed: int) -> tuple[int, tuple[str, ...]]:
    return seed, scenes.draw(seed).captions


def gather(pool: int = POOL, count: int = COUNT) -> list[dict[str, object]]:
    """[{"caption", "scene_seeds": four ints}], in random order; captions are distinct, scenes are used once."""
    carriers: dict[str, list[int]] = {}
    with ProcessPoolExecutor() as workers:
        seeds = range(HELD_OUT, HELD_OUT + pool)
        for seed, told in tqdm(workers.map(_captions, seeds, chunksize=64), total=pool, desc="captions"):
            for caption in dict.fromkeys(told):
                carriers.setdefault(caption, []).append(seed)
    rng = np.random.default_rng(7)
    kept: list[dict[str, object]] = []
    used: set[int] = set()
    for caption in rng.permutation(sorted(carriers)):
        free = [s for s in carriers[str(caption)] if s not in used]
        if len(free) >= REFERENCES:
            chosen = [int(s) for s in rng.choice(free, REFERENCES, replace=False)]
            used.update(chosen)
            kept.append({"caption": str(caption), "scene_seeds": chosen})
        if len(kept) == count:
            return kept
    raise ValueError(
        f"only {len(kept)} of {count} captions have {REFERENCES} scenes in a pool of {pool}: draw a larger pool"
    )


if __name__ == "__main__":
    path = EMBEDDED_FOLDER / "captions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(entry) for entry in gather())
    path.write_text('{"captions": [\n' + lines + "\n]}\n")
