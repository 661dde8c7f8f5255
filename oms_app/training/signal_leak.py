"""Signal-leak statistics of a base model, fitted over encoded scenes: `python -m oms_app train signal-leak`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from oms_app.models import domain as domains
from oms_app.paths import atomic_write
from oms_app.prestep.leak import MODES, LeakStatistics
from oms_app.training.loop import pick_device
from oms_app.training.lumen import stages
from oms_app.training.lumen.dataset import encode_scenes
from oms_app.training.lumen.recipe import recipe_for

log = logging.getLogger(__name__)


def train(*, base: Path, out: Path, device: str = "auto", smoke: bool = False, work: Path | None = None) -> Path:
    """Fit the statistics of `base`'s scenes and write statistics.safetensors and its domain to `out`. Returns `out`."""
    recipe = recipe_for(pick_device(device), smoke)
    work = work or stages.work_folder(base, smoke)
    work.mkdir(parents=True, exist_ok=True)
    vae = stages.load(base).vae
    encoded = encode_scenes(vae, work, recipe.scenes, device)
    leak = LeakStatistics.fit(torch.from_numpy(encoded.latents))
    out.mkdir(parents=True, exist_ok=True)
    save_file({"mean": leak.mean, "factor": leak.factor.contiguous()}, out / "statistics.safetensors")
    index = {"_class_name": "SignalLeak", "modes": MODES, "pictures": len(encoded.latents)}
    atomic_write(out / "model_index.json", json.dumps(index, indent=2) + "\n")
    domains.write(out, domains.Domain(name=base.name, fingerprint=domains.fingerprint(vae)))
    log.info("statistics of %d pictures written to %s", len(encoded.latents), out)
    return out
