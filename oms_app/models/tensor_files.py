"""The tensors of safetensors files, read as ordinary files, one after the other.

Libraries map weights into memory: if a mapped file is truncated, the process ends (SIGBUS). Read in this way, it is an
error, and no more than the tensors themselves is in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import torch

from oms_app.errors import StudioError
from oms_app.models.reading import read_header, stamp_of

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


class TensorFile:
    """A file whose header is right. Raises StudioError if it cannot be read as safetensors."""

    def __init__(self, path: Path) -> None:
        self._path, stamp, self._header = path, stamp_of(path), read_header(path)
        self._file = path.open("rb", buffering=0)
        stat = os.fstat(self._file.fileno())
        if stamp != ((path.name, stat.st_size, stat.st_mtime_ns, stat.st_ino),):  # replaced since its header was read
            self._file.close()
            raise self._truncated()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def keys(self) -> Iterable[str]:
        return self._header.tensors.keys()

    def get_tensor(self, name: str) -> torch.Tensor:
        """Raises StudioError if the file ends before, or the type is unknown."""
        info = self._header.tensors[name]
        if info.dtype not in TYPES:
            raise StudioError(f"{self._path} has tensors of the type {info.dtype}: take a file in float16 or float32")
        tensor = torch.empty(info.shape, dtype=TYPES[info.dtype])
        if not tensor.numel():
            return tensor
        view = memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        self._file.seek(info.begin)
        while view:
            count = self._file.readinto(view)
            if not count:
                raise self._truncated()
            view = view[count:]
        return tensor

    def _truncated(self) -> StudioError:
        return StudioError(f"{self._path} changed while it was read: wait until it is written, or download it again")


def read_tensors(paths: Iterable[Path], dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """All tensors of some files. dtype: of those that are floating. Raises StudioError as TensorFile."""
    found: dict[str, torch.Tensor] = {}
    for path in paths:
        with TensorFile(path) as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                found[name] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    return found
