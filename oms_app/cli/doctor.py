"""What a machine has, and what it lacks."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from oms_app.models.memory import SMALL, choose_attention

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "open_clip_torch", "gradio", "pydantic", "typer")


def examine(studio: Studio) -> dict[str, Any]:
    """`ok`, `problems` (each with its remedy), and the facts that a report of a fault should carry."""
    problems = []
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            problems.append(f"{package} is not installed: pip install -r requirements.txt")
    models = studio.models()
    problems += [
        f"the files of {info.id} are not here: restore {studio.catalog.folder(studio.catalog.entries[info.id])}"
        for info in models
        if not info.available
    ]
    if not _writable(studio.home):
        problems.append(f"the user's folder {studio.home} cannot be written to: set OMS_HOME to another")
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


def _writable(folder: Path) -> bool:
    """Of the folder, or of the nearest one above it that exists: it is made when it is first needed."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)
