"""The commands `python -m oms_app train …`. cli.py imports this file at its end."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from oms_app.cli.entry import AsJson, Device, _answer, _studio, _working, train_app
from oms_app.errors import StudioError
from oms_app.paths import user_folder

Minutes = Annotated[float | None, typer.Option(min=0.01, help="Budget of training time, minutes.")]
StartFrom = Annotated[Path | None, typer.Option("--from", help="A finished folder whose weights to start from.")]
Base = Annotated[
    str, typer.Option("--base", "--model", help="The base model: a catalogue id, a folder or a .safetensors file.")
]
Out = Annotated[Path | None, typer.Option(help="The folder to write; else training/ID-KIND of the user's.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Everything at tiny size, in under a minute.")]


@train_app.command()
def lumen(
    out: Annotated[Path | None, typer.Option(help="The folder to write; else training/lumen of the user's.")] = None,
    stage: Annotated[str | None, typer.Option(help="One stage alone.")] = None,
    device: Device = "auto",
    minutes: Minutes = None,
    start_from: StartFrom = None,
    smoke: Smoke = False,
    as_json: AsJson = False,
) -> None:
    """The embedded base model, from nothing; the same command resumes."""
    with _working():
        from oms_app.models.loading import choose_device
        from oms_app.training.lumen import stages as training

        if stage is not None and stage not in training.STAGES:
            raise StudioError(f"--stage is {stage!r}: choose one of {', '.join(training.STAGES)}")
        _require_folder(start_from)
        target = out or user_folder() / "training/lumen"
        where = str(choose_device(device)[0])
        done = training.train(
            out=target, stage=stage, device=where, minutes=minutes, start_from=start_from, smoke=smoke
        )
    _answer({"out": str(done)}, as_json, [f"written to {done}"])


@train_app.command("oms")
def train_oms(
    base: Base = "lumen",
    data: Annotated[
        Path | None, typer.Option(help="Captioned pictures, or .tar shards; for Lumen its own scenes else.")
    ] = None,
    size: Annotated[Literal["S", "B", "L"] | None, typer.Option(help="Of the module; S, with --data any.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="An id of kind text, or a folder with CLIP, OpenCLIP or T5; else the base's own.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(min=64, max=2048, help="Pixels a side; 512, SDXL 1024.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures a step, over all GPUs; else the paper's.")] = None,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="The most a GPU takes at a time; 16.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Above 0, up to 1; else the paper's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="2,000; or give --minutes.")] = None,
    out: Out = None,
    device: Device = "auto",
    minutes: Minutes = None,
    start_from: StartFrom = None,
    smoke: Smoke = False,
    as_json: AsJson = False,
) -> None:
    """An OMS module for a base model; the same command resumes. With --data for any base: docs/training.md."""
    asked = {
        "size": size,
        "encoder": encoder,
        "resolution": resolution,
        "batch": batch,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "steps": steps,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if data is not None:
        if start_from is not None or smoke:
            raise StudioError("--from and --smoke are for Lumen's scenes: leave them out, or leave --data out")
        if learning_rate is not None and not 0 < learning_rate <= 1:
            raise StudioError(f"--learning-rate is {learning_rate}: take one above 0, up to 1")
        if resolution is not None and resolution % 8:
            raise StudioError(f"--resolution is {resolution}: take 64 to 2048 in steps of 8")
        _train_any_base(base, data, out, device, given | {"minutes": minutes}, as_json)
        return
    if given:
        raise StudioError(f"--{next(iter(given)).replace('_', '-')} needs --data: name a folder of captioned pictures")
    _train_module("oms", base, out, device, minutes, start_from, smoke, as_json)


@train_app.command("singdiffusion")
def train_singdiffusion(
    base: Base = "lumen",
    out: Out = None,
    device: Device = "auto",
    minutes: Minutes = None,
    start_from: StartFrom = None,
    smoke: Smoke = False,
    as_json: AsJson = False,
) -> None:
    """A SingDiffusion module for a base model; the same command resumes."""
    _train_module("singdiffusion", base, out, device, minutes, start_from, smoke, as_json)


@train_app.command("signal-leak")
def train_signal_leak(
    base: Base = "lumen",
    out: Out = None,
    device: Device = "auto",
    smoke: Smoke = False,
    as_json: AsJson = False,
) -> None:
    """Signal-leak statistics for a base model: fitted over encoded scenes, no network."""
    with _working(), _studio(device) as studio:
        from oms_app.training import signal_leak as training

        entry = studio.catalog.find(base, "base")
        target = out or user_folder() / f"training/{entry.id}-signal_leak"
        done = training.train(base=studio.catalog.folder(entry), out=target, device=str(studio.device), smoke=smoke)
    _answer({"out": str(done)}, as_json, [f"written to {done}"])


@train_app.command("clip")
def train_clip(
    out: Annotated[Path | None, typer.Option(help="The folder to write; else training/clip of the user's.")] = None,
    device: Device = "auto",
    minutes: Minutes = None,
    smoke: Smoke = False,
    as_json: AsJson = False,
) -> None:
    """The small CLIP of scenes that `evaluate quality` sees with; the same command resumes."""
    with _working():
        from oms_app.evaluate import scene_clip as training
        from oms_app.models.loading import choose_device

        target = out or user_folder() / "training/clip"
        where = str(choose_device(device)[0])
        done = training.train_clip(out=target, minutes=minutes, smoke=smoke, device=where)
    _answer({"out": str(done)}, as_json, [f"written to {done}"])


def _train_any_base(
    base: str, data: Path, out: Path | None, device: str, settings: dict[str, Any], as_json: bool
) -> None:
    with _working(), _studio(device) as studio:
        from accelerate import PartialState

        from oms_app.training import any_base as training

        entry = studio.catalog.find(base, "base")
        target = out or user_folder() / f"training/{entry.id}-oms"
        wanted = training.Settings(**settings)
        done = training.train(studio.catalog, entry, data, target, device=str(studio.device), settings=wanted)
        first = PartialState().is_main_process
    if first:  # of the processes of `accelerate launch`
        lines = [f"{name}: {value}" for name, value in asdict(done).items()]
        _answer(asdict(done), as_json, lines)


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
    with _working(), _studio(device) as studio:
        from oms_app.training import oms as training

        _require_folder(start_from)
        entry = studio.catalog.find(base, "base")
        if not (studio.catalog.folder(entry) / "vocabulary.json").is_file():  # Lumen, or one made as Lumen is
            remedy = "give --data FOLDER" if kind == "oms" else "take lumen"
            raise StudioError(f"{entry.id!r} was not made from the scenes that this command draws: {remedy}")
        done = training.train(
            base=studio.catalog.folder(entry),
            out=out or user_folder() / f"training/{entry.id}-{kind}",
            device=str(studio.device),
            minutes=minutes,
            start_from=start_from,
            smoke=smoke,
            kind=kind,
        )
    _answer({"out": str(done)}, as_json, [f"written to {done}"])


def _require_folder(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise StudioError(f"--from {folder} is no folder: name one that a training run has written")
