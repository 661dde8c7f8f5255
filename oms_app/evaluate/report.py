"""docs/results.md: every figure measured anew with the code and the weights as they stand. `evaluate report`

Parts that take long are kept in the user's folder as they finish, so a stopped report goes on where it was.
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
from oms_app.evaluate import fidelity, light_words, solid
from oms_app.evaluate import results_page as page
from oms_app.evaluate import scene_clip as clips
from oms_app.evaluate.luminance import folded, luminance
from oms_app.evaluate.pictures import Held, Seen, gather, state_key
from oms_app.evaluate.plots import log_frequencies
from oms_app.evaluate.quality import quality
from oms_app.measure.distances import bootstrap_interval
from oms_app.output.sheets import labelled
from oms_app.paths import SHIPPED
from oms_app.prestep.schedule import table1
from oms_app.schema import OMS, RAW, GenerateRequest, Variant, variant_of

METHODS = ("raw", "oms", "singdiffusion", "offset_noise", "signal_leak")
RESULTS = SHIPPED / "docs/results.md"
QUICK_RESULTS = SHIPPED / "docs/results-quick.md"


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
    """What was asked for on the command line."""
    usual = QUICK if extent.seeds == QUICK.seeds else FULL
    told = "evaluate report" + (" --quick" if usual is QUICK else "")
    return told if extent.captions == usual.captions else f"{told} --captions {extent.captions}"


class Parts:
    """Parts of a report by name, kept in one JSON file as each of them finishes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._done:
            self._done[name] = make()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(self._done), encoding="utf-8")
            part.replace(self._path)
        return json.loads(json.dumps(self._done[name]))  # the same, whether it was kept or is fresh


def write(
    studio: Studio,
    out: Path = RESULTS,
    *,
    extent: Extent = FULL,
    model: str = "lumen",
    methods: Sequence[str] = METHODS,
    held: Sequence[Held] | None = None,
    draw_scene: Callable[[int], NDArray[Any]] | None = None,
) -> Path:
    """Measure everything and write the page to `out`, its pictures to pictures/ beside it. Returns `out`.

    held, draw_scene: as for `gather`.
    """
    figures = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
    key = state_key(studio, "report", replace(extent, captions=0), figures)  # pictures of captions are kept elsewhere
    parts = Parts(studio.home / "evaluation" / key / "report.json")
    pictures = out.parent / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    variants = tuple(variant_of(name, {}) for name in methods)

    with tqdm(total=extent.captions + 9, desc="report", mininterval=5) as bar:

        def part(name: str, make: Callable[[], Any]) -> Any:
            bar.set_postfix_str(name)
            made = parts.get(name, make)
            bar.update()
            return made

        # Times first: nothing else has warmed or filled anything.
        pair = part("pair", lambda: pair_benchmark(studio, model=model, runs=extent.pair_runs))
        first = part("first page", lambda: [first_page.start_once() for _ in range(extent.first_pages)])
        solids = part("solid", lambda: {p: solid.measure(studio, p, extent.seeds) for p in solid.PROMPTS})
        prompts = light_words.PROMPTS[: extent.light_prompts]
        words = part("light words", lambda: light_words.measure(studio, prompts, extent.light_seeds))
        subjects = part("fidelity", lambda: fidelity.measure(studio, extent.fidelity))
        told = part("told", lambda: fidelity.told(extent.fidelity))
        bar.set_postfix_str("captions")
        clip, before = clips.load(), bar.n
        seen = gather(
            studio,
            model=model,
            captions=extent.captions,
            variants=variants,
            eye=clip.see,
            on_caption=lambda done, of: bar.update(before + done - bar.n),
            held=held,
            draw_scene=draw_scene,
            processes=(os.cpu_count() or 1) if studio.device.type == "cpu" else 1,
        )
        bar.set_postfix_str("light and quality")
        light = luminance(seen)
        good = quality(seen, clip.read)
        against_oms = {name: _light_against_oms(seen, name) for name in methods if name not in ("raw", "oms")}
        log_frequencies(seen, pictures / "means.png")
        bar.update()
        bar.set_postfix_str("sweeps")
        for name, sheet in sweeps(studio, model, extent.sweeps).items():
            sheet.save(pictures / f"{name}.png")
        bar.update()
        inspected = part("inspect", lambda: studio.inspect(model))

    sections = [
        page.head(command(extent), extent.captions, torch.__version__, os.cpu_count() or 1, str(studio.device)),
        page.light(solids, extent.seeds, words, light),
        page.words(subjects, told),
        page.methods(light, good, against_oms, clip_accuracy()),
        page.table2(model, light, good),
        page.sweeps(),
        page.times(pair, statistics.median(first), extent.pair_runs, extent.first_pages),
        page.flaw(inspected, [dict(row) for row in table1()]),
    ]
    out.write_text("\n".join(sections), encoding="utf-8")
    return out


def clip_accuracy() -> dict[str, Any]:
    """{"accuracy", "of", "n"} of the CLIP that pictures are judged with."""
    told: dict[str, Any] = json.loads((clips.FOLDER / "config.json").read_text(encoding="utf-8"))
    return told


def _light_against_oms(seen: Seen, name: str) -> dict[str, Any]:
    """W of a method less that of OMS, with its interval: below 0 the method is nearer to the scenes."""
    mine, oms, scenes = seen.means[name], seen.means["oms"], seen.scene_means

    def difference(i: NDArray[Any]) -> float:
        return folded(mine[i], scenes[i]) - folded(oms[i], scenes[i])

    return {
        "value": folded(mine, scenes) - folded(oms, scenes),
        "interval": bootstrap_interval(difference, len(scenes), resamples=500),
    }


SWEEP_PROMPTS = ("mountains", "a cat", "a red circle", "a forest")
SWEEP_CFG = (0.0, 1.0, 1.5, 2.0, 3.0)
SWEEP_LIGHTS = ("dark", "light", "at night", "at sunset", "blue", "red")
SWEEP_SIDE = 112  # pixels a picture


def sweeps(studio: Studio, model: str = "lumen", prompts: int = 4) -> dict[str, Image.Image]:
    """Grids of OMS CFG (OMS prompt "dark") and of modified OMS prompts (OMS paper, Fig. 7), raw first, a seed a row."""
    cfg: list[Variant] = [RAW]
    cfg += [OMS.model_copy(update={"name": f"CFG {w:g}", "prompt": "dark", "guidance_scale": w}) for w in SWEEP_CFG]
    lights: list[Variant] = [RAW, OMS.model_copy(update={"name": "its own"})]
    lights += [OMS.model_copy(update={"name": text, "prompt": text}) for text in SWEEP_LIGHTS]
    return {name: _sweep(studio, model, of, prompts) for name, of in (("sweep_cfg", cfg), ("sweep_prompts", lights))}


def _sweep(studio: Studio, model: str, variants: Sequence[Variant], prompts: int) -> Image.Image:
    rows, named = [], SWEEP_PROMPTS[:prompts]
    for seed, prompt in enumerate(named):
        request = GenerateRequest(prompt=prompt, model=model, variants=tuple(variants), seed=seed)
        small = partial(Image.Image.resize, size=(SWEEP_SIDE, SWEEP_SIDE), resample=Image.Resampling.LANCZOS)
        rows.append([small(image.image) for image in studio.generate(request).images])
    return labelled(rows, named, [variant.name for variant in variants])
