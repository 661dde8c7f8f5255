"""What `evaluate dials` writes: docs/dials.json, from it a section of docs/results.md, docs/dials.md, its sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.evaluate.dial_table import rows
from oms_app.evaluate.dials import FREE, RIVAL_LEVELS, TINTS
from oms_app.evaluate.results_page import table, with_interval, with_section
from oms_app.light import LIGHTS
from oms_app.output.sheets import labelled
from oms_app.paths import EMBEDDED, atomic_path, atomic_write
from oms_app.schema import GenerateRequest, Variant

HEADING = "## Dials"
SHEET_PROMPTS = ("mountains", "a cat", "a city")
SHEET_SIDE = 112  # pixels per side of a picture
FIGURES = "dials.json"  # model → figures of its last run
NAMES = {
    "luminance": "dial",
    "gain": "gain in linear light on the free picture",
    "offset": "offset noise, the best constant",
    "signal_leak": "signal leak",
    "recentre": "recentring after each step",
    "words": "words in the prompt",
}


def command(figures: Mapping[str, Any]) -> str:
    """The command that measures these figures."""
    model = "" if figures["model"] == EMBEDDED else f" --model {figures['model']}"
    fewer = " --no-rivals" if figures["model"] == EMBEDDED and "offset" not in figures["rivals"] else ""
    return f"python -m oms_app evaluate dials{model} --prompts {figures['prompts']} --seeds {figures['seeds']}{fewer}"


def rival_table(figures: Mapping[str, Any]) -> str:
    """Error, tint, CLIP score and subjects of every way, at the same brightness and tint."""
    lines = []
    for name, one in figures["rivals"].items():
        error, tint, kept = one["brightness"], one["tint"], one["kept"]
        lines.append(
            (
                NAMES[name],
                f"{error['median']:.1f}, {error['p90']:.1f}",
                f"{tint['median']:.1f}, {tint['p90']:.1f}",
                *(with_interval(kept[what]["clip"], kept[what]["clip_interval"]) for what in kept),
                *(f"{kept[what]['subject']:.0%}" for what in kept),
            )
        )
    titles = ("way", "points off (median, 90th percentile)", "ΔE00 off the blue tint")
    asked = [*(f"{level} %" for level in RIVAL_LEVELS), "blue"]
    return table((*titles, *(f"CLIP score, {x}" for x in asked), *(f"subject, {x}" for x in asked)), lines)


def section(stored: Mapping[str, Mapping[str, Any]]) -> str:
    """The section of docs/results.md, from the contents of docs/dials.json."""
    parts = [HEADING + "\n"]
    if EMBEDDED in stored:
        parts.append(_embedded(stored[EMBEDDED]))
    for model, figures in sorted(stored.items()):
        if model != EMBEDDED:
            parts.append(
                f"### The dials of {model}\n\n`{command(figures)}`; the free run is "
                f"{FREE_RUNS[figures['free']]}:\n\n{table(TITLES, rows(figures))}"
            )
    return "\n".join(parts)


TITLES = ("measure", "measured", "target", "met")
FREE_RUNS = {"oms": "One More Step", "raw": "the base alone"}


def _embedded(figures: Mapping[str, Any]) -> str:
    pictures = figures["rivals"]["luminance"]["tint"]["n"]
    others = f"""
The same tasks by other ways, from the same noise, {pictures} pictures each; CLIP score (with its interval) and subjects
against the free OMS run. A gain sets the mean directly, because it is computed from the finished picture:

{rival_table(figures)}"""
    return f"""`{command(figures)}`: prompts that say nothing of light × seeds,
embedded model, defaults; brightness in percent of full scale; intervals at 95 %, from resampled prompts. The figures
are in [dials.json](dials.json).

{table(TITLES, rows(figures))}
The rank correlation is over all pictures; because each brightness is asked of many pictures, its greatest possible
value with nine levels is 0.994.
{others if figures["judged"] else ""}"""


def write(figures: Mapping[str, Any], studio: Studio, docs: Path) -> None:
    """Store the figures in `docs`, and write its section of results.md; of the embedded model also the page."""
    update(figures, docs)
    if figures["model"] == EMBEDDED:
        pictures = docs / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        for name, variants in _sheets().items():
            with atomic_path(pictures / f"dial_{name}.jpg") as path:
                _sheet(studio, variants).save(path, "JPEG", quality=85)
        atomic_write(docs / "dials.md", _page(figures))


def update(figures: Mapping[str, Any], docs: Path) -> None:
    """Store these figures of their model, besides those that they do not name, and write the section anew."""
    path, results = docs / FIGURES, docs / "results.md"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stored[figures["model"]] = stored.get(figures["model"], {}) | figures
    atomic_write(path, json.dumps(stored, indent=1) + "\n")
    before = results.read_text(encoding="utf-8") if results.exists() else "# Results\n"
    atomic_write(results, with_section(before, section(stored)))


def add_ranking(ranking: Mapping[str, Any], docs: Path) -> None:
    """Add the row of a blind ranking (`dial_blind.score`) to a model's figures. Raises StudioError if there are none,
    or those of other weights.
    """
    path = docs / FIGURES
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    figures = stored.get(ranking["model"])
    if figures is None or figures["weights"] != ranking["weights"]:
        raise StudioError(
            f"{path} has no figures of {ranking['model']!r} with the weights that made the pairs: run evaluate dials; "
            "if the weights changed since, make the pairs anew"
        )
    update({**figures, "blind": ranking}, docs)


def _sheets() -> dict[str, list[Variant]]:
    levels = [Variant(name=f"{x} percent", correction="dial", luminance=float(x)) for x in range(10, 100, 10)]
    coloured = [Variant(name=name, correction="dial", tint=tint) for name, tint in TINTS.items()]
    lit = [FREE, *(Variant(name=where, correction="dial", light=where) for where in LIGHTS)]
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
