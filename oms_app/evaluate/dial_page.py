"""What `evaluate dials` writes: docs/dials.md, its sheets, a section of docs/results.md, and blind pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from oms_app.engine.studio import Studio
from oms_app.evaluate.dial_table import rows
from oms_app.evaluate.dials import RIVAL_LEVELS, TINTS
from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.evaluate.results_page import table, with_section
from oms_app.light import LIGHTS
from oms_app.measure.light import with_mean
from oms_app.output.sheets import labelled, tiled
from oms_app.paths import atomic_path, atomic_write
from oms_app.schema import OMS, GenerateRequest, Variant

HEADING = "## Dials"
SHEET_PROMPTS = ("mountains", "a cat", "a city")
SHEET_SIDE = 112  # pixels per side of a picture
BLIND_PAIRS = 20
NAMES = {
    "luminance": "dial",
    "gain": "gain in linear light on the free picture",
    "offset": "offset noise, the best constant",
    "signal_leak": "signal leak",
    "recentre": "recentring after each step",
    "words": "words in the prompt",
}


def rival_table(figures: Mapping[str, Any]) -> str:
    """Error, tint, CLIP score and subjects of every way, at the same brightness."""
    lines = []
    for name, one in figures["rivals"].items():
        error, tint = one["brightness"], one.get("tint")
        lines.append(
            (
                NAMES[name],
                f"{error['median']:.1f}, {error['p90']:.1f}",
                f"{tint['median']:.1f}, {tint['p90']:.1f}" if tint else "",
                *(f"{one['kept'][str(level)]['clip']:+.2f}" for level in RIVAL_LEVELS),
                *(f"{one['kept'][str(level)]['subject']:.0%}" for level in RIVAL_LEVELS),
            )
        )
    titles = ("way", "points off (median, 90th percentile)", "ΔE00 off the blue tint")
    levels = [f"{level} %" for level in RIVAL_LEVELS]
    return table((*titles, *(f"CLIP score, {x}" for x in levels), *(f"subject, {x}" for x in levels)), lines)


def section(figures: Mapping[str, Any]) -> str:
    """The section of docs/results.md."""
    head = f"`python -m oms_app evaluate dials --prompts {figures['prompts']} --seeds {figures['seeds']}`"
    return f"""{HEADING}

{head}: prompts that say nothing of light × seeds, embedded model, defaults; brightness in percent of full scale:

{table(("measure", "measured", "target", "met"), rows(figures))}
The rank correlation is over all pictures; because each brightness is asked of many pictures, its greatest possible
value with nine levels is 0.994. The command does not measure cost or other members of the family yet;
`evaluate spread` measures the spread.
{BLIND_PAIRS} pairs for a blind
ranking: `evaluate dials --blind DIR`.

The same tasks by other ways, from the same noise; CLIP score and subjects against the free OMS run. A gain sets
the mean directly, because it is computed from the finished picture:

{rival_table(figures)}"""


def write(figures: Mapping[str, Any], studio: Studio, docs: Path) -> None:
    """Write the page with its sheets, and the section of results.md, to `docs`."""
    pictures = docs / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, variants in _sheets().items():
        with atomic_path(pictures / f"dial_{name}.jpg") as path:
            _sheet(studio, variants).save(path, "JPEG", quality=85)
    results = docs / "results.md"
    before = results.read_text(encoding="utf-8") if results.exists() else "# Results\n"
    atomic_write(results, with_section(before, section(figures)))
    atomic_write(docs / "dials.md", _page(figures))


def _sheets() -> dict[str, list[Variant]]:
    levels = [Variant(name=f"{x} percent", correction="dial", luminance=float(x)) for x in range(10, 100, 10)]
    coloured = [Variant(name=name, correction="dial", tint=tint) for name, tint in TINTS.items()]
    free = OMS.model_copy(update={"name": "free"})
    lit = [free, *(Variant(name=where, correction="dial", light=where) for where in LIGHTS)]
    return {"brightness": levels, "tints": coloured, "directions": lit}


def _small(picture: Image.Image) -> Image.Image:
    return picture.resize((SHEET_SIDE, SHEET_SIDE), Image.Resampling.LANCZOS)


def _sheet(studio: Studio, variants: list[Variant]) -> Image.Image:
    """A row for each prompt, with what was got below the name of each column's first picture."""
    sheet = []
    for seed, prompt in enumerate(SHEET_PROMPTS):
        images = studio.generate(GenerateRequest(prompt=prompt, variants=tuple(variants), seed=seed)).images
        sheet.append([_small(image.image) for image in images])
    return labelled(sheet, SHEET_PROMPTS, [variant.name for variant in variants])


def _page(figures: Mapping[str, Any]) -> str:
    levels = [(f"{x} %", f"{one['median']:.2f}", f"{one['p90']:.2f}") for x, one in figures["by_level"].items()]
    tints = [
        (name, TINTS[name], f"{one['median']:.1f}", f"{one['p90']:.1f}")
        for name, one in figures["tint"]["by_tint"].items()
    ]
    lit = [
        (where, f"{one['right']:.0%}", f"{one['median']:+.1f}", f"{one['free']:+.1f}", f"{one['kept']['subject']:.0%}")
        for where, one in figures["directions"]["by_direction"].items()
    ]
    return f"""# Asked and got

Written by `python -m oms_app evaluate dials`: {figures["prompts"]} prompts × {figures["seeds"]} seeds,
embedded model. Targets, and other ways to do the same, are in the [results](results.md#dials). Each row of a sheet has
one prompt and one seed.

## Mean brightness

![10 to 90 percent](pictures/dial_brightness.jpg)

Points between asked and got:

{table(("asked", "median", "90th percentile"), levels)}
## Tint

![Twelve tints](pictures/dial_tints.jpg)

ΔE00 between the picture's mean colour and the tint:

{table(("tint", "asked", "median", "90th percentile"), tints)}
## Direction of light

![Free, and six directions](pictures/dial_directions.jpg)

Difference of mean L* towards the light (half against half; for centre and vignette, the middle against the border):

{table(("light", "asked sign", "median", "free run", "subject kept"), lit)}
## Spread

One More Step gives all pictures of a prompt the same mean light. `--spread 1` gives them the variety of light that such
pictures had in the training data, from seed to seed: "mountains" are dark at times. 0 is One More Step, bit for bit;
values between reduce the variety. What is set by the other dials stays set. It needs an OMS module with a spread head,
as the embedded one has. Figures: [results](results.md#spread).
"""


def write_blind(studio: Studio, folder: Path, seed: int = 0) -> None:
    """Pairs for a blind ranking: a dial picture beside a gain in linear light on the free one, in random order.

    Half at 20 %, half at 80 %. key.json, in a folder of its own beside `folder`, says which is which.
    """
    rng, key = np.random.default_rng(seed), {}
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(BLIND_PAIRS):
        prompt, level = PROMPTS[i][0], RIVAL_LEVELS[i % 2]
        variants = (OMS, Variant(name="dial", correction="dial", luminance=float(level)))
        free, dial = studio.generate(GenerateRequest(prompt=prompt, variants=variants, seed=5_000 + i)).images
        pair = {"dial": dial.image, "gain": Image.fromarray(with_mean(np.asarray(free.image), 2.55 * level))}
        order = [str(name) for name in rng.permutation(list(pair))]
        tiled([pair[name] for name in order], 2, gap=12).save(folder / f"{i + 1:02}.png")
        key[f"{i + 1:02}"] = {"left": order[0], "right": order[1], "prompt": prompt, "percent": level}
    hidden = folder.with_name(folder.name + "-key")
    hidden.mkdir(parents=True, exist_ok=True)
    atomic_write(hidden / "key.json", json.dumps(key, indent=1) + "\n")
    questions = "\n".join(f"{n}: {one['prompt']}, left or right?" for n, one in key.items())
    atomic_write(folder / "questions.txt", questions + "\n")
