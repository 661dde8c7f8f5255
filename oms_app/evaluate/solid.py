"""How dark is "solid black background", how bright "solid white background"? `python -m oms_app.evaluate.solid`

8 seeds each, raw and OMS with CFG 1 and 2.
"""

from __future__ import annotations

import json
from statistics import mean
from typing import Any

from oms_app.engine.studio import Studio
from oms_app.paths import EMBEDDED
from oms_app.schema import RAW, GenerateRequest, Lora, Variant

PROMPTS = ("solid black background", "solid white background")
SEEDS = 8


def measure(
    studio: Studio,
    prompt: str,
    seeds: int = SEEDS,
    *,
    model: str = EMBEDDED,
    loras: tuple[Lora, ...] = (),
    leak: bool = True,
) -> dict[str, Any]:
    """Means of all RGB values, 0…255, of seeds 0 … seeds - 1: average, least and greatest, by variant. leak: False for
    a base that starts from pure noise, which OMS does not change."""
    corrected = (Variant(name=f"oms CFG {w}", correction="oms", guidance_scale=w) for w in (1, 2) if leak)
    variants = (RAW, *corrected)
    request = GenerateRequest(prompt=prompt, model=model, loras=loras, variants=variants, seed=0, count=seeds)
    images = studio.generate(request).images
    by_variant = {v.name: [image.stats.mean for image in images if image.variant == v.name] for v in variants}
    return {
        name: {"average": round(mean(means), 1), "least": round(min(means), 1), "greatest": round(max(means), 1)}
        for name, means in by_variant.items()
    }


if __name__ == "__main__":
    studio = Studio()
    print(json.dumps({prompt: measure(studio, prompt) for prompt in PROMPTS}, indent=1))
