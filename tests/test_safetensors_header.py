"""Headers of safetensors files: our reader takes and refuses what the library does, and survives truncation."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from oms_app.models.safetensors_header import parse_header


def written(path: Path, header: Any, size: int) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    return path


def one(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


F16 = {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]}
HEADERS: list[tuple[Any, int]] = [
    (one(), 8), (one(), 7), (one(), 9), ({}, 0), ({}, 1), (one() | {"b": F16}, 12), ({"b": F16} | one(), 12),
    (one() | {"b": F16 | {"data_offsets": [4, 8]}}, 8), (one() | {"b": F16 | {"data_offsets": [10, 14]}}, 14),
    (one(dtype="F31"), 8), (one(dtype="BF16"), 8), (one(shape=[]), 8), (one(shape=[-2]), 8), (one(shape=[2.0]), 8),
    (one(shape=[2**63]), 8), (one(shape=[2**40, 2**40]), 8), (one(offsets=[8, 0]), 8), (one(offsets=[0]), 8),
    (one(offsets=[0, 8, 8]), 8), (one(shape=[0], offsets=[0, 0]), 0), (one(shape=None), 8), ({"a": 3}, 0),
    ({"__metadata__": {"x": "y"}} | one(), 8), ({"__metadata__": {"x": 1}} | one(), 8),
    ({"__metadata__": None} | one(), 8), ({"__metadata__": []} | one(), 8), ({"a": one()["a"] | {"more": 1}}, 8),
    (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2),
    (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
    (b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', 1), (b'{"x":NaN}', 0), (b"{}\0", 0),
    (b"\xef\xbb\xbf{}", 0),
    ({"__metadata__": {"x": {"y": "z"}}} | one(), 8), (b"[]", 0), (b"", 0), (b" {}", 0), (b"{}   ", 0), (b"{", 0),
    (b"\xff\xfe", 0), (b'{"a":' * 2000 + b"1" + b"}" * 2000, 0), (one(dtype="F8_E4M3", shape=[8]), 8),
    (one(dtype="I64", shape=[1]), 8), (one(dtype="BOOL", shape=[8]), 8), (one(dtype="U16", shape=[4]), 8),
]  # fmt: skip


def agree(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            wanted: Any = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError):
        with pytest.raises(ValueError):
            parse_header(path)
        return
    found = parse_header(path)
    assert {name: (one.dtype, one.shape) for name, one in found.tensors.items()} == wanted
    assert found.metadata == metadata


@pytest.mark.parametrize("index", range(len(HEADERS)))
def test_it_takes_and_refuses_what_the_library_does(tmp_path: Path, index: int) -> None:
    agree(written(tmp_path / "a.safetensors", *HEADERS[index]))


def test_of_damaged_files_too(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    values = {name: np.ones((2, k), np.float16) for k, name in enumerate(("a", "b.c", "ä"), 1)}
    save_file(values, path, metadata={"format": "pt"})
    good, chance = path.read_bytes(), random.Random(0)
    for _ in range(400):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.choice(b'0123456789{}[]":,Faz\0\xff')
        path.write_bytes(damaged[: chance.choice((len(good), chance.randrange(len(good))))])
        agree(path)


TRUNCATED = """
import os, sys
from pathlib import Path
from oms_app.models import safetensors_header as ours
path, loads = Path(sys.argv[1]), ours.json.loads
ours.json.loads = lambda text: (os.truncate(path, 8), loads(text))[1]  # while it is read
try:
    print(len(ours.parse_header(path).tensors))
except ValueError as error:
    print(error)
"""


def test_a_file_that_is_truncated_while_it_is_read_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.ones(10_000, np.float32)}, path)
    run = subprocess.run(
        [sys.executable, "-c", TRUNCATED, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, "1\n"), run.stderr
