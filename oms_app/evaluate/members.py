"""Does One More Step serve every model of Lumen's family? Its table in docs/results.md.

`evaluate family`: every base that is stored as a LoRA on Lumen, and Lumen with the style LoRA, all with Lumen's own OMS
module: brightness against scenes, solid black and white, subjects, seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oms_app.engine.studio import Studio
from oms_app.evaluate import fidelity, solid
from oms_app.evaluate.luminance import luminance, ratio_to_raw
from oms_app.evaluate.pictures import EvalSamples, collect_samples
from oms_app.evaluate.results_page import met, table, with_section
from oms_app.paths import EMBEDDED, atomic_write
from oms_app.schema import OMS, RAW, GenerateRequest, Lora
from oms_app.training.lumen.family import woodcut
from oms_app.training.scenes.painter import draw

HEADING = "## The family"
STYLE, STYLE_SCALE = "lumen-woodcut", 0.75
FAST = "lumen-lcm"
PROMPT, RUNS = "mountains at night", 5
LUMEN_RATIO, RATIO, BLACK, WHITE, SUBJECTS, SECONDS = 0.35, 0.40, 15.0, 240.0, 0.85, 0.35  # targets
TITLES = (
    *("model", "W raw", "W OMS", "ratio", "raw over Lumen's raw", "black", "white", "subjects, raw", "subjects, OMS"),
    *("seconds of a pair", "met"),
)


@dataclass(frozen=True)
class Member:
    """A model of the family. draw_scene: its scenes by seed, (256, 256, 3) uint8; None takes Lumen's."""

    name: str
    model: str = EMBEDDED
    loras: tuple[Lora, ...] = ()
    draw_scene: Callable[[int], NDArray[np.uint8]] | None = None


def members(studio: Studio) -> list[Member]:
    """Lumen, the bases on this machine that adapt it, and Lumen with the style."""
    entries = studio.catalog.entries.values()
    found = [Member(EMBEDDED)]
    found += [Member(one.id, one.id) for one in entries if one.adapts == EMBEDDED and studio.catalog.available(one)]
    style = studio.catalog.entries.get(STYLE)
    if style and studio.catalog.available(style):
        found.append(Member(f"lumen + {STYLE}", EMBEDDED, (Lora(id=STYLE, scale=STYLE_SCALE),), draw_print))
    return found


def draw_print(seed: int) -> NDArray[np.uint8]:
    """A scene as a woodcut: what the style was trained on."""
    return woodcut(draw(seed).image)


def measure(
    studio: Studio,
    *,
    captions: int = 200,
    subjects: int = 50,
    processes: int = 1,
    on_caption: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Figures by member. `raw_to_lumen` is (W - floor)/(W of Lumen's raw - floor) of the member's raw pictures.

    subjects: prompts of each kind for the subject classifier. A base without a leak has no OMS figures: it needs none.
    """
    found = members(studio)
    seconds = pair_seconds(studio, found)
    figures: dict[str, Any] = {}
    lumen: EvalSamples | None = None
    for one in found:
        leak = studio.inspect(one.model)["terminal_snr"] > 0
        variants = (RAW, OMS) if leak else (RAW,)
        samples = collect_samples(
            studio, model=one.model, captions=captions, variants=variants, loras=one.loras, draw_scene=one.draw_scene,
            processes=processes, on_caption=on_caption,
        )  # fmt: skip
        lumen = lumen or samples
        light = luminance(samples)
        comparable = one.draw_scene is None
        figures[one.name] = {
            "wasserstein": light["wasserstein"],
            "floor": light["floor"],
            "ratio": light["ratio"].get("oms"),
            "raw_to_lumen": ratio_to_raw(samples.means["raw"], lumen.means["raw"], lumen.scene_means)
            if comparable
            else None,
            "solid": {
                prompt: solid.measure(studio, prompt, model=one.model, loras=one.loras, leak=leak)
                for prompt in solid.PROMPTS
            },
            "right": fidelity.measure(studio, subjects, one.model, variants)["right"] if comparable else {},
            "seconds": seconds[one.name],
        }
    return {"n": captions, "subjects": subjects, "members": figures}


def pair_seconds(studio: Studio, found: Sequence[Member], runs: int = RUNS) -> dict[str, float]:
    """Median seconds of a raw and OMS pair (raw alone without a leak), from encoding to decoding, models loaded and
    all other caches empty. The members take turns."""
    taken: dict[str, list[float]] = {one.name: [] for one in found}
    for run in range(-1, runs):  # the first is a warm-up
        for one in found:
            studio.forget()
            began = time.perf_counter()
            studio.generate(GenerateRequest(prompt=PROMPT, model=one.model, loras=one.loras, seed=run + 1))
            if run >= 0:
                taken[one.name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table's rows; the last column says which targets a member misses."""
    lumen = figures["members"][EMBEDDED]
    made = []
    for name, of in figures["members"].items():
        black, white = (of["solid"][prompt].get("oms CFG 2") for prompt in solid.PROMPTS)
        right = {
            kind: [of["right"].get(f"{what} subject, {kind}") for what in ("shape or figure", "scene")]
            for kind in ("raw", "oms")
        }
        share = of["seconds"] / lumen["seconds"]
        checks = {
            "ratio": of["ratio"] is None or of["ratio"] <= (LUMEN_RATIO if name == EMBEDDED else RATIO),
            "black": black is None or black["average"] <= BLACK,
            "white": white is None or white["average"] >= WHITE,
            "subjects": name != FAST or min(right["oms"]) >= SUBJECTS,
            "seconds": name != FAST or share <= SECONDS,
        }
        missed = [what for what, kept in checks.items() if not kept]
        made.append(
            (
                name,
                f"{of['wasserstein']['raw']:.1f}",
                _number(of["wasserstein"].get("oms"), ".1f"),
                _number(of["ratio"], ".2f"),
                _number(of["raw_to_lumen"], ".2f"),
                _number(black and black["average"], ".1f"),
                _number(white and white["average"], ".1f"),
                *(" / ".join(f"{one:.0%}" for one in right[kind] if one is not None) for kind in ("raw", "oms")),
                f"{of['seconds']:.2f} ({share:.2f} ×)",
                met(False) + ": " + ", ".join(missed) if missed else met(True),
            )
        )
    return made


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def write(figures: Mapping[str, Any], target: Path) -> None:
    """Put the section into a page of results."""
    n, of = figures["n"], figures["subjects"]
    text = f"""{HEADING}

`python -m oms_app evaluate family --captions {n} --subjects {of}`, each model
with its own defaults, all with Lumen's OMS module:

- W: Wasserstein distance of the pictures' brightness from that of the scenes of {n} captions; for the style, at
  a scale of {STYLE_SCALE}, from that of woodcuts of these scenes.
- Ratio: (W OMS - floor)/(W raw - floor), target ≤ {LUMEN_RATIO:.2f} for lumen, ≤ {RATIO:.2f} for the others.
- Raw over Lumen's raw: the share of Lumen's distance that the model's own remedy leaves, without OMS.
- Black, white: mean of solid backgrounds at OMS CFG 2, targets ≤ {BLACK:.0f} and ≥ {WHITE:.0f}.
- Subjects: shapes and figures / landscapes that the classifier recognises, target for {FAST} ≥ {SUBJECTS:.0%}.
- Seconds of a pair, beside those of Lumen's pair: target for {FAST} ≤ {SECONDS:.2f} ×.

A base that starts from pure noise has no OMS:

"""
    page = target.read_text(encoding="utf-8") if target.exists() else ""
    atomic_write(target, with_section(page, text + table(TITLES, rows(figures))))
