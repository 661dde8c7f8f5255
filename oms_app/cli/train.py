"""`train …`: the embedded models from scratch, and modules for other base models."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from oms_app.cli.console import facts_table, output_on_stderr, print_result
from oms_app.cli.extras import require
from oms_app.cli.options import DeviceOption, JsonOption, open_studio
from oms_app.errors import StudioError
from oms_app.paths import EMBEDDED, user_folder

app = typer.Typer(no_args_is_help=True, help="Train the embedded models from scratch, or continue their training.")

MinutesOption = Annotated[float | None, typer.Option("--minutes", min=0.01, help="Maximum training time, in minutes.")]
StartFromOption = Annotated[
    Path | None, typer.Option("--from", help="Output folder of a training run: start from its weights.")
]
BaseOption = Annotated[
    str, typer.Option("--base", "--model", help="The base model: a catalogue id, a folder or a .safetensors file.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Output folder. Default: training/ID-KIND in the user's folder.")
]
SmokeOption = Annotated[bool, typer.Option("--smoke", help="Everything at tiny size, in under a minute.")]


@app.command()
def lumen(
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: training/lumen in the user's folder.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Run this stage only.")] = None,
    device: DeviceOption = "auto",
    minutes: MinutesOption = None,
    start_from: StartFromOption = None,
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> None:
    """The embedded base model, from scratch. Run it again to resume."""
    require("train", "train lumen")
    with output_on_stderr(logging.INFO, own_progress=True):
        from oms_app.models.loading import choose_device
        from oms_app.training.lumen import stages

        if stage is not None and stage not in stages.STAGES:
            raise StudioError(f"--stage is {stage!r}: choose one of {', '.join(stages.STAGES)}")
        _require_folder(start_from)
        written = stages.train(
            out=out or user_folder() / "training/lumen",
            stage=stage,
            device=str(choose_device(device)[0]),
            minutes=minutes,
            start_from=start_from,
            smoke=smoke,
        )
    _print_written(written, as_json)


@app.command("oms")
def train_oms(
    base: BaseOption = EMBEDDED,
    data: Annotated[
        Path | None,
        typer.Option(help="Captioned pictures, or .tar shards; default for Lumen: the scenes that it was trained on."),
    ] = None,
    size: Annotated[Literal["S", "B", "L"] | None, typer.Option(help="Size of the module. Default: S.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="A text id, or a folder with CLIP, OpenCLIP or T5. Default: the base model's encoder."),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=64, max=2048, help="Pixels per side. Default: 512, for SDXL 1024.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures per step, over all GPUs. Default: as in the paper.")
    ] = None,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="Pictures at a time per GPU. Default: 16.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Above 0, up to 1. Default: as in the paper.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps. Default: 2,000, unless --minutes is given.")
    ] = None,
    spread: Annotated[
        bool, typer.Option("--spread", help="Train only the spread head of the OMS module in the folder of --out.")
    ] = False,
    out: OutOption = None,
    device: DeviceOption = "auto",
    minutes: MinutesOption = None,
    start_from: StartFromOption = None,
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> None:
    """An OMS module for a base model. Run it again to resume. With --data for any base model: docs/training.md."""
    settings = {
        "size": size,
        "encoder": encoder,
        "resolution": resolution,
        "batch": batch,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "steps": steps,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    if spread:
        if given or data is not None or minutes is not None or start_from is not None:
            raise StudioError("--spread takes only --base, --out, --device and --smoke: leave the other options out")
        _train_spread(base, out, device, smoke, as_json)
        return
    if data is not None:
        if start_from is not None or smoke:
            raise StudioError("--from and --smoke are for Lumen's scenes: leave them out, or leave --data out")
        if learning_rate is not None and not 0 < learning_rate <= 1:
            raise StudioError(f"--learning-rate is {learning_rate}: take a value above 0, up to 1")
        if resolution is not None and resolution % 8:
            raise StudioError(f"--resolution is {resolution}: take 64 to 2048 in steps of 8")
        _train_any_base(base, data, out, device, given | {"minutes": minutes}, as_json)
        return
    if given:
        raise StudioError(f"--{next(iter(given)).replace('_', '-')} needs --data: name a folder of captioned pictures")
    _train_module("oms", base, out, device, minutes, start_from, smoke, as_json)


@app.command("singdiffusion")
def train_singdiffusion(
    base: BaseOption = EMBEDDED,
    out: OutOption = None,
    device: DeviceOption = "auto",
    minutes: MinutesOption = None,
    start_from: StartFromOption = None,
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> None:
    """A SingDiffusion module for a base model. Run it again to resume."""
    _train_module("singdiffusion", base, out, device, minutes, start_from, smoke, as_json)


@app.command("signal-leak")
def train_signal_leak(
    base: BaseOption = EMBEDDED,
    out: OutOption = None,
    device: DeviceOption = "auto",
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Signal-leak statistics for a base model: computed from encoded scenes, without a network."""
    with output_on_stderr(logging.INFO, own_progress=True):
        studio = open_studio(device)
        from oms_app.training import signal_leak

        entry = studio.catalog.find(base, "base")
        target = out or user_folder() / f"training/{entry.id}-signal_leak"
        written = signal_leak.train(
            base=studio.catalog.weights(entry), out=target, device=str(studio.device), smoke=smoke
        )
    _print_written(written, as_json)


@app.command("clip")
def train_clip(
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: training/clip in the user's folder.")
    ] = None,
    device: DeviceOption = "auto",
    minutes: MinutesOption = None,
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> None:
    """The small CLIP of scenes whose features `evaluate quality` uses. Run it again to resume."""
    with output_on_stderr(logging.INFO, own_progress=True):
        from oms_app.evaluate import scene_clip
        from oms_app.models.loading import choose_device

        target = out or user_folder() / "training/clip"
        written = scene_clip.train_clip(out=target, minutes=minutes, smoke=smoke, device=str(choose_device(device)[0]))
    _print_written(written, as_json)


def _train_any_base(
    base: str, data: Path, out: Path | None, device: str, settings: dict[str, Any], as_json: bool
) -> None:
    with output_on_stderr(logging.INFO, own_progress=True):
        studio = open_studio(device)
        from accelerate import PartialState

        from oms_app.training import any_base

        entry = studio.catalog.find(base, "base")
        target = out or user_folder() / f"training/{entry.id}-oms"
        trained = any_base.train(
            studio.catalog, entry, data, target, device=str(studio.device), settings=any_base.Settings(**settings)
        )
        is_main_process = PartialState().is_main_process
    if is_main_process:  # of those that `accelerate launch` started
        print_result(asdict(trained), as_json, facts_table(asdict(trained)))


def _train_spread(base: str, out: Path | None, device: str, smoke: bool, as_json: bool) -> None:
    with output_on_stderr(logging.INFO, own_progress=True):
        studio = open_studio(device)
        from oms_app.training import spread

        entry = studio.catalog.find(base, "base")
        written = spread.train(
            base=studio.catalog.weights(entry),
            out=out or user_folder() / f"training/{entry.id}-oms",
            base_id=entry.id,
            device=str(studio.device),
            smoke=smoke,
        )
    _print_written(written, as_json)


def _train_module(
    kind: Literal["oms", "singdiffusion"],
    base: str,
    out: Path | None,
    device: str,
    minutes: float | None,
    start_from: Path | None,
    smoke: bool,
    as_json: bool,
) -> None:
    with output_on_stderr(logging.INFO, own_progress=True):
        studio = open_studio(device)
        from oms_app.training import oms

        _require_folder(start_from)
        entry = studio.catalog.find(base, "base")
        if not (studio.catalog.weights(entry) / "vocabulary.json").is_file():  # Lumen, or a model trained like it
            remedy = "give --data FOLDER" if kind == "oms" else "use lumen"
            raise StudioError(f"{entry.id!r} was not trained on the scenes that this command draws: {remedy}")
        written = oms.train(
            base=studio.catalog.weights(entry),
            out=out or user_folder() / f"training/{entry.id}-{kind}",
            device=str(studio.device),
            minutes=minutes,
            start_from=start_from,
            smoke=smoke,
            kind=kind,
        )
    _print_written(written, as_json)


def _print_written(folder: Path, as_json: bool) -> None:
    print_result({"out": str(folder)}, as_json, f"written to {folder}")


def _require_folder(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise StudioError(f"--from {folder} is not a folder: give the output folder of a training run")
