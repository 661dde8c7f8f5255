"""`doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from oms_app.cli.console import facts_table, output_on_stderr, print_result
from oms_app.cli.options import DeviceOption, JsonOption, MemoryOption, PrecisionOption, open_studio

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "open_clip_torch", "gradio", "pydantic", "typer")
OPTIONAL = {"gradio"}  # of the extra `app`: the command line works without it

app = typer.Typer()


@app.command()
def doctor(
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    memory: MemoryOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """What this machine has, and whether everything needed is installed."""
    with output_on_stderr():
        report = examine(open_studio(device, precision=precision, memory=memory))
    facts = {name: value for name, value in report.items() if name != "problems"}
    print_result(report, as_json, facts_table(facts), *(f"problem: {problem}" for problem in report["problems"]))


def examine(studio: Studio) -> dict[str, Any]:
    """`ok`, `problems` (each with its remedy), and the facts that a bug report should contain.

    A catalogue model that was never downloaded is not a problem; missing files of an embedded or added model are.
    """
    import psutil
    import torch

    from oms_app.models.memory import SMALL, choose_attention

    versions, problems = _package_versions()
    models = studio.models()
    problems += [
        f"the files of {info.id} are missing: restore {studio.catalog.folder(entry)}"
        for info in models
        if not info.available and not (entry := studio.catalog.entries[info.id]).repository
    ]
    if not _is_writable(studio.home):
        problems.append(f"the user's folder {studio.home} cannot be written to: set OMS_HOME to another one")
    memory = psutil.virtual_memory()
    large = studio.policy.dtype(2 * SMALL)
    attention, reason = choose_attention(studio.device, large)
    store = studio.statistics()
    return {
        "ok": not problems,
        "problems": problems,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions,
        "device": str(studio.device),
        "device_reason": studio.device_reason,
        "precision": {
            "small_models": str(studio.policy.dtype(0)).removeprefix("torch."),
            "large_models": str(large).removeprefix("torch."),
        },
        "memory_mode": studio.policy.mode,
        "attention": attention,
        "attention_reason": reason,
        "threads": torch.get_num_threads(),
        "memory_bytes": memory.total,
        "memory_free_bytes": memory.available,
        "store_budget_bytes": store.budget,
        "store_device_budget_bytes": store.device_budget,
        "home": str(studio.home),
        "models": {info.id: info.available for info in models},
    }


def _package_versions() -> tuple[dict[str, str], list[str]]:
    """Versions by package, and a problem for each required one that is not installed."""
    versions, problems = {}, []
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            if package not in OPTIONAL:
                problems.append(f"{package} is not installed: run pip install {package}")
    return versions, problems


def _is_writable(folder: Path) -> bool:
    """Checks the folder, or its nearest existing parent: the folder is created when it is first needed."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)
