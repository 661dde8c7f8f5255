"""Reads models from folders in the diffusers or the published OMS layout, and bases from single files, without network.

A config is untrusted input: only classes of diffusers and transformers are built, and a module's text encoder is found
through the catalogue, never through a path that the module names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionXLPipeline

from oms_app.errors import StudioError
from oms_app.models import domain as domains
from oms_app.models import spread_files
from oms_app.models.config_bounds import check_part
from oms_app.models.failures import library_errors
from oms_app.models.folder_kinds import refuse_pickles, refuse_quantised
from oms_app.models.folders import load_folder, load_scheduler
from oms_app.models.lora import Adapters, fuse_loras
from oms_app.models.lora_formats import lora_files
from oms_app.models.memory import Bytes, MemoryMode, place, size_on_disk, slow_precision_note
from oms_app.models.reading import Stamp, read_json, read_vocabulary, stamp_of, weight_files
from oms_app.models.single_file import load_single_file, unread_tensors
from oms_app.models.tensor_files import read_tensors
from oms_app.models.text import SdxlTextEncoder, TextEncoder, encoder_key, load_encoder
from oms_app.models.vae import colour_map_of, rgb_map_of
from oms_app.prestep.colour import ColourMap
from oms_app.prestep.leak import LeakStatistics
from oms_app.prestep.spread import SpreadHead
from oms_app.prestep.unet import TimeFreeUNet

TITLES = {"oms": "an OMS module", "singdiffusion": "a SingDiffusion module"}


@dataclass(frozen=True)
class ModelKey:
    """The store's cache key. scheduler: the folder of its configuration, if it is not the base's own. stamp: identifies
    the files, so that a replaced file counts as another model."""

    kind: Literal["base", "oms", "singdiffusion", "signal_leak", "text"]
    folder: Path
    device: str
    dtype: torch.dtype
    adapters: Adapters = ()
    mode: MemoryMode = "full"
    scheduler: Path | None = None
    stamp: Stamp = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.stamp:  # `replace` keeps it
            object.__setattr__(self, "stamp", self._stamp_now())

    def is_stale(self) -> bool:
        """Whether its files changed since the key was made."""
        return self.stamp != self._stamp_now()

    def _stamp_now(self) -> Stamp:
        adapters = (file for path, _ in self.adapters for file in lora_files(path))
        return stamp_of(self.folder, *adapters, *([self.scheduler] if self.scheduler else []))


OWN_ENCODER = ""  # the module's folder contains its text encoder instead of naming one


@dataclass
class LoadedBase:
    """A base model: the stock pipeline, its text encoder, the fingerprint of its latents, the words it knows.

    mode: where its parts are kept while unused. rgb_map: (C + 1, 3), from latents to colours; under "full" it is
    computed when first needed. colour_map: likewise, between mean colours and latents. notes: what the user should know
    about it, in lines.
    """

    pipeline: Any  # one of PIPELINES
    text: TextEncoder
    fingerprint: tuple[float, ...]
    vocabulary: frozenset[str]
    mode: MemoryMode = "full"
    rgb_map: torch.Tensor | None = None
    colour_map: ColourMap | None = None
    notes: tuple[str, ...] = ()


@dataclass
class LoadedModule:
    """A time-free UNet, the text encoder that it needs (OWN_ENCODER: its own), its latent domain.

    waits: between two requests the network is in the host's memory, and `predict` moves it to the device.
    OMS modules answer v at SNR 0, which is -x̂0; SingDiffusion's answer x̂0.
    spread: how x0 is distributed around x̂0, if a head was trained for it; always on the CPU.
    """

    unet: TimeFreeUNet
    encoder_name: str
    domain: domains.Domain | None
    device: torch.device
    waits: bool = False
    spread: SpreadHead | None = None

    @torch.no_grad()
    def predict(self, x_s: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """ψ(x_S, c), (B, C, h, w), of noise (B, C, h, w) and prompt embeddings (B, L, D), on the module's device."""
        if self.waits:
            self.unet.to(self.device)
        try:
            return self.unet(x_s, hidden)
        finally:
            if self.waits:
                self.unet.to("cpu")


@dataclass
class LoadedLeak:
    """Signal-leak statistics, and the latent domain that they were fitted in."""

    leak: LeakStatistics
    domain: domains.Domain | None


def choose_device(name: str) -> tuple[torch.device, str]:
    """ "auto", "cpu", "cuda", "cuda:1" or "mps" → the device and why. Raises StudioError if it is not available."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"a CUDA GPU was found ({torch.cuda.get_device_name()})"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "an Apple GPU was found"
        return torch.device("cpu"), "no GPU was found"
    have = ["auto", "cpu"]
    have += ["cuda"] if torch.cuda.is_available() else []
    have += ["mps"] if torch.backends.mps.is_available() else []
    kind, _, index = name.partition(":")
    whole = kind in have and kind != "auto" and (not index or (kind == "cuda" and index.isdecimal()))
    if not whole or (index and int(index) >= torch.cuda.device_count()):
        raise StudioError(f"the device {name!r} is not available: choose one of {', '.join(have)}")
    return torch.device(name), "it was requested"


def load(key: ModelKey) -> LoadedBase | LoadedModule | LoadedLeak | TextEncoder:
    """Loads what the key names. Raises StudioError, in one line, for anything that cannot be read or trusted."""
    device = torch.device(key.device)
    if key.kind == "base":
        return load_base(key.folder, device, key.dtype, key.adapters, key.mode, key.scheduler)
    if key.kind == "oms" or key.kind == "singdiffusion":
        return load_module(key.folder, device, key.dtype, key.kind, waits=key.mode != "full")
    if key.kind == "signal_leak":
        return load_statistics(key.folder)
    return load_encoder(key.folder, device, key.dtype)


def expected_bytes(key: ModelKey) -> Bytes:
    """The memory that the key's model will use once it is loaded, from the headers of its files."""
    only = {"oms": "module", "singdiffusion": "module", "text": "text_encoder"}.get(key.kind, "")
    size = key.dtype.itemsize * size_on_disk(key.folder, only).total
    if key.kind == "oms":
        size += torch.float32.itemsize * size_on_disk(key.folder, "spread").total
    waits = key.mode != "full" or key.kind in ("text", "signal_leak")
    return Bytes(host=size) if waits or torch.device(key.device).type in ("cpu", "mps") else Bytes(device=size)


def load_base(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    adapters: Adapters = (),
    mode: MemoryMode = "full",
    scheduler: Path | None = None,
) -> LoadedBase:
    """A stock pipeline from a diffusers folder or a single .safetensors file, with LoRAs fused into it.

    scheduler: a folder with the configuration of another scheduler.
    """
    pipeline = load_single_file(folder, dtype) if folder.is_file() else load_folder(folder, dtype)
    if scheduler:
        pipeline.scheduler = load_scheduler(scheduler)
    fuse_loras(pipeline, adapters)
    with library_errors(f"the VAE of {folder} cannot encode pictures", "restore its files"):
        known = domains.fingerprint(pipeline.vae)  # in full precision: independent of that in which the model runs
    # With offloading, a preview would call the VAE while the UNet runs, so its map is fitted before the parts move.
    rgb_map = None if mode == "full" else rgb_map_of(pipeline)
    colour_map = None if rgb_map is None else colour_map_of(pipeline, rgb_map)
    # SDXL's own VAE overflows in float16, and on a CPU half precision may take minutes: it stays in float32.
    overflows = isinstance(pipeline, StableDiffusionXLPipeline) and pipeline.vae.config.force_upcast
    if device.type != "cpu" and (dtype == torch.bfloat16 or not overflows):
        pipeline.vae.to(dtype)
    place(pipeline, device, mode)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            # On a CPU, torch rounds bfloat16 differently if weights require no gradient, so they stay as in the stock
            # pipeline, whose pictures ours equal. On other devices group offloading needs weights without gradients.
            part.eval().requires_grad_(device.type == "cpu")
    key = encoder_key(folder, adapters)
    text = TextEncoder(key, pipeline.tokenizer, pipeline.text_encoder, device)
    if isinstance(pipeline, StableDiffusionXLPipeline):
        second = TextEncoder(key, pipeline.tokenizer_2, pipeline.text_encoder_2, device)
        text = SdxlTextEncoder(key, text, second, zero_empty=bool(pipeline.config.force_zeros_for_empty_prompt))
    return LoadedBase(
        pipeline, text, known, read_vocabulary(folder), mode, rgb_map, colour_map, _notes(folder, device, dtype)
    )


def _notes(path: Path, device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """What the user should know about a base model after loading."""
    notes = [slow_precision_note(device, dtype)]
    unread = unread_tensors(path) if path.is_file() else ()
    if unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        notes.append(f"{path.name} has tensors that are not used: {', '.join(unread[:3])}{more}")
    return tuple(note for note in notes if note)


def load_module(
    folder: Path, device: torch.device, dtype: torch.dtype, kind: str = "oms", *, waits: bool = False
) -> LoadedModule:
    """An OMS module from a folder in the published layout; a SingDiffusion module from the same with its own prefix."""
    part, title = folder / f"{kind}_module", TITLES[kind]
    refuse_pickles(part)
    refuse_quantised(part)
    check_part(part)
    with library_errors(f"{folder} cannot be read as {title}", "restore its files"):
        unet = TimeFreeUNet.from_pretrained(part, torch_dtype=dtype, read=lambda file: read_tensors([file], dtype))
    named = read_json(folder / f"{kind}_text_encoder/config.json")
    own = bool(weight_files(folder / f"{kind}_text_encoder"))
    encoder = OWN_ENCODER if own else named.get("_name_or_path")
    if not isinstance(encoder, str) or named.get("subfolder", "text_encoder") != "text_encoder":
        raise StudioError(f"{folder}/{kind}_text_encoder names no text encoder: set _name_or_path in its config.json")
    unet = unet.to("cpu" if waits else device).eval().requires_grad_(False)
    sizes = {"text_width": unet.config["cross_attention_dim"], "channels": unet.config["in_channels"]}
    spread = spread_files.read(folder, **sizes) if kind == "oms" else None
    return LoadedModule(unet, encoder, domains.read(folder), device, waits, spread)


def load_statistics(folder: Path) -> LoadedLeak:
    """Signal-leak statistics: statistics.safetensors with `mean` (C, k, k) and `factor` (Ck², Ck²)."""
    path = folder / "statistics.safetensors"
    with library_errors(f"{path} cannot be read as signal-leak statistics", "restore it"):
        tensors = read_tensors([path], torch.float32)
        leak = LeakStatistics(tensors["mean"], tensors["factor"])
    size = leak.mean.numel()
    if leak.mean.ndim != 3 or leak.factor.shape != (size, size):
        raise StudioError(f"{path} contains no signal-leak statistics: its tensors have the wrong shapes; restore it")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise StudioError(f"{path}: {name} contains values that are not finite; restore it")
    return LoadedLeak(leak, domains.read(folder))
