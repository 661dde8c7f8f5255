"""How a model lies in memory: its precision, where its parts wait, which attention; and what to give up, step by step,
when memory runs out."""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import psutil
import torch
import torch.nn.functional as F

from oms_app.errors import StudioError, one_line
from oms_app.models.failures import is_out_of_memory as is_out_of_memory

log = logging.getLogger(__name__)
GiB = 2**30
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Mode = Literal["full", "model_offload", "group_offload"]
AskedMode = Literal["auto", "full", "model_offload", "group_offload"]
SMALL = 200_000_000  # parameters: below it full precision costs nothing, and pictures are the same on every machine
WORKING = 2 * GiB  # what a UNet and a VAE need beside their weights for a 512 or 768 px picture


@dataclass(frozen=True)
class Size:
    """Parameters of a model on disk, counted without reading weights. largest: of its largest part."""

    total: int
    largest: int


def size_on_disk(path: Path) -> Size:
    """Of a .safetensors file or of a folder with a subfolder for each part; what cannot be read counts as nothing."""
    if path.is_file():
        total = _parameters(path, path.stat().st_mtime_ns)
        return Size(total, total)
    parts: dict[Path, int] = {}
    for file in sorted(path.glob("*/*.safetensors")):
        twin = file.with_name(file.name.replace(".fp16.", "."))
        if twin == file or not twin.is_file():  # a part that is there in both precisions is loaded once
            parts[file.parent] = parts.get(file.parent, 0) + _parameters(file, file.stat().st_mtime_ns)
    return Size(sum(parts.values()), max(parts.values(), default=0))


@lru_cache(maxsize=256)
def _parameters(file: Path, changed: int) -> int:
    """The sum over the file's header, which lies at its beginning: 8 bytes of length, then JSON."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > 100 * 2**20:
                return 0
            header = json.loads(stream.read(length))
        return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0  # the loader will say what is wrong with it


@dataclass(frozen=True)
class Policy:
    """What was asked for, and what "auto" makes of it for a model of a given size.

    Raises StudioError for a precision or mode that there is not, or that the device cannot do.
    """

    device: torch.device
    precision: Precision = "auto"
    mode: AskedMode = "auto"
    device_budget: int | None = None  # bytes; None where the device shares the host's memory

    def __post_init__(self) -> None:
        for what, value, known in (("precision", self.precision, Precision), ("memory mode", self.mode, AskedMode)):
            if value not in get_args(known):
                raise StudioError(f"the {what} is {value!r}: choose one of {', '.join(get_args(known))}")
        if self.device.type == "cpu" and self.mode not in ("auto", "full"):
            raise StudioError(
                f"the memory mode {self.mode} needs a GPU to save memory on: take auto or full on the CPU"
            )

    def dtype(self, parameters: int) -> torch.dtype:
        """float32 on the CPU and for small models, else half of it."""
        if self.precision != "auto":
            named: torch.dtype = getattr(torch, self.precision)
            return named
        return torch.float32 if self.device.type == "cpu" or parameters < SMALL else torch.float16

    def place(self, size: Size, dtype: torch.dtype) -> Mode:
        """Whole on the device where it fits, else part by part, else layer by layer."""
        if self.mode != "auto":
            return self.mode
        if self.device_budget is None or dtype.itemsize * size.total <= self.device_budget:
            return "full"
        return "model_offload" if dtype.itemsize * size.largest <= self.device_budget else "group_offload"


def automatic_budget() -> int:
    """Half of the host's memory that is free now, in bytes: the rest is for latents, the page and everyone else."""
    return int(psutil.virtual_memory().available // 2)


def automatic_device_budget(device: torch.device) -> int | None:
    """Bytes of the device's own memory that loaded models may fill; None where it has none of its own.

    All that is free now but for WORKING, and at least half of it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    elif device.type == "mps":
        free = max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    else:
        return None
    return max(free - WORKING, free // 2)


def place(pipeline: Any, device: torch.device, mode: Mode) -> None:
    """Puts the parts of a stock pipeline where the mode wants them, and gives its UNet the faster attention."""
    if mode == "model_offload":
        pipeline.enable_model_cpu_offload(device=device)
    elif mode == "group_offload":
        pipeline.enable_group_offload(
            onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda", low_cpu_mem_usage=True
        )
    else:
        pipeline.to(device)
    name, _ = choose_attention(device, pipeline.unet.dtype)
    if name == "xformers":
        pipeline.enable_xformers_memory_efficient_attention()


@cache
def choose_attention(device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The attention's name and the reason, told once to the log: xformers where it is faster on this GPU, by trial."""
    if device.type != "cuda":
        chosen = "PyTorch", "xformers runs on CUDA GPUs alone"
    else:
        try:
            from xformers.ops import memory_efficient_attention
        except (ImportError, OSError) as error:
            chosen = "PyTorch", f"xformers cannot be imported ({one_line(error)})"
        else:
            # The first block of Stable Diffusion 1.5 at 512 px, with classifier-free guidance.
            q = torch.randn(2, 4096, 8, 40, device=device, dtype=dtype)
            heads = q.transpose(1, 2)
            try:
                theirs = _milliseconds(lambda: memory_efficient_attention(q, q, q))
            except (RuntimeError, NotImplementedError, ValueError) as error:
                chosen = "PyTorch", f"xformers has no kernel for this GPU and precision ({one_line(error)})"
            else:
                own = _milliseconds(lambda: F.scaled_dot_product_attention(heads, heads, heads))
                name = "xformers" if theirs < 0.95 * own else "PyTorch"
                chosen = name, f"{theirs:.2f} ms with xformers, {own:.2f} ms with PyTorch"
    log.info("attention on %s in %s: %s (%s)", device, str(dtype).removeprefix("torch."), *chosen)
    return chosen


def _milliseconds(work: Callable[[], object], times: int = 10) -> float:
    work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began) / times


class OomFallback(IntEnum):
    """What is given up when memory runs out, one after the other."""

    NONE = 0
    EVICT = 1  # every other model and all caches
    ONE_BY_ONE = 2  # pictures are painted singly, decoded singly and in tiles
    OFFLOAD = 3  # the model's layers wait in the host's memory

    def next(self, device: torch.device) -> OomFallback | None:
        """None where nothing is left to give up."""
        last = OomFallback.ONE_BY_ONE if device.type == "cpu" else OomFallback.OFFLOAD
        return None if self >= last else OomFallback(self + 1)


# What the person is told, by what it took in the end.
OOM_NOTES = {
    OomFallback.EVICT: "memory ran out, so other models were put away; they will be loaded again when they are needed",
    OomFallback.ONE_BY_ONE: "memory ran out, so the pictures were painted one after the other, which takes longer",
    OomFallback.OFFLOAD: "memory ran out, so the model waited in main memory layer by layer, which takes much longer",
}


def give_back(device: torch.device) -> None:
    """Returns what the allocator holds without use to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
