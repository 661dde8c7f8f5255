"""The header of a safetensors file, read as an ordinary file and checked as the library safetensors does.

The library maps files into memory, and if a mapped file is truncated, the process ends (SIGBUS).
Format: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MAX_HEADER = 100_000_000  # bytes, as in the library
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """dtype: as safetensors names it, such as "F16" or "F8_E4M3". begin, end: bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The contents of a safetensors file, without the values."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def parse_header(path: Path) -> Header:
    """Raises OSError, and ValueError if the file is not safetensors or has another size than its header says."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MAX_HEADER, size - 8):
            raise ValueError("its header is not there, or too long")
        text = file.read(length)
    try:
        content = json.loads(text.decode())
    except RecursionError as error:
        raise ValueError("its header is too deep") from error
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    metadata = content.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text")
    first = 8 + length
    tensors = {name: _tensor(name, given, first) for name, given in content.items()}
    at = first
    for one in sorted(tensors.values(), key=lambda one: (one.begin, one.end)):
        if one.begin != at:
            raise ValueError("its tensors overlap, or leave gaps")
        at = one.end
    if at != size:
        raise ValueError(f"it has {size:,} bytes, not {at:,} as its header says")
    return Header(tensors, metadata)


def _tensor(name: str, given: Any, first: int) -> TensorInfo:
    """first: where the values begin in the file."""
    if not isinstance(given, dict) or not {"dtype", "shape", "data_offsets"} <= given.keys():
        raise ValueError(f"its tensor {name[:60]!r} is not described")
    dtype, shape, offsets = given["dtype"], given["shape"], given["data_offsets"]
    if not (isinstance(dtype, str) and dtype in BITS):
        raise ValueError(f"its tensor {name[:60]!r} has an unknown type")
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2):
        raise ValueError(f"its tensor {name[:60]!r} has no shape or place")
    begin, end = offsets
    if (end - begin) * 8 != prod(shape) * BITS[dtype]:
        raise ValueError(f"its tensor {name[:60]!r} has another size than its shape says")
    return TensorInfo(dtype, tuple(shape), first + begin, first + end)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(one) is int and 0 <= one < 2**63 for one in values)
