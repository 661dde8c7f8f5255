"""Reads model files without torch: safetensors headers, JSON objects, and stamps that identify files."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from oms_app.errors import StudioError, one_line
from oms_app.models.safetensors_header import Header, parse_header

# How files begin that are often found under the name of a safetensors file.
_CONTENTS = {
    b"version https://git-lfs": "is Git LFS's pointer to a file, not the file (get it with `git lfs pull`)",
    **dict.fromkeys((b"<!doctype", b"<html"), "is a web page, such as a page to sign in at"),
    **dict.fromkeys((b"pk\x03\x04", b"\x80\x02"), "is a pickle under the name of a safetensors file"),
    b"gguf": "is a GGUF file under the name of a safetensors file",
}

_COMPILED = re.compile(r"(?<![^.])_orig_mod\.")  # a level in the names that torch.compile adds
MAX_TENSORS = 50_000  # of a file; SDXL has 2,500 and a LoRA of it 8,000
MAX_TEXT = 64 * 2**20  # bytes of a JSON file: tokenizers have some
Stamp = tuple[tuple[str, int, int, int], ...]


def is_safetensors(path: Path) -> bool:
    """By its ending, in upper or lower case."""
    return path.suffix.lower() == ".safetensors"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that lie directly in a folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if is_safetensors(path) and path.is_file())


def read_header(path: Path) -> Header:
    """Its tensors have the names that they had before torch.compile. Raises StudioError if the file cannot be read or
    is shorter than its header says."""
    return _header(path, stamp_of(path))


@lru_cache(maxsize=64)
def _header(path: Path, stamp: Stamp) -> Header:
    try:
        header = parse_header(path)
        if len(header.tensors) > MAX_TENSORS:
            raise ValueError(f"it has {len(header.tensors):,} tensors, more than {MAX_TENSORS:,}")
        tensors = {_COMPILED.sub("", name): info for name, info in header.tensors.items()}
        return replace(header, tensors=tensors) if len(tensors) == len(header.tensors) else header
    except (OSError, ValueError) as error:
        what = _content_of(path) or f"cannot be read as safetensors ({one_line(error)})"
        raise StudioError(f"{path} {what}: download it again") from error


def _content_of(path: Path) -> str:
    """What a file that is not safetensors contains instead, as the start of a sentence; "" if unknown."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip().lower()
    except OSError:
        return ""
    return next((what for beginning, what in _CONTENTS.items() if start.startswith(beginning)), "")


def stamp_of(*paths: Path) -> Stamp:
    """Which files lie at these paths: (name, bytes, time of change in ns, inode) of each file, of folders two levels.

    A file that is replaced under its name has another stamp. Unreadable paths have none.
    """
    found = []
    for path in paths:
        for file in [path] if path.is_file() else sorted([*path.glob("*"), *path.glob("*/*")]):
            try:
                stat = os.stat(file)
            except OSError:
                continue
            if file.is_file():
                found.append((file.name, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)


def read_text(path: Path) -> str:
    """A small text file, without a byte order mark; it is read again only after it changed.

    Raises OSError, UnicodeDecodeError.
    """
    return _text(path, stamp_of(path))


@lru_cache(maxsize=256)
def _text(path: Path, stamp: Stamp) -> str:
    if not path.is_file() or path.stat().st_size > MAX_TEXT:  # a FIFO would wait for ever
        raise FileNotFoundError(2, f"it is no plain file of at most {MAX_TEXT:,} bytes")
    return path.read_text(encoding="utf-8-sig")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises StudioError if the file is missing or contains anything else."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise StudioError(f"{path} cannot be read ({one_line(error)}): restore it") from error
    if not isinstance(value, dict):
        raise StudioError(f"{path} contains no JSON object: restore it")
    return value


def read_vocabulary(folder: Path) -> frozenset[str]:
    """The words that a small model knows, from vocabulary.json; empty for models that read any word."""
    path = folder / "vocabulary.json"
    if not path.is_file():
        return frozenset()
    words = read_json(path).get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise StudioError(f"{path} must contain {{'words': [text, …]}}: restore it")
    # A vocabulary may list phrases ("pitch black"); what is looked up is single words.
    return frozenset(part for word in words for part in word.lower().split())
