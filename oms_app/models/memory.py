"""How a model is placed in memory: its precision, where its parts wait, which attention; and what to give up, step by
step, when memory runs out."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import psutil
import torch
import torch.nn.functional as F

from oms_app.errors import StudioError, one_line
from oms_app.models.file_kinds import NATIVE, UNET, VAE, identify
from oms_app.models.folder_kinds import part_weights, parts_of
from oms_app.models.reading import read_header, read_json, weight_files

log = logging.getLogger(__name__)
GiB = 2**30
Precision = Literal["auto", "float32", "float16", "bfloat16"]
MemoryMode = Literal["full", "model_offload", "group_offload"]
RequestedMode = Literal["auto", "full", "model_offload", "group_offload"]
SMALL = 200_000_000  # parameters: smaller models run in float32, with the same pictures on every machine
WORKING = 2 * GiB  # what a UNet and a VAE need besides their weights, if the model is not known
RESERVE = 3 * GiB // 4  # for the UNet's activations, the device's own libraries and fragments
# Bytes for each pixel that Stable Diffusion's VAE decodes, by its shapes (`oms bench memory`): 3.0 GiB for 1024 px.
DECODE_BYTES, DECODE_BYTES_FLOAT32 = 1_610, 3_220
UNET_PART = "unet"
_M_ARENA_MAX = -8  # malloc.h
_CHECKPOINT_PARTS = (UNET, VAE, "cond_stage_model.", "conditioner.embedders.0.", "conditioner.embedders.1.")


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model on disk, counted without reading weights. largest: of its largest part.

    working: bytes that generating one picture of its native size needs besides the weights.
    """

    total: int
    largest: int
    working: int = WORKING


@dataclass(frozen=True)
class Bytes:
    """Of a model's weights: in the host's memory, and in the device's own."""

    host: int = 0
    device: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.host + other.host, self.device + other.device)

    @property
    def total(self) -> int:
        return self.host + self.device


def size_on_disk(path: Path, only: str = "") -> ModelSize:
    """Of a .safetensors file, or of a folder with a subfolder for each part: what is loaded from it, once.

    only: parts with this word in their names. Unreadable files count as nothing: the loader reports what is wrong.
    """
    try:
        parts = _parts_of_file(path) if path.is_file() else _parts_of_folder(path, only)
        return ModelSize(sum(parts.values()), max(parts.values(), default=0), _working(path))
    except StudioError:
        return ModelSize(0, 0)


def _parts_of_file(path: Path) -> dict[str, int]:
    """Of a checkpoint without its EMA copy and training state; of any other file all tensors, as one part."""
    parts: dict[str, int] = {}
    for name, tensor in read_header(path).tensors.items():
        prefix = next((prefix for prefix in _CHECKPOINT_PARTS if name.startswith(prefix)), "")
        parts[prefix] = parts.get(prefix, 0) + prod(tensor.shape)
    return {prefix: size for prefix, size in parts.items() if prefix} or parts


def _parts_of_folder(folder: Path, only: str) -> dict[str, int]:
    index = folder / "model_index.json"
    named = parts_of(read_json(index)) if index.is_file() else {}
    parts = {}
    for part in sorted(folder.iterdir()) if folder.is_dir() else ():
        if only not in part.name or not part.is_dir() or not weight_files(part):
            continue
        if UNET_PART in named and part.name not in named:
            continue
        files = part_weights(part).files
        parts[part.name] = sum(prod(one.shape) for file in files for one in read_header(file).tensors.values())
    return parts


def _working(path: Path) -> int:
    """From the size of the pictures and the precision of the VAE; WORKING if neither is known."""
    if path.is_file():
        family = identify(path).family
        if family is None:
            return WORKING
        return RESERVE + NATIVE[family] ** 2 * (DECODE_BYTES_FLOAT32 if family == "sdxl" else DECODE_BYTES)
    if not (path / UNET_PART / "config.json").is_file():
        return WORKING
    unet, vae = read_json(path / UNET_PART / "config.json"), read_json(path / "vae/config.json")
    side, levels = unet.get("sample_size") or 64, vae.get("block_out_channels")
    if not isinstance(side, int) or not isinstance(levels, list):
        return WORKING
    upcast = bool(vae.get("force_upcast", False)) and "addition_embed_type" in unet
    native = side * 2 ** (len(levels) - 1)
    return RESERVE + native**2 * (DECODE_BYTES_FLOAT32 if upcast else DECODE_BYTES)


@dataclass(frozen=True)
class Policy:
    """What was requested, and what "auto" makes of it for a model of a given size.

    Raises StudioError for a precision or mode that does not exist, or that the device does not support.
    """

    device: torch.device
    precision: Precision = "auto"
    mode: RequestedMode = "auto"
    device_budget: int | None = None  # bytes; None if the device shares the host's memory

    def __post_init__(self) -> None:
        for what, value, known in (("precision", self.precision, Precision), ("memory mode", self.mode, RequestedMode)):
            if value not in get_args(known):
                raise StudioError(f"the {what} is {value!r}: choose one of {', '.join(get_args(known))}")
        if self.device.type == "cpu" and self.mode not in ("auto", "full"):
            raise StudioError(f"the memory mode {self.mode} needs a GPU: choose auto or full on the CPU")

    def dtype(self, parameters: int) -> torch.dtype:
        """float32 on the CPU and for small models, else half precision."""
        if self.precision != "auto":
            named: torch.dtype = getattr(torch, self.precision)
            return named
        return torch.float32 if self.device.type == "cpu" or parameters < SMALL else torch.float16

    def place(self, size: ModelSize, dtype: torch.dtype, fallback: OomFallback | None = None) -> MemoryMode:
        """Whole on the device if it fits with what generating needs, else part by part, else layer by layer.

        fallback: what was given up before because memory ran out; it overrides a requested mode.
        """
        mode = self._fitting(size, dtype) if self.mode == "auto" else self.mode
        if fallback is not None and fallback >= OomFallback.GROUP_OFFLOAD:
            return "group_offload"
        if fallback is not None and fallback >= OomFallback.MODEL_OFFLOAD and mode == "full":
            return "model_offload"
        return mode

    def _fitting(self, size: ModelSize, dtype: torch.dtype) -> MemoryMode:
        if self.device_budget is None:
            return "full"
        # The budget is for weights: WORKING, or half of what was free, was left out of it.
        free = self.device_budget + min(WORKING, self.device_budget)
        if dtype.itemsize * size.total + size.working <= free:
            return "full"
        # Part by part, the VAE decodes alone; besides the UNet there are only its own activations.
        return "model_offload" if dtype.itemsize * size.largest + RESERVE <= free else "group_offload"


def automatic_budget() -> int:
    """Half of the host's memory that is free now, in bytes: the rest is for latents, the page and other programs."""
    return int(psutil.virtual_memory().available // 2)


def automatic_device_budget(device: torch.device) -> int | None:
    """Bytes of the device's own memory that loaded models may fill; None if it has none of its own.

    All that is free now except WORKING, and at least half of it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "mps":
        free = max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    else:
        return None
    return max(free - WORKING, free // 2)


def place(pipeline: Any, device: torch.device, mode: MemoryMode) -> None:
    """Places the parts of a stock pipeline according to the mode, and gives its UNet the faster attention."""
    if mode == "model_offload":
        # diffusers keeps the safety checker on the device; it can be offloaded like the others, and runs after the VAE.
        pipeline.model_cpu_offload_seq = f"{pipeline.model_cpu_offload_seq}->safety_checker"
        pipeline._exclude_from_cpu_offload = []
        pipeline.enable_model_cpu_offload(device=device)
    elif mode == "group_offload":
        pipeline.enable_group_offload(
            onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda", low_cpu_mem_usage=True
        )
    else:
        pipeline.to(device)
    name, _ = choose_attention(device, pipeline.unet.dtype, head_sizes(pipeline.unet))
    if name == "xformers":
        pipeline.unet.enable_xformers_memory_efficient_attention()


def head_sizes(unet: torch.nn.Module) -> tuple[int, ...]:
    """Channels of each attention head, every size once, the smallest first."""
    attentions: list[Any] = [one for one in unet.modules() if hasattr(one, "to_q") and hasattr(one, "heads")]
    return tuple(sorted({one.to_q.out_features // one.heads for one in attentions}))


@lru_cache(maxsize=64)
def choose_attention(
    device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...] = (40, 64, 80, 160)
) -> tuple[str, str]:
    """The attention's name, logged once with the reason: xformers if a trial shows that it is faster on this GPU.

    sizes: of the attention heads; Stable Diffusion's and SDXL's if they are not given. xformers must support them all.
    """
    if device.type != "cuda":
        chosen = "PyTorch", "xformers runs only on CUDA GPUs"
    else:
        try:
            from xformers.ops import memory_efficient_attention
        except (ImportError, OSError) as error:
            chosen = "PyTorch", f"xformers cannot be imported ({one_line(error)})"
        else:
            chosen = _faster_attention(memory_efficient_attention, device, dtype, sizes)
    log.info("attention on %s in %s: %s (%s)", device, str(dtype).removeprefix("torch."), *chosen)
    return chosen


def _faster_attention(
    xformers: Callable[..., object], device: torch.device, dtype: torch.dtype, sizes: tuple[int, ...]
) -> tuple[str, str]:
    theirs = own = 0.0
    for size in sizes:
        # As many places as the first block of Stable Diffusion 1.5 has at 512 px, with classifier-free guidance.
        q = torch.randn(2, 4096, 8, size, device=device, dtype=dtype)
        heads = q.transpose(1, 2)
        try:
            theirs += _milliseconds(partial(xformers, q, q, q))
        except (RuntimeError, NotImplementedError, ValueError) as error:
            return "PyTorch", f"xformers has no kernel for heads of {size} on this GPU ({one_line(error)})"
        own += _milliseconds(partial(F.scaled_dot_product_attention, heads, heads, heads))
    name = "xformers" if theirs < 0.95 * own else "PyTorch"
    return name, f"{theirs:.2f} ms with xformers, {own:.2f} ms with PyTorch"


def slow_precision_note(device: torch.device, dtype: torch.dtype) -> str:
    """A warning if this CPU computes in `dtype` without instructions for it; "" if it has them."""
    if device.type != "cpu" or dtype == torch.float32:
        return ""
    have = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}[dtype]
    probe = getattr(torch.ops.mkldnn, have, None)
    if probe is not None and probe():
        return ""
    name = str(dtype).removeprefix("torch.")
    return f"this CPU has no {name} instructions, so {name} is many times slower than float32: use --precision float32"


def _milliseconds(work: Callable[[], object], times: int = 10) -> float:
    work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began) / times


class OomFallback(IntEnum):
    """Fallbacks if memory runs out, in this order."""

    NONE = 0
    EVICT = 1  # every other model and all caches are unloaded
    ONE_BY_ONE = 2  # pictures are generated one by one, and decoded one by one in tiles
    MODEL_OFFLOAD = 3  # parts of the model are kept in main memory while unused
    GROUP_OFFLOAD = 4  # layers of the model are kept in main memory while unused

    def next(self, device: torch.device) -> OomFallback | None:
        """None after the last one."""
        last = OomFallback.ONE_BY_ONE if device.type == "cpu" else OomFallback.GROUP_OFFLOAD
        return None if self >= last else OomFallback(self + 1)


# What the user reads, by the fallback that succeeded.
OOM_NOTES = {
    OomFallback.EVICT: "memory ran out, so other models were unloaded; they will be loaded again when they are needed",
    OomFallback.ONE_BY_ONE: "memory ran out, so the pictures were generated one after the other, which takes longer",
    OomFallback.MODEL_OFFLOAD: "memory ran out, so unused parts were kept in main memory, which takes longer",
    OomFallback.GROUP_OFFLOAD: "memory ran out, so unused layers were kept in main memory, which takes much longer",
}


def give_back(device: torch.device) -> None:
    """Returns the allocator's unused memory to the device."""
    release_unused()
    if device.type == "mps":
        torch.mps.empty_cache()


def share_one_arena() -> None:
    """Lets all threads that start later allocate from one arena of glibc, of which freed memory is returned whole.

    By default each thread has its own, and pieces in use kept 0.1 GiB after a Stable Diffusion 1.5 was evicted.
    """
    if sys.platform == "linux" and (set_option := getattr(ctypes.CDLL(None), "mallopt", None)):
        set_option(_M_ARENA_MAX, 1)


def release_unused() -> None:
    """Frees dropped models: hooks of offloaded models refer to themselves, and CUDA's allocator keeps its memory."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)  # glibc keeps freed blocks of up to 32 MiB, most of a network's tensors: gigabytes after a model
