"""Writes docs/results.md: every figure measured with the current code and weights. `evaluate report`

Parts that take long are stored in the user's folder as they finish, so that a stopped report resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from oms_app.bench import first_page
from oms_app.bench.pair import benchmark as pair_benchmark
from oms_app.engine.studio import Studio
from oms_app.evaluate import dial_page, fidelity, light_words, members, scene_clip, sharpness, solid, spread
from oms_app.evaluate import results_page as page
from oms_app.evaluate.luminance import fold_distance, luminance
from oms_app.evaluate.pictures import CaptionEntry, DrawScene, EvalSamples, collect_samples, state_key
from oms_app.evaluate.plots import plot_mean_frequencies
from oms_app.evaluate.quality import quality
from oms_app.measure.distances import bootstrap_interval
from oms_app.output.sheets import labelled
from oms_app.paths import EMBEDDED, SHIPPED, atomic_write
from oms_app.prestep.corrections import CORRECTIONS
from oms_app.prestep.schedule import table1
from oms_app.schema import OMS, RAW, GenerateRequest, Variant, variant_of

# In a checkout the page of the documentation; if the package is installed, a file in the current folder.
_DOCS = SHIPPED / "docs" if (SHIPPED / "docs").is_dir() else Path()
RESULTS = _DOCS / "results.md"
QUICK_RESULTS = _DOCS / "results-quick.md"
EXTRA_STEPS = 10  # of the progress bar, besides the captions: eight stored parts, figures, sweeps


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    captions: int = 1_000
    seeds: int = 8  # of solid black and white
    light_prompts: int = 20
    light_seeds: int = 4
    fidelity: int = 100
    pair_runs: int = 9
    first_pages: int = 5
    sweeps: int = 4  # prompts


FULL = Extent()
QUICK = Extent(captions=20, seeds=2, light_prompts=3, light_seeds=1, fidelity=6, pair_runs=1, first_pages=1, sweeps=2)


def command(extent: Extent) -> str:
    """The command that measures to this extent."""
    usual = QUICK if extent.seeds == QUICK.seeds else FULL
    text = "evaluate report" + (" --quick" if usual is QUICK else "")
    return text if extent.captions == usual.captions else f"{text} --captions {extent.captions}"


class PartStore:
    """Parts of a report by name, stored in one JSON file as each of them finishes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """The stored part, or what `measure` returns, as JSON gives it back (tuples are lists)."""
        if name not in self._parts:
            self._parts[name] = measure()
            atomic_write(self._path, json.dumps(self._parts))
        return json.loads(json.dumps(self._parts[name]))


def write(
    studio: Studio,
    out: Path = RESULTS,
    *,
    extent: Extent = FULL,
    model: str = EMBEDDED,
    methods: Sequence[str] | None = None,
    entries: Sequence[CaptionEntry] | None = None,
    draw_scene: DrawScene | None = None,
) -> Path:
    """Measure everything and write the page to `out`, its pictures to pictures/ beside it. Returns `out`.

    methods: corrections to compare, "raw" and "oms" among them; None for all that are registered. entries, draw_scene:
    see `collect_samples`.
    """
    methods = tuple(CORRECTIONS) if methods is None else methods
    code = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
    key = state_key(
        studio, {model}, "report", replace(extent, captions=0), code
    )  # pictures of captions have their own records
    store = PartStore(studio.home / "evaluation" / key / "report.json")
    pictures = out.parent / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    with tqdm(total=extent.captions + EXTRA_STEPS, desc="report", mininterval=5) as bar:
        parts = _measure_parts(studio, store, extent, model, bar)
        bar.set_postfix_str("captions")
        clip, before = scene_clip.load(), bar.n
        samples = collect_samples(
            studio,
            model=model,
            captions=extent.captions,
            variants=tuple(variant_of(name, {}) for name in methods),
            feature_extractor=clip.encode_images,
            on_caption=lambda done, total: bar.update(before + done - bar.n),
            entries=entries,
            draw_scene=draw_scene,
            processes=(os.cpu_count() or 1) if studio.device.type == "cpu" else 1,
        )
        bar.set_postfix_str("luminance and quality")
        light = luminance(samples)
        quality_figures = quality(samples, clip.encode_texts)
        plot_mean_frequencies(samples, pictures / "means.png")
        bar.update()
        bar.set_postfix_str("sweeps")
        for name, sheet in sweeps(studio, model, extent.sweeps).items():
            sheet.save(pictures / f"{name}.png")
        bar.update()

    against_oms = {name: _light_minus_oms(samples, name) for name in methods if name not in ("raw", "oms")}
    sections = [
        page.head(command(extent), extent.captions, torch.__version__, os.cpu_count() or 1, str(studio.device)),
        page.light(parts["solid"], extent.seeds, parts["light words"], light),
        page.words(parts["fidelity"], parts["predictions"]),
        page.sharpness(parts["sharpness"], (sharpness.LEAST, sharpness.MOST)),
        page.methods(light, quality_figures, against_oms, clip_accuracy()),
        page.table2(model, light, quality_figures),
        page.sweeps(),
        page.times(parts["pair"], statistics.median(parts["first page"]), extent.pair_runs, extent.first_pages),
        page.flaw(parts["inspect"], [dict(row) for row in table1()]),
    ]
    if out.exists():  # of other commands
        before = out.read_text(encoding="utf-8")
        kept = (page.section_of(before, heading) for heading in (members.HEADING, dial_page.HEADING, spread.HEADING))
        sections.extend(filter(None, kept))
    atomic_write(out, "\n".join(sections))
    return out


def _measure_parts(studio: Studio, store: PartStore, extent: Extent, model: str, bar: Any) -> dict[str, Any]:
    """The parts that are stored, by name. Times come first, while no other part has filled a cache."""
    prompts = light_words.PROMPTS[: extent.light_prompts]
    measures: dict[str, Callable[[], Any]] = {
        "pair": lambda: pair_benchmark(studio, model=model, runs=extent.pair_runs),
        "first page": lambda: [first_page.start_once() for _ in range(extent.first_pages)],
        "solid": lambda: {prompt: solid.measure(studio, prompt, extent.seeds) for prompt in solid.PROMPTS},
        "light words": lambda: light_words.measure(studio, prompts, extent.light_seeds),
        "fidelity": lambda: fidelity.measure(studio, extent.fidelity),
        "sharpness": lambda: sharpness.measure(studio, extent.fidelity),
        "predictions": lambda: fidelity.measure_predictions(extent.fidelity),
        "inspect": lambda: studio.inspect(model),
    }
    parts = {}
    for name, measure in measures.items():
        bar.set_postfix_str(name)
        parts[name] = store.get(name, measure)
        bar.update()
    return parts


def clip_accuracy() -> dict[str, Any]:
    """{"accuracy", "of", "n"} of the CLIP of scenes, with its architecture."""
    settings: dict[str, Any] = json.loads((scene_clip.FOLDER / "config.json").read_text(encoding="utf-8"))
    return settings


def _light_minus_oms(samples: EvalSamples, name: str) -> dict[str, Any]:
    """W of a method minus W of OMS, with its interval: below 0 the method is closer to the scenes."""
    method, oms, scenes = samples.means[name], samples.means["oms"], samples.scene_means

    def difference(i: NDArray[Any]) -> float:
        return fold_distance(method[i], scenes[i]) - fold_distance(oms[i], scenes[i])

    return {
        "value": fold_distance(method, scenes) - fold_distance(oms, scenes),
        "interval": bootstrap_interval(difference, len(scenes), resamples=500),
    }


SWEEP_PROMPTS = ("mountains", "a cat", "a red circle", "a forest")
SWEEP_CFG = (0.0, 1.0, 1.5, 2.0, 3.0)
SWEEP_LIGHTS = ("dark", "light", "at night", "at sunset", "blue", "red")
SWEEP_SIDE = 112  # pixels per side of a picture


def sweeps(studio: Studio, model: str = EMBEDDED, prompts: int = 4) -> dict[str, Image.Image]:
    """Grids of OMS CFG (OMS prompt "dark") and of OMS prompts (OMS paper, Fig. 7), raw first.

    Each row has one prompt and one seed.
    """
    cfg: list[Variant] = [RAW]
    cfg += [OMS.model_copy(update={"name": f"CFG {w:g}", "prompt": "dark", "guidance_scale": w}) for w in SWEEP_CFG]
    lights: list[Variant] = [RAW, OMS.model_copy(update={"name": "main prompt"})]
    lights += [OMS.model_copy(update={"name": text, "prompt": text}) for text in SWEEP_LIGHTS]
    return {name: _sweep(studio, model, of, prompts) for name, of in (("sweep_cfg", cfg), ("sweep_prompts", lights))}


def _sweep(studio: Studio, model: str, variants: Sequence[Variant], count: int) -> Image.Image:
    rows, prompts = [], SWEEP_PROMPTS[:count]
    small = partial(Image.Image.resize, size=(SWEEP_SIDE, SWEEP_SIDE), resample=Image.Resampling.LANCZOS)
    for seed, prompt in enumerate(prompts):
        request = GenerateRequest(prompt=prompt, model=model, variants=tuple(variants), seed=seed)
        rows.append([small(image.image) for image in studio.generate(request).images])
    return labelled(rows, prompts, [variant.name for variant in variants])
