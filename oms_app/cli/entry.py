"""The command line: `python -m oms_app …`.

Every command takes --json: one JSON object on stdout, nothing else there; logs go to stderr. It ends with 0, with 2 and
one clear line on stderr for bad input, with 130 where Ctrl+C stopped it. torch is loaded once the input is sound.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from oms_app.errors import StudioError, describe
from oms_app.paths import user_folder
from oms_app.prestep.corrections import CORRECTIONS
from oms_app.schema import GenerateRequest, Lora, Progress, Variant, variant_of

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="OMS Studio")
evaluate_app = typer.Typer(no_args_is_help=True, help="Measure models and corrections against reference scenes.")
train_app = typer.Typer(no_args_is_help=True, help="Train the embedded models from nothing, or further.")
bench_app = typer.Typer(no_args_is_help=True, help="Time the engine against the stock pipeline.")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(train_app, name="train")
app.add_typer(bench_app, name="bench")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else there.")]
Model = Annotated[str, typer.Option("--model", help="A catalogue id, a diffusers folder, or a .safetensors file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, float32, float16 or bfloat16.")]
MemoryOption = Annotated[
    str, typer.Option("--memory", help="auto, full, model_offload or group_offload: where a model's parts wait.")
]
Variants = Annotated[str, typer.Option("--variants", help="Of " + ", ".join(CORRECTIONS) + ", with commas between.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"  # read when diffusers is imported
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="oms_app", standalone_mode=False)
    except TyperException as error:  # unknown option, missing prompt, text where a number belongs …
        return _complain(error.format_message() or "no command was given", "--help shows what there is")
    except typer.Abort:
        return _complain("stopped", code=130)
    except StudioError as error:
        return _complain(str(error))
    except ValidationError as error:
        return _complain(describe(error))
    if code == 130:
        return _complain("stopped", code=130)
    return code if isinstance(code, int) else 0


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    model: Model = "lumen",
    variants: Variants = "raw,oms",
    oms_prompt: Annotated[str | None, typer.Option(help='Absent: the main prompt. "": the unconditional one.')] = None,
    oms_guidance_scale: Annotated[float, typer.Option(help="OMS CFG, 0 to 30.")] = 1.0,
    oms_prompt_b: Annotated[str | None, typer.Option(help="The other end of the OMS prompt slider.")] = None,
    oms_mix: Annotated[float, typer.Option(help="(1-S) of the OMS prompt and S of --oms-prompt-b.")] = 0.0,
    oms_module: Annotated[str | None, typer.Option(help="A catalogue id, or a folder; else the base's own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Use a module of another latent domain.")] = False,
    offset_strength: Annotated[float, typer.Option(help="Of offset_noise, 0 to 2.")] = 0.1,
    offset_per: Annotated[
        str, typer.Option(help="Of offset_noise: one value for each channel, or picture.")
    ] = "channel",
    negative_prompt: Annotated[str, typer.Option(help="What to keep away from; needs a CFG above 1.")] = "",
    guidance_scale: Annotated[float | None, typer.Option(help="CFG, 0 to 30.")] = None,
    guidance_rescale: Annotated[float | None, typer.Option(help="0 to 1, for zero-SNR models; 0.7 is usual.")] = None,
    steps: Annotated[int | None, typer.Option(help="1 to 200.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="ddim, pndm, dpm++2m, unipc, lcm, euler, euler-a, heun.")
    ] = None,
    lora: Annotated[list[str] | None, typer.Option(help="A .safetensors file, or FILE:SCALE; may be repeated.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    memory: MemoryOption = "auto",
    seed: Annotated[int | None, typer.Option(help="Absent: drawn, and reported.")] = None,
    count: Annotated[int, typer.Option(help="Pictures of each variant; image i has seed + i.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the PNGs; else pictures/ in the user's folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Pictures of every variant from one noise."""
    settings = {
        "offset_strength": offset_strength,
        "offset_per": offset_per,
        "prompt": oms_prompt,
        "prompt_b": oms_prompt_b,
        "mix": oms_mix,
        "guidance_scale": oms_guidance_scale,
        "module": oms_module,
        "force": force,
    }
    request = GenerateRequest.model_validate(
        {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "model": model,
            "variants": parse_variants(variants, settings),
            "loras": [parse_lora(text) for text in lora or ()],
            "seed": seed,
            "count": count,
            "num_inference_steps": steps,
            "guidance_scale": guidance_scale,
            "guidance_rescale": guidance_rescale,
            "scheduler": scheduler,
            "width": width,
            "height": height,
        }
    )
    folder = out or user_folder() / "pictures"
    if folder.exists() and not folder.is_dir():
        raise StudioError(f"--out {folder} is a file: name a folder")
    with _working() as bar, _studio(device, precision=precision, memory=memory) as studio:
        from oms_app.output import png as gallery

        result = gallery.save(studio.generate(request, on_progress=bar), folder)
    images = [
        {
            "variant": image.variant,
            "index": image.index,
            "seed": image.seed,
            "path": str(image.path),
            "mean": image.stats.mean,
            "lightness": image.stats.lightness,
        }
        for image in result.images
    ]
    answer = {
        "seed": result.seed,
        "model": result.request.model,
        "images": images,
        "seconds": result.seconds.model_dump(),
        "notes": list(result.notes),
    }
    lines = [
        f"{i['variant']:>12}  seed {i['seed']}  mean {i['mean']:.1f}  L* {i['lightness']:.1f}  {i['path']}"
        for i in images
    ]
    _answer(answer, as_json, [*lines, *result.notes, f"{result.seconds.total:.1f} s"])


@app.command()
def inspect(
    model: Model = "lumen",
    table: Annotated[bool, typer.Option("--table", help="Table 1 of the OMS paper, in closed form.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """A model's schedule: its leak at T and at the first timestep, radii, latent domain, OMS modules."""
    if table:
        from oms_app.prestep.schedule import table1

        rows = [dict(row) for row in table1()]
        lines = [f"{'schedule':<14}{'SNR(T)':>12}{'r_S - r_T':>14}"]
        lines += [f"{r['schedule']:<14}{r['snr']:>12.3e}{r['radius_gap']:>14.4e}" for r in rows]
        _answer({"rows": rows}, as_json, lines)
        return
    with _working(), _studio(device) as studio:
        figures = studio.inspect(model)
    _answer(figures, as_json, [f"{name}: {value}" for name, value in figures.items()])


@app.command()
def models(as_json: AsJson = False) -> None:
    """The catalogue, and what of it is on this machine."""
    with _working(), _studio("cpu") as studio:
        infos = studio.models()
    lines = [
        f"{i.id:<16}{i.kind:<6}{'here' if i.available else 'absent':<8}{i.domain or '?':<10}{i.licence:<14}{i.title}"
        for i in infos
    ]
    _answer({"models": [info.model_dump(mode="json") for info in infos]}, as_json, lines)


@app.command()
def download(
    model: Annotated[str, typer.Argument(help="An id of the catalogue: `models` lists them.")],
    as_json: AsJson = False,
) -> None:
    """Fetch a model from the Hugging Face hub; a stopped download goes on."""
    with _working():
        from oms_app.models.catalog import open_catalog
        from oms_app.models.hub import fetch

        catalog = open_catalog()
        entry = catalog.entries.get(model)
        if entry is None:
            raise StudioError(f"unknown model {model!r}: choose one of {', '.join(catalog.entries)}")
        done = fetch(entry, catalog.folder(entry))
    _answer({"id": entry.id, "folder": str(done)}, as_json, [f"fetched to {done}"])


@app.command()
def doctor(
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    memory: MemoryOption = "auto",
    as_json: AsJson = False,
) -> None:
    """What this machine has, and whether everything needed is there."""
    from oms_app.cli import doctor as doctoring

    with _working(), _studio(device, precision=precision, memory=memory) as studio:
        report = doctoring.examine(studio)
    _answer(report, as_json, [f"{name}: {value}" for name, value in report.items()])


Captions = Annotated[int, typer.Option(min=2, max=1_000, help="How many held-out captions.")]
Draw = Annotated[int, typer.Option(min=0, max=2**31, help="Draws the captions and the noise.")]
Processes = Annotated[
    int, typer.Option(min=1, max=64, help="That share the captions, each with the model and one CPU thread of its own.")
]


@evaluate_app.command()
def luminance(
    model: Model = "lumen",
    captions: Captions = 200,
    variants: Variants = "raw,oms",
    seed: Draw = 0,
    processes: Processes = 1,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """How far the pictures' brightness lies from that of reference scenes (1-D Wasserstein distance)."""
    chosen = parse_variants(variants, {})
    with _working() as bar, _studio(device) as studio:
        from oms_app.evaluate.luminance import luminance as measure
        from oms_app.evaluate.pictures import gather

        seen = gather(
            studio,
            model=model,
            captions=captions,
            variants=chosen,
            seed=seed,
            on_caption=bar.count,
            processes=processes,
        )
        report = measure(seen)
    _answer(report, as_json, [f"{name}: {value}" for name, value in report.items()])


@evaluate_app.command()
def quality(
    model: Model = "lumen",
    captions: Annotated[int, typer.Option(min=14, max=1_000, help="How many held-out captions.")] = 200,
    variants: Variants = "raw,oms",
    seed: Draw = 0,
    plot: Annotated[Path | None, typer.Option(help="A PNG of how often which mean comes (the paper's Fig. 6).")] = None,
    processes: Processes = 1,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """FID, precision, recall, density, coverage and CLIP score against reference scenes, by a small CLIP of scenes."""
    chosen = parse_variants(variants, {})
    with _working() as bar, _studio(device) as studio:
        from oms_app.evaluate import scene_clip as clips
        from oms_app.evaluate.pictures import gather
        from oms_app.evaluate.quality import quality as measure

        clip = clips.load()
        seen = gather(
            studio,
            model=model,
            captions=captions,
            variants=chosen,
            seed=seed,
            eye=clip.see,
            on_caption=bar.count,
            processes=processes,
        )
        report = measure(seen, clip.read)
        if plot is not None:
            from oms_app.evaluate.plots import log_frequencies

            log_frequencies(seen, plot)
    lines = [
        f"{name:<16}" + "  ".join(f"{measure} {figure['value']:.3f}" for measure, figure in figures.items())
        for name, figures in report["figures"].items()
    ]
    _answer(report, as_json, lines)


@evaluate_app.command()
def report(
    out: Annotated[Path | None, typer.Option(help="The page to write; else docs/results.md.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few of everything, in minutes, to docs/results-quick.md.")
    ] = False,
    captions: Annotated[
        int | None, typer.Option(min=14, max=1_000, help="How many held-out captions; 1,000, with --quick 20.")
    ] = None,
    model: Model = "lumen",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Every figure of docs/results.md, measured anew; a stopped report goes on where it was."""
    with _working(), _studio(device) as studio:
        from oms_app.evaluate import report as reporting

        target = out or (reporting.QUICK_RESULTS if quick else reporting.RESULTS)
        extent = reporting.QUICK if quick else reporting.FULL
        if captions is not None:
            extent = replace(extent, captions=captions)
        done = reporting.write(studio, target, extent=extent, model=model)
    _answer({"out": str(done)}, as_json, [f"written to {done}"])


@bench_app.command()
def pair(
    model: Model = "lumen",
    runs: Annotated[int, typer.Option(min=1, max=99, help="Interleaved runs, of which the median counts.")] = 9,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """A raw and OMS pair against two stock pipeline calls, and the OMS step's share of a raw run."""
    with _working(), _studio(device) as studio:
        from oms_app.bench.pair import benchmark

        report = benchmark(studio, model=model, runs=runs)
    _answer(report, as_json, [f"{name}: {value}" for name, value in report.items()])


@bench_app.command()
def switch(
    model: Model = "lumen",
    runs: Annotated[int, typer.Option(min=1, max=99, help="Switches in each direction.")] = 9,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Seconds lost when a request changes to another base that is cached."""
    with _working(), _studio(device) as studio:
        from oms_app.bench.switch import benchmark

        report = benchmark(studio, model=model, runs=runs)
    _answer(report, as_json, [f"{name}: {value}" for name, value in report.items()])


@bench_app.command("memory")
def bench_memory(
    model: Model = "lumen",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Bytes that SD 1.5 and SDXL need in each memory mode, by shapes; and the pair's over raw alone."""
    with _working(), _studio(device) as studio:
        from oms_app.bench.memory import benchmark, table

        report = benchmark(studio, model=model)
    _answer(report, as_json, table(report))


def parse_variants(text: str, settings: dict[str, Any]) -> tuple[Variant, ...]:
    """`raw,oms` → variants so named, each with those of the `settings` that it reads.

    Raises ValidationError for an unknown name or a setting out of range, also where no variant reads it: an option in
    error is never passed over in silence.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise StudioError(f"--variants is empty: take some of {', '.join(CORRECTIONS)}")

    for correction in ("oms", "offset_noise"):  # between them they read every setting
        variant_of(correction, settings)
    return tuple(variant_of(name, settings) for name in names)


def parse_lora(text: str) -> Lora:
    """`ID` or `ID:SCALE`. Raises StudioError where the scale is no number."""
    name, colon, scale = text.rpartition(":")
    if not colon:
        return Lora.model_validate({"id": text})
    try:
        return Lora.model_validate({"id": name, "scale": float(scale)})
    except ValueError as error:
        raise StudioError(f"--lora is {text!r}: write ID or ID:SCALE, with a scale of -4 to 4") from error


class _Bar:
    """One line of progress on stderr, where a person looks at it; nothing where it goes into a file."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
        self._show(f"{progress.stage}{steps}")

    def count(self, done: int, of: int) -> None:
        if self._shown:
            self._show(f"caption {done} of {of}")
        elif done % 20 == 0 or done == of:
            print(f"caption {done} of {of}", file=sys.stderr, flush=True)

    def _show(self, text: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._show("")


@contextlib.contextmanager
def _working() -> Iterator[_Bar]:
    """While a command works, whatever a library prints goes to stderr, so that stdout holds the answer alone.

    Our own log goes there too: what training has to say of its results.
    """
    bar = _Bar()
    handler, ours = logging.StreamHandler(sys.stderr), logging.getLogger("oms_app")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield bar
        finally:
            bar.close()
            ours.removeHandler(handler)


@contextlib.contextmanager
def _studio(device: str, **settings: Any) -> Iterator[Studio]:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from oms_app.engine.studio import Studio

    for library in (diffusers_logging, transformers_logging):  # an error is one line, not a line among bars
        library.set_verbosity_error()
        library.disable_progress_bar()
    yield Studio(device=device, **settings)


def _answer(answer: dict[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    print(json.dumps(answer, allow_nan=False) if as_json else "\n".join(lines), flush=True)


def _complain(message: str, remedy: str = "", code: int = 2) -> int:
    text = " ".join(message.split()).rstrip(".")
    print(f"error: {text}; {remedy}" if remedy else f"error: {text}", file=sys.stderr, flush=True)
    return code


import oms_app.cli.train  # noqa: E402, F401  it adds its commands to train_app, with the helpers above
