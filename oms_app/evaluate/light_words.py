"""Do OMS prompts and OMS CFG change the brightness? `python -m oms_app.evaluate.light_words`

20 prompts that do not mention light, 4 seeds each. Measured are the share of pictures whose mean is lower with the OMS
prompt "dark" and higher with "light" than with the main prompt as OMS prompt, and the share whose mean falls, or is
≤ 8 already, at each step of OMS CFG 1 → 2 → 3 with "dark".
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np

from oms_app.engine.studio import Studio
from oms_app.schema import OMS, GenerateRequest
from oms_app.training.scenes.captions import article

SUBJECTS = ("circle", "star", "heart", "ring", "square", "ball", "flower", "tree", "fish", "mushroom", "cat")
PROMPTS = (
    *("mountains", "hills", "the sea", "a lake", "a forest", "a city", "a desert", "a house on a hill", "flowers"),
    *(article(subject) for subject in SUBJECTS),
)
SEEDS = 4
DARK_ENOUGH = 8.0  # of 255


def measure(studio: Studio, prompts: tuple[str, ...] = PROMPTS, seeds: int = SEEDS) -> dict[str, Any]:
    """Shares of all prompts × seeds, and the mean picture of each variant."""
    dark = {f"dark {w}": {"prompt": "dark", "guidance_scale": float(w)} for w in (1, 2, 3)}
    settings: dict[str, dict[str, Any]] = {"main": {}, "light": {"prompt": "light"}, **dark}
    variants = tuple(OMS.model_copy(update={"name": name, **more}) for name, more in settings.items())
    rows = []
    for prompt in prompts:
        images = studio.generate(GenerateRequest(prompt=prompt, variants=variants, seed=0, count=seeds)).images
        by_name: dict[str, list[float]] = {v.name: [] for v in variants}
        for image in images:
            by_name[image.variant].append(image.stats.mean)
        rows.append(np.array([by_name[v.name] for v in variants]).T)
    means = np.concatenate(rows)  # (prompts × seeds, variants)
    main, light, *darker = means.T
    falls = [(later < earlier) | (earlier <= DARK_ENOUGH) for earlier, later in pairwise(darker)]
    return {
        "n": len(means),
        "dark < main < light": round(float(np.mean((darker[0] < main) & (main < light))), 3),
        "dark < main": round(float(np.mean(darker[0] < main)), 3),
        "main < light": round(float(np.mean(main < light)), 3),
        "OMS CFG 1 → 2 → 3 darkens": round(float(np.mean(np.logical_and(*falls))), 3),
        "mean": {v.name: round(float(m), 1) for v, m in zip(variants, means.mean(0), strict=True)},
    }


if __name__ == "__main__":
    print(json.dumps(measure(Studio()), indent=1, ensure_ascii=False))
