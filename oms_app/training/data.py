"""Captioned pictures from disk: a folder with metadata, a .txt beside each picture, or webdataset shards.

All of it is untrusted: nothing is extracted, nothing outside the folder is read, no pickle and no format but JPEG, PNG
and WebP.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from oms_app.errors import StudioError, one_line
from oms_app.pictures import reading

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_CAPTION = 4_000  # characters; far more than a text encoder reads
MAX_TEXT = 2**20  # bytes of a shard's .txt or .json
MAX_BYTES = 2**28  # of a picture's file


@dataclass(frozen=True)
class Captioned:
    """A picture and its caption. file: the picture, or the shard that holds it in `size` bytes from `start`."""

    name: str
    caption: str
    file: Path
    start: int = 0
    size: int | None = None


@dataclass(frozen=True)
class Listing:
    """The contents of a folder, in the same order on every machine. uncaptioned: pictures without a caption."""

    pictures: tuple[Captioned, ...]
    uncaptioned: tuple[str, ...]

    def digest(self) -> str:
        """Identifies a set of pictures by their names and captions."""
        pairs = json.dumps([[one.name, one.caption] for one in self.pictures])
        return hashlib.sha256(pairs.encode()).hexdigest()[:16]


def find(data: Path) -> Listing:
    """Every captioned picture of a folder and the folders in it.

    Captions come from a metadata.jsonl or metadata.csv (`file_name`, `text`) of the picture's own folder or one above
    it, from a .txt beside the picture, or in a .tar shard from KEY.txt or KEY.json (`caption` or `text`).
    Raises StudioError, naming the file, if there is none, if metadata cannot be read, and for a path that leads
    outside.
    """
    if not data.is_dir():
        raise StudioError(f"--data {data} is not a folder: give one with pictures and captions, or with .tar shards")
    files = sorted(path for path in data.rglob("*") if path.is_file())
    if not files:
        raise StudioError(f"--data {data} is empty: put pictures and captions, or .tar shards, into it")
    root = data.resolve()
    captions: dict[Path, str] = {}
    for path in files:
        if path.name in ("metadata.jsonl", "metadata.csv"):
            captions |= _from_metadata(_inside(root, path), root)
    found, bare = [], []
    for path in files:
        if path.suffix.lower() in PICTURES:
            beside = path.with_suffix(".txt")
            caption = captions.pop(_inside(root, path), None)
            if caption is None and beside.is_file():
                caption = _text(_inside(root, beside).read_bytes())
            name = path.relative_to(data).as_posix()
            if caption is None:
                bare.append(name)
            else:
                found.append(Captioned(name, caption, path))
    # What metadata names and is not there, to be named once it is looked for.
    found += [Captioned(path.relative_to(root).as_posix(), text, path) for path, text in sorted(captions.items())]
    for path in files:
        if path.suffix.lower() == ".tar":
            inner, without = _from_shard(_inside(root, path), path.relative_to(data).as_posix())
            found += inner
            bare += without
    if not found and bare:
        raise StudioError(
            f"--data {data} has {len(bare)} pictures and no captions: write metadata.jsonl with file_name and text, "
            "or a .txt beside each picture"
        )
    if not found:
        raise StudioError(f"--data {data} contains no pictures ({', '.join(sorted(PICTURES))}) and no .tar shards")
    return Listing(tuple(found), tuple(bare))


def open_square(one: Captioned, side: int, draw: Sequence[int]) -> np.ndarray:
    """The picture as (side, side, 3) uint8 sRGB: a square of its shorter side, cut out and flipped at random, scaled.

    As D.3 of the OMS paper has it; `draw` is the seed. Transparent areas become white. Raises StudioError.
    """
    with reading(one.file, FORMATS), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        size = one.file.stat().st_size if one.size is None else one.size
        if size > MAX_BYTES:
            raise StudioError(f"{size:,} bytes are too many for a picture")
        with one.file.open("rb") as file:
            file.seek(one.start)
            raw = file.read(size)
        with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith(("I", "F")):
                raise StudioError("its grey has more than 8 bits")  # Pillow would clip it to white
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            picture = upright.convert("RGB")
    rng = np.random.default_rng(draw)
    short = min(picture.size)
    left, top = (int(rng.integers(length - short + 1)) for length in picture.size)
    # Cut before scaling: a picture of 1 × 10,000 pixels must not be enlarged as a whole.
    box = (left, top, left + short, top + short)
    square = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
    array = np.asarray(square)
    return array[:, ::-1].copy() if rng.random() < 0.5 else array.copy()


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _inside(root: Path, path: Path) -> Path:
    """The resolved path. Raises StudioError if it is outside `root`, as a link's target may be."""
    true = path.resolve()
    if not true.is_relative_to(root):
        raise StudioError(f"{path} leads outside {root}, which is not read: copy it into the folder")
    return true


def _text(raw: bytes) -> str:
    return raw[: 4 * MAX_CAPTION].decode("utf-8", errors="replace").strip()[:MAX_CAPTION]


def _from_metadata(path: Path, root: Path) -> dict[Path, str]:
    """Resolved path of a picture → caption."""
    found = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in _rows(path, file):
                name, text = row.get("file_name"), row.get("text")
                if not isinstance(name, str) or not isinstance(text, str):
                    raise StudioError(f"{path}, line {number}: file_name and text are required, both strings")
                found[_inside(root, path.parent / name)] = text.strip()[:MAX_CAPTION]
    except StudioError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise StudioError(f"{path} cannot be read as captions ({one_line(error)}): correct it") from error
    return found


def _rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".csv":
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, row
        return
    for number, line in enumerate(file, 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise StudioError(f"{path}, line {number}: a JSON object with file_name and text is needed")
            yield number, row


def _from_shard(path: Path, shown: str) -> tuple[list[Captioned], list[str]]:
    """A webdataset shard: members of one key, the name up to the first dot of its last part, belong together."""
    pictures: dict[str, tarfile.TarInfo] = {}
    captions: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                inner = PurePosixPath(member.name)
                if inner.is_absolute() or ".." in inner.parts:
                    raise StudioError(f"{path} contains {member.name!r}, a path that leads outside: it is not read")
                if not member.isreg():
                    continue
                stem, _, ending = inner.name.partition(".")
                key, suffix = str(inner.with_name(stem or inner.name)), "." + ending.lower()
                if suffix in PICTURES:
                    pictures[key] = member
                elif suffix in (".txt", ".json") and member.size <= MAX_TEXT:
                    file = shard.extractfile(member)
                    assert file is not None  # it is a regular file
                    caption = _caption(file.read(), suffix)
                    if caption is not None and (suffix == ".txt" or key not in captions):
                        captions[key] = caption
    except StudioError:
        raise
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise StudioError(
            f"{path} cannot be read as an uncompressed .tar shard ({one_line(error)}): write it again"
        ) from error
    found = [
        Captioned(f"{shown}/{member.name}", captions[key], path, member.offset_data, member.size)
        for key, member in pictures.items()
        if key in captions
    ]
    return found, [f"{shown}/{member.name}" for key, member in pictures.items() if key not in captions]


def _caption(raw: bytes, suffix: str) -> str | None:
    """The caption in a .txt or .json, or None if it has none."""
    if suffix == ".txt":
        return _text(raw)
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    for name in ("caption", "text"):
        if isinstance(row.get(name), str):
            return str(row[name]).strip()[:MAX_CAPTION]
    return None
