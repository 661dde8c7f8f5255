"""Does a spread of 1 give the light the variety of the data? Distances of brightness, over captions and in one prompt.

`evaluate spread` writes a section of docs/results.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.evaluate.luminance import luminance
from oms_app.evaluate.pictures import REFERENCES, CaptionEntry, DrawScene, EvalSamples, collect_samples
from oms_app.evaluate.results_page import met, table, with_interval, with_section
from oms_app.measure.distances import wasserstein
from oms_app.models.reading import read_json
from oms_app.paths import EMBEDDED, EMBEDDED_FOLDER, atomic_write
from oms_app.schema import OMS, RAW, Frozen, GenerateRequest, Variant

HEADING = "## Spread"
NEUTRAL_PROMPTS = EMBEDDED_FOLDER / "prompts.json"  # written by held_out.py
PROMPT_COUNT = 10
SCENES_PER_PROMPT = 64
SPREAD = Variant(name="spread", correction="dial", spread=1.0)
VARIANTS = (RAW, OMS, SPREAD)
BLACK, BLACK_SEEDS = "solid black background", 16


class PromptEntry(Frozen):
    """A prompt that says nothing of light, and seeds of scenes that have it as a caption."""

    caption: Annotated[str, Field(min_length=1)]
    scene_seeds: Annotated[tuple[int, ...], Field(min_length=REFERENCES)]


class PromptFile(Frozen):
    """The contents of prompts.json."""

    captions: Annotated[tuple[PromptEntry, ...], Field(min_length=1)]


def read_prompts(path: Path = NEUTRAL_PROMPTS) -> tuple[PromptEntry, ...]:
    """The prompts with their scenes. Raises StudioError if the file is missing or not valid."""
    try:
        return PromptFile.model_validate(read_json(path)).captions
    except ValueError as error:
        raise StudioError(f"the prompts at {path} cannot be read: restore that file") from error


def measure(
    studio: Studio,
    *,
    captions: int = 1_000,
    prompts: int = PROMPT_COUNT,
    seeds: int = SCENES_PER_PROMPT,
    processes: int = 1,
    model: str = EMBEDDED,
    on_caption: Callable[[int, int], None] | None = None,
    entries: tuple[CaptionEntry, ...] | None = None,
    prompt_entries: tuple[PromptEntry, ...] | None = None,
    draw_scene: DrawScene | None = None,
) -> dict[str, Any]:
    """Every figure, of raw, OMS and the dial with a spread of 1. Pictures are recorded, so a stopped run resumes.

    captions: held-out captions, one picture of each variant. prompts, seeds: pictures within one prompt. entries,
    prompt_entries, draw_scene: see `collect_samples`.
    """
    settings: dict[str, Any] = {"model": model, "variants": VARIANTS, "processes": processes, "draw_scene": draw_scene}
    over = collect_samples(studio, captions=captions, entries=entries, on_caption=on_caption, **settings)
    chosen = (read_prompts() if prompt_entries is None else prompt_entries)[:prompts]
    pictures = [_one(prompt, k) for prompt in chosen for k in range(seeds)]
    within = collect_samples(studio, captions=len(pictures), entries=pictures, on_caption=on_caption, **settings)
    request = GenerateRequest(prompt=BLACK, model=model, variants=(OMS, SPREAD), seed=0, count=BLACK_SEEDS)
    black: dict[str, list[float]] = {}
    for image in studio.generate(request).images:
        black.setdefault(image.variant, []).append(image.stats.mean)
    return {
        "captions": luminance(over),
        "prompts": {"seeds": seeds, **within_prompts(within)},
        "black": {name: {"average": float(np.mean(x)), "greatest": max(x)} for name, x in black.items()},
    }


def _one(prompt: PromptEntry, k: int) -> CaptionEntry:
    """The k-th picture of a prompt, with the next of its scenes in turn."""
    scenes, start = prompt.scene_seeds, k * REFERENCES
    chosen = tuple(scenes[(start + j) % len(scenes)] for j in range(REFERENCES))
    return CaptionEntry(caption=prompt.caption, scene_seeds=chosen)


def within_prompts(samples: EvalSamples) -> dict[str, Any]:
    """Of pictures of a few prompts, each with its scenes: distances within one prompt.

    wasserstein: the mean over the prompts of the distance of a prompt's pictures from its scenes. ratio: over raw's.
    mean_error: the mean over the prompts of |mean of the pictures - mean of the scenes|. deviation: the mean over the
    prompts of the standard deviation.
    """
    texts = np.array(samples.captions)
    by_prompt: dict[str, dict[str, Any]] = {}
    for prompt in dict.fromkeys(samples.captions):
        rows = np.flatnonzero(texts == prompt)
        scenes = np.unique(samples.scene_means[rows])
        means = {name: values[rows] for name, values in samples.means.items()}
        by_prompt[prompt] = {
            "wasserstein": {name: wasserstein(values, scenes) for name, values in means.items()},
            "mean_error": {name: abs(float(values.mean() - scenes.mean())) for name, values in means.items()},
            "deviation": {name: float(x.std(ddof=1)) for name, x in (means | {"scenes": scenes}).items()},
        }
    found = {
        figure: {name: float(np.mean([one[figure][name] for one in by_prompt.values()])) for name in names}
        for figure, names in next(iter(by_prompt.values())).items()
    }
    raw = found["wasserstein"]["raw"]
    ratio = {name: value / raw for name, value in found["wasserstein"].items() if name != "raw"}
    return {"n": len(by_prompt), **found, "ratio": ratio, "by_prompt": by_prompt}


Row = tuple[str, str, str, str]


def rows(figures: Mapping[str, Any]) -> list[Row]:
    """(measure, measured, target, met)."""
    over, within, black = figures["captions"], figures["prompts"], figures["black"]
    ratio, interval = over["ratio"], over["interval"]["ratio"]
    error, deviation = within["mean_error"], within["deviation"]
    reported = ", ".join(f"{name} {deviation[name]:.1f}" for name in ("scenes", "raw", "oms", "spread"))
    return [
        (
            f"{over['n']} captions: (W - floor)/(W_raw - floor)",
            f"{with_interval(ratio['spread'], interval['spread'])}; OMS {with_interval(ratio['oms'], interval['oms'])}",
            "≤ 0.15",
            met(ratio["spread"] <= 0.15),
        ),
        (
            f"within one prompt, {within['n']} prompts × {within['seeds']} seeds: W over raw's",
            f"{within['ratio']['spread']:.2f}; OMS {within['ratio']['oms']:.2f}",
            "≤ 0.35",
            met(within["ratio"]["spread"] <= 0.35),
        ),
        ("the same: standard deviation of the mean RGB, 0…255", reported, "", ""),
        (
            "the same: error of the prompt's mean, 0…255",
            f"{error['spread']:.1f}; OMS {error['oms']:.1f}, raw {error['raw']:.1f}",
            "",
            "",
        ),
        (
            f'"{BLACK}", {BLACK_SEEDS} seeds: mean RGB',
            f"average {black['spread']['average']:.1f}, greatest {black['spread']['greatest']:.1f}; "
            f"OMS {black['oms']['average']:.1f}, {black['oms']['greatest']:.1f}",
            "average ≤ 25",
            met(black["spread"]["average"] <= 25),
        ),
    ]


def section(figures: Mapping[str, Any]) -> str:
    """The section of docs/results.md."""
    over, within = figures["captions"], figures["prompts"]
    command = f"evaluate spread --captions {over['n']} --prompts {within['n']} --seeds {within['seeds']}"
    names = ("raw", "oms", "spread")
    distances = [
        (
            prompt,
            *(f"{one['wasserstein'][n]:.1f}" for n in names),
            *(f"{one['deviation'][n]:.1f}" for n in ("scenes", *names)),
        )
        for prompt, one in within["by_prompt"].items()
    ]
    titles = ("prompt", *(f"W, {n}" for n in names), *(f"deviation, {n}" for n in ("scenes", *names)))
    return f"""{HEADING}

`python -m oms_app {command}`: embedded model, defaults; "spread" is the
correction dial with `--spread 1` and nothing else set. W is the Wasserstein distance of the pictures' mean RGB, 0…255,
from that of the captions' scenes, as in `evaluate luminance`.

{table(("measure", "measured", "target", "met"), rows(figures))}
Within each prompt, of which {SCENES_PER_PROMPT} scenes are known:

{table(titles, distances)}"""


def write(figures: Mapping[str, Any], results: Path) -> None:
    """Put the section into the page `results`."""
    before = results.read_text(encoding="utf-8") if results.exists() else "# Results\n"
    atomic_write(results, with_section(before, section(figures)))
