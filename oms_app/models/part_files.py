"""A part's weights under the names that diffusers and transformers look for, whatever the files are called."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oms_app.errors import StudioError, one_line
from oms_app.models.folder_kinds import PartWeights, part_weights
from oms_app.models.reading import read_header, read_json, read_text


@contextmanager
def readable_part(part: Path, stem: str) -> Iterator[tuple[Path, str | None]]:
    """The folder and the variant to give to a library's `from_pretrained`. stem: "model" or "diffusion_pytorch_model".

    The part itself if its files have the library's names; else, as for endings in upper case, shards without an index
    or configs with a byte order mark, a temporary folder of links to them. Raises StudioError as `part_weights`, and if
    no link can be made.
    """
    weights = part_weights(part)
    if _has_known_names(part, weights, stem) and not _marked_texts(part):
        yield part, weights.variant
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        _link(part, weights, stem, Path(temporary))
        yield Path(temporary), None


@contextmanager
def readable_texts(part: Path) -> Iterator[Path]:
    """A folder with the part's texts, without byte order marks, which Windows' editors write and libraries refuse."""
    if not _marked_texts(part):
        yield part
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        shutil.copytree(part, temporary, dirs_exist_ok=True)
        for file in _marked_texts(Path(temporary)):
            file.write_text(read_text(file), encoding="utf-8")
        yield Path(temporary)


def _marked_texts(part: Path) -> list[Path]:
    """The JSON and text files of a part that begin with a byte order mark."""
    found = []
    for file in sorted(part.iterdir()):
        if file.suffix.lower() in (".json", ".txt") and file.is_file():
            with file.open("rb") as content:
                found += [file] if content.read(3) == codecs.BOM_UTF8 else []
    return found


def _has_known_names(part: Path, weights: PartWeights, stem: str) -> bool:
    names, present = {path.name for path in weights.files}, {path.name for path in part.iterdir()}
    variant = f".{weights.variant}" if weights.variant else ""
    index = f"{stem}.safetensors.index{variant}.json"
    if len(names) == 1:  # diffusers would follow an index, although shards are missing
        return names == {f"{stem}{variant}.safetensors"} and index not in present
    if index not in present:  # is_file() ignores the case on some systems
        return False
    listed = read_json(part / index).get("weight_map")
    return isinstance(listed, dict) and set(listed.values()) == names


def _link(part: Path, weights: PartWeights, stem: str, folder: Path) -> None:
    count = len(weights.files)
    names = {
        file: f"{stem}.safetensors" if count == 1 else f"{stem}-{number:05d}-of-{count:05d}.safetensors"
        for number, file in enumerate(weights.files, start=1)
    }
    for file in part.iterdir():
        if file.suffix.lower() == ".json" and ".index." not in file.name.lower():
            (folder / file.name.lower()).write_text(read_text(file), encoding="utf-8")
    for file, name in names.items():
        try:
            _link_file(file.resolve(), folder / name)
        except OSError as error:
            raise StudioError(
                f"{file} does not have the name that is expected, and cannot be linked ({one_line(error)}): "
                f"rename it to {name}"
            ) from error
    if count > 1:
        found = {tensor: name for file, name in names.items() for tensor in read_header(file).tensors}
        (folder / f"{stem}.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": found}), encoding="utf-8"
        )


def _link_file(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # Windows without the right to make symbolic links
        os.link(source, target)
