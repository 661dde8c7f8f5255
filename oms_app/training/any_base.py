"""An OMS module for any base model from captioned pictures: `python -m oms_app train oms --model ID --data FOLDER`.

The base's autoencoder and one text encoder turn the pictures into latents and embeddings on disk; the module is trained
on these alone. The encoder stays as it is: it knows words for light already, unlike Lumen's (training/oms.py).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from diffusers import StableDiffusionXLPipeline
from transformers import T5EncoderModel

from oms_app.errors import StudioError
from oms_app.models import domain as domains
from oms_app.models.catalog import Catalog, Entry
from oms_app.models.loading import load_base
from oms_app.models.text import TextEncoder, load_encoder
from oms_app.paths import atomic_write
from oms_app.prestep.unet import TimeFreeUNet
from oms_app.training import oms
from oms_app.training.data import find, some
from oms_app.training.encoded import encode
from oms_app.training.loop import Plan
from oms_app.training.loop import train as train_loop
from oms_app.training.lumen.dataset import vae_key
from oms_app.training.lumen.stages import work_folder

log = logging.getLogger(__name__)
Size = Literal["S", "B", "L"]
STEPS = 2_000  # D.3 of the OMS paper: "typically around 2,000 iterations being sufficient"
# D.3, Tab. 5: pictures a step over all processes, learning rate.
RATES = {"clip": (512, 5e-5), "t5": (256, 3.5e-5), "sdxl": (128, 2.5e-5)}


@dataclass(frozen=True)
class Settings:
    """Settings of a run; None is the paper's value. batch: pictures a step over all processes. micro_batch: the most
    that one process takes at a time. resolution: pixels a side."""

    size: Size = "S"
    encoder: str | None = None
    resolution: int | None = None
    batch: int | None = None
    micro_batch: int = 16
    learning_rate: float | None = None
    steps: int = STEPS
    minutes: float | None = None  # instead of steps


@dataclass(frozen=True)
class Trained:
    """out: the module's folder. pictures: how many it learned from. skipped: that could not be read or had no caption.
    truncated: captions longer than the encoder reads. batch: pictures a step, after rounding."""

    out: str
    pictures: int
    skipped: int
    truncated: int
    parameters: int
    steps: int
    batch: int
    learning_rate: float


def train(catalog: Catalog, entry: Entry, data: Path, out: Path, *, device: str, settings: Settings) -> Trained:
    """Train a module for the base `entry` and write it to `out`, in the published layout. The same call resumes.

    Checkpoints, latents and embeddings are kept beside `out`. Every process of `accelerate launch` calls it.
    Raises StudioError for data, a base or an encoder that cannot be used, and if `out` was begun otherwise.
    """
    torch.manual_seed(0)
    # A process that has encoded its share waits for the slowest, perhaps for hours; the default limit is minutes.
    processes = PartialState(cpu=torch.device(device).type == "cpu", timeout=timedelta(days=1))
    listing = find(data)
    if listing.uncaptioned and processes.is_main_process:
        log.warning("without a caption, skipped: %s", some(listing.uncaptioned))
    base = load_base(catalog.weights(entry), torch.device("cpu"), torch.float32)
    channels = base.pipeline.unet.config.in_channels
    if channels != 4:
        raise StudioError(f"{entry.id!r} has {channels} latent channels: OMS modules need a base with 4")
    is_sdxl = isinstance(base.pipeline, StableDiffusionXLPipeline)
    name, text = _encoder(catalog, entry, base.text, settings.encoder, processes.device, is_sdxl)
    vae, fingerprint = base.pipeline.vae, base.fingerprint
    del base  # its UNet is not needed

    assert entry.defaults is not None
    native = entry.defaults.width
    side = settings.resolution or (native if is_sdxl else min(native, 512))
    kind = "sdxl" if is_sdxl else "t5" if isinstance(text.model, T5EncoderModel) else "clip"
    batch, learning_rate = settings.batch or RATES[kind][0], settings.learning_rate or RATES[kind][1]
    work = work_folder(out, False)
    # Latents, embeddings and weights depend on these: with others a run cannot go on.
    begun = {
        "model": entry.id,
        "autoencoder": vae_key(vae),
        "encoder": settings.encoder,
        "size": settings.size,
        "resolution": side,
        "data": listing.digest(),
    }
    with processes.main_process_first():
        _require_same_run(work, begun, out)
    encoded = encode(listing.pictures, vae, text, side, work, processes)
    skipped = len(encoded.skipped) + len(listing.uncaptioned)
    if processes.is_main_process:
        said = "%d pictures of %d px, %d skipped, %d captions cut off after %d tokens"
        log.info(said, len(encoded.usable), side, skipped, encoded.truncated, text.max_tokens)

    module = oms.build_module(oms.SIZES[settings.size], encoded.hidden.shape[-1], encoded.latents.shape[-1])
    each = ceil(batch / processes.num_processes)
    accumulate = ceil(each / settings.micro_batch)
    count = ceil(each / accumulate)
    plan = Plan(
        minutes=settings.minutes or 0.0,
        steps=None if settings.minutes else settings.steps,
        learning_rate=learning_rate,
        accumulate=accumulate,
        betas=(0.9, 0.999),
        checkpoint_seconds=600.0,
    )
    train_loop(
        "oms",
        torch.nn.ModuleDict({"oms": module}),
        lambda models, part, _: oms.module_loss(models["oms"], part["latents"], part["hidden"]),
        lambda where, state: encoded.batches(count, where, (4, state.step)),
        plan,
        work=work,
        device=device,
    )
    if processes.is_main_process:
        _export(out, module, name, text)
        domains.write(out, domains.Domain(name=entry.domain or f"that of {entry.id}", fingerprint=fingerprint))
    processes.wait_for_everyone()
    return Trained(
        out=str(out),
        pictures=len(encoded.usable),
        skipped=skipped,
        truncated=encoded.truncated,
        parameters=module.num_parameters(),
        steps=json.loads((work / "oms.json").read_text())["steps"],
        batch=count * accumulate * processes.num_processes,
        learning_rate=learning_rate,
    )


def _export(out: Path, module: TimeFreeUNet, name: str | None, text: TextEncoder) -> None:
    """Writes the module in the published layout; with its own copy of the text encoder if that has no `name`."""
    if name is not None:
        oms.export(out, module, name, None)
    else:
        oms.export(out, module, text.model.to("cpu"), text.tokenizer)


def _encoder(
    catalog: Catalog, entry: Entry, own: TextEncoder, wanted: str | None, device: torch.device, is_sdxl: bool
) -> tuple[str | None, TextEncoder]:
    """The text encoder, and the catalogue id by which the module names it; None if the module contains a copy.

    Of SDXL's two own encoders the first is taken, and copied: its name would mean both.
    """
    if wanted is None:
        text = TextEncoder(own.key, own.tokenizer, own.model.to(device), device)
        return (entry.id if entry.id in catalog.entries and not is_sdxl else None), text
    if wanted in catalog.entries:
        found = catalog.find(wanted, "text")
        return found.id, load_encoder(catalog.folder(found), device, torch.float32)
    folder = Path(wanted).expanduser()
    if not folder.is_dir():
        known = ", ".join(catalog.ids("text")) or "none yet"
        raise StudioError(
            f"--encoder {wanted!r} is not a text encoder of the catalogue ({known}) or a folder: give one with "
            "text_encoder/ and tokenizer/, or that of a T5"
        )
    return None, load_encoder(folder.resolve(), device, torch.float32)


def _require_same_run(work: Path, begun: dict[str, Any], out: Path) -> None:
    """Record what a run was begun with. Raises StudioError if an earlier one was begun otherwise."""
    path = work / "settings.json"
    if path.is_file():
        before = json.loads(path.read_text())
        for name, value in begun.items():
            if before.get(name) != value:
                raise StudioError(
                    f"{out} was begun with {name} {before.get(name)!r}, not {value!r}: give another --out, "
                    f"or delete {work}"
                )
    atomic_write(path, json.dumps(begun, indent=1) + "\n")
