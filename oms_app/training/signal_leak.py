"""Signal-leak statistics of a base model, fitted over encoded scenes: `python -m oms_app train signal-leak`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from oms_app.models import domain as domains
from oms_app.prestep.leak import MODES, LeakStatistics
from oms_app.training.lumen import stages as lumen

log = logging.getLogger(__name__)


def train(*, base: Path, out: Path, device: str = "auto", smoke: bool = False, work: Path | None = None) -> Path:
    """Fit the statistics of `base`'s scenes and write statistics.safetensors and its domain to `out`. Returns `out`."""
    recipe = lumen.SMOKE if smoke else lumen.RECIPE
    work = work or lumen.work_folder(base, smoke)
    work.mkdir(parents=True, exist_ok=True)
    vae = lumen.load(base).vae
    encoded = lumen.encode_scenes(vae, work, recipe.scenes, device)
    leak = LeakStatistics.fit(torch.from_numpy(encoded.latents))
    out.mkdir(parents=True, exist_ok=True)
    save_file({"mean": leak.mean, "factor": leak.factor.contiguous()}, out / "statistics.safetensors")
    index = {"_class_name": "SignalLeak", "modes": MODES, "pictures": len(encoded.latents)}
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    domains.write(out, domains.Domain(name=base.name, fingerprint=domains.fingerprint(vae)))
    log.info("statistics of %d pictures written to %s", len(encoded.latents), out)
    return out
