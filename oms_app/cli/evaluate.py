"""`evaluate …`: models and corrections measured against reference scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oms_app.cli.console import output_on_stderr, print_result, table, warn_of_few
from oms_app.cli.extras import require
from oms_app.cli.options import (
    DeviceOption,
    JsonOption,
    LoraOption,
    ModelOption,
    open_studio,
    parse_lora,
    parse_variants,
    variants_parameter,
    with_parameters,
)
from oms_app.errors import StudioError
from oms_app.paths import EMBEDDED

if TYPE_CHECKING:
    from rich.table import Table

ENOUGH_CAPTIONS = 100  # below this the 95 % intervals are as wide as the differences between variants
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Selects the captions and draws the noise.")]
ProcessesOption = Annotated[
    int,
    typer.Option(
        "--processes", min=1, max=64, help="Processes that share the work, each with its own model and one thread."
    ),
]


def build_app() -> typer.Typer:
    """The commands, with the corrections that are registered now in the help of --variants."""
    app = typer.Typer(no_args_is_help=True, help="Measure models and corrections against reference scenes.")
    for command in (luminance, quality):
        app.command()(with_parameters(command, [variants_parameter()]))
    app.command()(report)
    app.command()(dials)
    app.command()(spread)
    app.command()(family)
    return app


def luminance(
    model: ModelOption = EMBEDDED,
    captions: Annotated[int, typer.Option(min=2, max=1_000, help="Number of held-out captions.")] = 200,
    variants: str | None = None,
    seed: SeedOption = 0,
    lora: LoraOption = None,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """The distance of the pictures' brightness from that of reference scenes (1-D Wasserstein distance)."""
    parsed = parse_variants(variants, {})
    with output_on_stderr() as progress:
        studio = open_studio(device)
        from oms_app.evaluate.luminance import luminance as measure
        from oms_app.evaluate.pictures import collect_samples

        samples = collect_samples(
            studio,
            model=model,
            captions=captions,
            variants=parsed,
            seed=seed,
            on_caption=progress.count_captions,
            processes=processes,
            loras=[parse_lora(text) for text in lora or ()],
        )
        report = measure(samples)
    summary = f"{report['model']}, {report['n']} captions, seed {report['seed']}; intervals of 95 %"
    warn_of_few(captions, "captions", ENOUGH_CAPTIONS)
    print_result(report, as_json, _luminance_table(report), summary)


def quality(
    model: ModelOption = EMBEDDED,
    captions: Annotated[int, typer.Option(min=14, max=1_000, help="Number of held-out captions.")] = 200,
    variants: str | None = None,
    seed: SeedOption = 0,
    lora: LoraOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Output PNG: frequencies of the pictures' means (Fig. 6 of the paper).")
    ] = None,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """FID, precision, recall, density, coverage and CLIP score against reference scenes, by a small CLIP of scenes."""
    parsed = parse_variants(variants, {})
    require("evaluate", "evaluate quality")
    with output_on_stderr() as progress:
        studio = open_studio(device)
        from oms_app.evaluate import scene_clip
        from oms_app.evaluate.pictures import collect_samples
        from oms_app.evaluate.quality import quality as measure

        clip = scene_clip.load()
        samples = collect_samples(
            studio,
            model=model,
            captions=captions,
            variants=parsed,
            seed=seed,
            feature_extractor=clip.encode_images,
            on_caption=progress.count_captions,
            processes=processes,
            loras=[parse_lora(text) for text in lora or ()],
        )
        report = measure(samples, clip.encode_texts)
        if plot is not None:
            from oms_app.evaluate.plots import plot_mean_frequencies

            plot_mean_frequencies(samples, plot)
    warn_of_few(captions, "captions", ENOUGH_CAPTIONS)
    print_result(report, as_json, _quality_table(report["figures"]))


def report(
    out: Annotated[Path | None, typer.Option(help="Output file. Default: docs/results.md.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small sample of everything, in minutes, to docs/results-quick.md.")
    ] = False,
    captions: Annotated[
        int | None, typer.Option(min=14, max=1_000, help="Number of held-out captions; 1,000, with --quick 20.")
    ] = None,
    model: ModelOption = EMBEDDED,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure every figure of docs/results.md again. Run it again to resume."""
    require("evaluate", "evaluate report")
    with output_on_stderr(own_progress=True):
        studio = open_studio(device)
        from oms_app.evaluate import report as reports

        target = out or (reports.QUICK_RESULTS if quick else reports.RESULTS)
        extent = reports.QUICK if quick else reports.FULL
        if captions is not None:
            extent = replace(extent, captions=captions)
        written = reports.write(studio, target, extent=extent, model=model)
    print_result({"out": str(written)}, as_json, f"written to {written}")


def dials(
    model: ModelOption = EMBEDDED,
    prompts: Annotated[int, typer.Option(min=1, max=50, help="Number of neutral prompts.")] = 50,
    seeds: Annotated[int, typer.Option(min=1, max=16, help="Pictures of each prompt and setting.")] = 4,
    rivals: Annotated[
        bool, typer.Option(help="Measure the other ways to do the same too (embedded model only, half of the seeds).")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Output folder. Default: docs.")] = None,
    blind: Annotated[
        Path | None,
        typer.Option(help="Only write 20 pairs for a blind ranking to this folder, and their key beside it."),
    ] = None,
    score: Annotated[
        Path | None,
        typer.Option(help='With --blind: a reader\'s answers to these pairs, {"01": "left", ...}. Adds their row.'),
    ] = None,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Brightness, tint and direction of light as asked against as got, beside other ways. Run it again to resume."""
    require("evaluate", "evaluate dials")
    if score is not None and blind is None:
        raise StudioError("--score needs the folder of the pairs: give it with --blind")
    with output_on_stderr() as progress:
        from oms_app.evaluate import dial_blind, dial_jobs, dial_page, dial_table
        from oms_app.evaluate.report import RESULTS

        docs, shown = out or RESULTS.parent, []
        if blind is not None and score is not None:
            result = dial_blind.score(blind, score)
            dial_page.add_ranking(result, docs)
            text = f"dial preferred in {result['dial']} of {result['pairs']}; written to {docs}"
        elif blind is not None:
            dial_blind.write_pairs(open_studio(device), blind, model)
            result, text = {"out": str(blind)}, f"written to {blind}"
        else:
            studio = open_studio(device)
            measured = dial_jobs.collect(
                studio,
                model=model,
                prompts=prompts,
                seeds=seeds,
                rivals=rivals,
                processes=processes,
                on_pictures=progress.count_pictures,
            )
            result = dial_table.measure(measured.records, measured.about)
            dial_page.write(result, studio, docs)
            text = f"written to {docs}"
            shown = [table(dial_page.TITLES, dial_table.rows(result))]
    print_result(result, as_json, *shown, text)


def spread(
    captions: Annotated[int, typer.Option(min=2, max=1_000, help="Number of held-out captions.")] = 1_000,
    prompts: Annotated[int, typer.Option(min=1, max=10, help="Number of prompts that say nothing of light.")] = 10,
    seeds: Annotated[int, typer.Option(min=2, max=64, help="Pictures of each prompt.")] = 64,
    out: Annotated[Path | None, typer.Option(help="The page to write into. Default: docs/results.md.")] = None,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Whether a spread of 1 gives brightness the variety of the reference scenes. Run it again to resume."""
    with output_on_stderr() as progress:
        studio = open_studio(device)
        from oms_app.evaluate import spread as measured
        from oms_app.evaluate.report import RESULTS

        figures = measured.measure(
            studio,
            captions=captions,
            prompts=prompts,
            seeds=seeds,
            processes=processes,
            on_caption=progress.count_captions,
        )
        target = out or RESULTS
        measured.write(figures, target)
    shown = table(("measure", "measured", "target", "met"), measured.rows(figures))
    print_result(figures, as_json, shown, f"written to {target}")


def family(
    captions: Annotated[int, typer.Option(min=2, max=1_000, help="Number of held-out captions.")] = 1_000,
    subjects: Annotated[int, typer.Option(min=1, max=100, help="Prompts of each kind for the classifier.")] = 100,
    out: Annotated[Path | None, typer.Option(help="The page to write into. Default: docs/results.md.")] = None,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Every model of Lumen's family with Lumen's OMS module. Run it again to resume."""
    require("evaluate", "evaluate family")
    with output_on_stderr() as progress:
        studio = open_studio(device)
        from oms_app.evaluate import members
        from oms_app.evaluate.report import RESULTS

        figures = members.measure(
            studio, captions=captions, subjects=subjects, processes=processes, on_caption=progress.count_captions
        )
        target = out or RESULTS
        members.write(figures, target)
    warn_of_few(captions, "captions", ENOUGH_CAPTIONS)
    print_result(figures, as_json, table(members.TITLES, members.rows(figures)), f"written to {target}")


def _luminance_table(report: Mapping[str, Any]) -> Table:
    interval = report["interval"]
    rows = []
    for name, distance in report["wasserstein"].items():
        low, high = interval["wasserstein"][name]
        ratio = report["ratio"].get(name)
        spread = interval["ratio"].get(name)
        of_ratio = "-" if ratio is None else f"{ratio:.2f} ({spread[0]:.2f} … {spread[1]:.2f})"
        rows.append((name, f"{distance:.1f} ({low:.1f} … {high:.1f})", of_ratio, f"{report['mean'][name]:.1f}"))
    rows.append(("scenes (floor)", f"{report['floor']:.1f}", "-", f"{report['mean']['scenes']:.1f}"))
    return table(("variant", "Wasserstein distance", "ratio to raw", "mean RGB"), rows)


def _quality_table(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    measures = list(next(iter(figures.values())))
    rows = [(name, *(f"{of[measure]['value']:.3f}" for measure in measures)) for name, of in figures.items()]
    return table(("variant", *(measure.replace("_", " ") for measure in measures)), rows)
