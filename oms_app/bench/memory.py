"""Bytes that models need: `python -m oms_app bench memory`.

SD 1.5 and SDXL at full size need no weights: the networks run on torch's meta device, where tensors have shapes and no
memory, and every allocation is counted. Attention allocates only its output, as the fused kernels of PyTorch and
xformers do. The embedded model is measured by the same count, raw alone and a raw and OMS pair: one picture per call,
the OMS module beside the base model, its text encoder in the memory of the host.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from oms_app.engine import denoise
from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.models.loading import load_base, load_module
from oms_app.models.memory import size_on_disk
from oms_app.models.scheduler_factory import make_scheduler
from oms_app.models.store import parameter_bytes
from oms_app.models.text import Embedding
from oms_app.paths import EMBEDDED, PRESETS
from oms_app.training.oms import SIZES, build_module

CONFIGS = PRESETS / "configs"
PICTURES = {"sd15": 512, "sdxl": 1024}  # pixels a side
OPENCLIP_WIDTH = 1024  # of the published modules' prompt embeddings
SECONDARY = "text_encoder_2"


class Allocations(TorchDispatchMode):
    """Counts the bytes of every storage allocated in the context, until it is freed. peak: the most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given and storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _free(self, identity: int, size: int) -> None:
        self._seen.discard(identity)
        self.now -= size


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention that allocates only its output. The values are not computed: the count needs shapes only."""
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda q, k, v, **_: q.new_empty((*q.shape[:-1], v.shape[-1]))
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


@torch.no_grad()
def peak(work: Callable[[], Any]) -> int:
    """Bytes that `work` allocates, the most at a time."""
    with fused_attention(), Allocations() as counted:
        work()
    return counted.peak


def full_size(family: str, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Bytes of the parts of a model family and of their activations, for one picture with guidance, in `dtype`.

    modes: the most at a time, raw alone and with an OMS module of size B beside it. A group-offloaded network has two
    layers on the device, the one that runs and the next one; 5 % of its weights are counted for both.
    """
    folder, side = CONFIGS / family, PICTURES[family] // 8
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(_config(folder / "unet")).to(dtype)
        vae_dtype = torch.float32 if family == "sdxl" and dtype == torch.float16 else dtype
        vae = AutoencoderKL.from_config(_config(folder / "vae")).to(vae_dtype)
        text = CLIPTextModel(CLIPTextConfig(**_config(folder / "text_encoder"))).to(dtype)
        encoders = [text]
        if (folder / SECONDARY).is_dir():
            encoders.append(CLIPTextModelWithProjection(CLIPTextConfig(**_config(folder / SECONDARY))).to(dtype))
        oms = build_module(SIZES["B"], OPENCLIP_WIDTH, side).to(dtype)
        latents, step = torch.empty(2, 4, side, side, dtype=dtype), torch.empty((), dtype=torch.float32)
        hidden = torch.empty(2, 77, unet.config.cross_attention_dim, dtype=dtype)
        added = {"text_embeds": torch.empty(2, 1280, dtype=dtype), "time_ids": torch.empty(2, 6, dtype=dtype)}
        conditions = {"added_cond_kwargs": added} if family == "sdxl" else {}
        denoising = peak(lambda: unet(latents, step, hidden, **conditions))
        correcting = peak(lambda: oms(latents[:1], torch.empty(1, 77, OPENCLIP_WIDTH, dtype=dtype)))
        decoding = peak(lambda: vae.decode(torch.empty(1, 4, side, side, dtype=vae_dtype)))
    weights = {
        "unet": _bytes(unet),
        "vae": _bytes(vae),
        "text_encoders": sum(map(_bytes, encoders)),
        "oms_module": _bytes(oms),
    }
    base = weights["unet"] + weights["vae"] + weights["text_encoders"]
    streamed = 0.05
    raw = {
        "full": base + max(denoising, decoding),
        "model_offload": max(weights["unet"] + denoising, weights["vae"] + decoding, weights["text_encoders"]),
        "group_offload": max(streamed * weights["unet"] + denoising, streamed * weights["vae"] + decoding),
    }
    stage = {"raw": base + denoising, "pair": base + weights["oms_module"] + denoising}  # one picture a call
    return {
        "family": family,
        "pixels": PICTURES[family],
        "dtype": str(dtype).removeprefix("torch."),
        "weights": weights,
        "working": {"unet": denoising, "oms_module": correcting, "vae": decoding},
        "modes": {mode: {"raw": int(most), "pair": int(most + weights["oms_module"])} for mode, most in raw.items()},
        "unet_stage_ratio": stage["pair"] / stage["raw"],
    }


@torch.no_grad()
def embedded(studio: Studio, model: str) -> dict[str, Any]:
    """The UNet stage of one picture of the model with guidance: bytes raw alone, and with its OMS module beside it.

    Raises StudioError if the model has no OMS module in its folder.
    """
    entry = studio.catalog.find(model, "base")
    folder, defaults = studio.catalog.weights(entry), entry.defaults
    if defaults is None or not (folder / "oms").is_dir():
        raise StudioError(f"{model!r} has no OMS module in {folder}/oms: choose another model")
    dtype = studio.policy.dtype(size_on_disk(folder).total)
    base = load_base(folder, studio.device, dtype)
    module = load_module(folder / "oms", studio.device, dtype)
    scheduler = make_scheduler(base.pipeline.scheduler.config, defaults.scheduler, 2, studio.device)
    side = base.pipeline.vae_scale_factor
    shape = (base.pipeline.unet.config.in_channels, defaults.height // side, defaults.width // side)
    noise = denoise.draw(0, shape, studio.device, dtype)
    prompt: Embedding = base.text.embed(["mountains"])[0]

    def denoise_once() -> None:
        call = denoise.PipelineCall(noise.x_s, [noise.generator()], prompt, prompt, 2, 5.0, 0.0)
        denoise.denoise(base.pipeline, scheduler, call, on_step=lambda *_: None, should_stop=lambda: False)

    with Allocations() as counted:
        denoise_once()
    weights, module_bytes = parameter_bytes(base).total, parameter_bytes(module).total
    raw = weights + counted.peak
    return {
        "model": model,
        "dtype": str(dtype).removeprefix("torch."),
        "weights": weights,
        "oms_module": module_bytes,
        "unet_stage": {"raw": raw, "pair": raw + module_bytes},
        "unet_stage_ratio": (raw + module_bytes) / raw,
    }


def benchmark(studio: Studio, *, model: str = EMBEDDED) -> dict[str, Any]:
    """Both families at full size, and `model`."""
    return {
        "device": str(studio.device),
        "full_size": [full_size(family) for family in PICTURES],
        "embedded": embedded(studio, model),
    }


def _config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return values


def _bytes(network: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))
