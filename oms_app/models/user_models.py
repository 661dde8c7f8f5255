"""The user's own models: checks a folder or file, adds it to the catalogue and stores it in own.json.

Only files that were dropped on the page are moved, and no weights are loaded: a header identifies a file.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oms_app.errors import StudioError
from oms_app.models.catalog import OWN, Catalog, Entry, local_path, own_entries, re_id
from oms_app.models.file_kinds import identify
from oms_app.models.folder_kinds import refuse_format, snapshot_of
from oms_app.models.lora_formats import lora_files, lora_in, read_lora
from oms_app.models.reading import is_safetensors, read_header, weight_files
from oms_app.paths import atomic_write
from oms_app.records import locked, read_record, set_aside
from oms_app.schema import PEFT_WEIGHTS

LICENCE = "its maker's"
MAX_PATH = 4_096  # characters
_LOCK = threading.Lock()  # one thread at a time reads, changes and writes the list


def add(catalog: Catalog, source: str, title: str | None = None) -> Entry:
    """Adds a diffusers folder, an OMS module's folder, a checkpoint or a LoRA to the catalogue, permanently.

    source: an absolute path on this machine. title: default the name of the file or folder. Raises StudioError, with
    the reason, for anything that cannot be used.
    """
    path = _locate(source)
    for known in catalog.entries.values():
        if catalog.folder(known).resolve() == path.resolve():
            raise StudioError(f"{path} is in the list already, as {known.title}: choose it by that name")
    entry = _examine(catalog, path)
    with _LOCK:

        def added(models: list[Any]) -> list[Any]:
            nonlocal entry
            taken = [*catalog.entries, *map(_id_of, models)]  # another program may have added some
            name = next(n for n in _names(entry.id) if n not in taken)
            changes = {"id": name, "title": title or entry.title, "licence": LICENCE, "size": _size(path) or None}
            entry = entry.model_copy(update=changes)
            catalog.include(entry)
            return [*models, entry.model_dump(mode="json", exclude_defaults=True)]

        try:
            _change_list(catalog, added)
        except OSError as error:
            if catalog.entries.get(entry.id) is entry:  # else nothing was added yet
                catalog.exclude(entry.id)
            raise StudioError(f"{catalog.downloads / OWN} cannot be written ({error}): free some disk space") from error
    return entry


def keep(catalog: Catalog, dropped: Path) -> Entry:
    """As `add`, for a file that was uploaded to a temporary place: it is moved to own/ in the folder of downloads.

    A PEFT adapter is moved with its config, into a folder of its own.
    """
    path, title = _locate(str(dropped)), dropped.stem
    try:
        kind = _examine(catalog, path).kind  # refused files are not kept
    except StudioError as error:  # the temporary path means nothing to the person
        raise StudioError(str(error).replace(str(path), path.name)) from error
    files = [file for file in lora_files(path) if file.is_file()] if kind == "lora" else [path]
    folder, ending = catalog.downloads / "own", ".safetensors" if len(files) == 1 else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):  # another program may be choosing the same name
            target = next(p for p in (folder / f"{n}{ending}" for n in _names(re_id(title))) if not p.exists())
            if len(files) > 1:
                target.mkdir()
                target = target / path.name
            for file in files:
                shutil.move(file, target if file == path else target.with_name(file.name))
    except OSError as error:
        raise StudioError(f"{path.name} cannot be stored in {folder} ({error.strerror}): free some space") from error
    return add(catalog, str(target), title)


def forget(catalog: Catalog, name: str) -> Entry:
    """Takes a model of the user's own off the list; its files stay. Raises StudioError if it is none of theirs."""
    with _LOCK:
        if name not in catalog.own:
            raise StudioError(f"{name!r} is not a model that you added: only those can be removed")
        entry = catalog.entries[name]
        try:
            _change_list(catalog, lambda models: [one for one in models if _id_of(one) != name])
        except OSError as error:
            raise StudioError(f"{catalog.downloads / OWN} cannot be written ({error}): free some disk space") from error
        catalog.exclude(name)
    return entry


def _locate(source: str) -> Path:
    text = source.strip().strip("\"'").strip()
    if not text:
        raise StudioError("no path was given: type the absolute path of a folder or a .safetensors file")
    if len(text) > MAX_PATH or not text.isprintable():
        raise StudioError(f"{text[:60]!r}… is not a path: type that of a folder or a .safetensors file on this machine")
    path = local_path(text)
    if not path.is_absolute():
        raise StudioError(f"{text!r} is not an absolute path: begin with / or ~, on Windows with a drive such as C:\\")
    if not path.exists():
        raise StudioError(f"there is nothing at {text!r}: check the path")
    path = snapshot_of(path)
    file = None if (path / "model_index.json").is_file() else lora_in(path)
    return (file or path).absolute()  # not resolved: the hub's cache links to files without a name


def _examine(catalog: Catalog, path: Path) -> Entry:
    """What a path contains, as an entry of the catalogue. Raises StudioError for anything that cannot be used."""
    try:
        if path.is_dir():
            return _examine_folder(catalog, path)
        if is_safetensors(path) and path.is_file():
            if identify(path).kind == "lora":
                read_lora(path)
                title = path.parent.name if path.name.lower() == PEFT_WEIGHTS else path.stem
                return Entry(id=re_id(title), kind="lora", title=title, folder=str(path))
        else:
            refuse_format(path, path)
            raise StudioError(f"{path} is not a model: give a folder in the diffusers layout, or a .safetensors file")
        return catalog.find(str(path), "base")
    except OSError as error:
        raise StudioError(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def _examine_folder(catalog: Catalog, folder: Path) -> Entry:
    module = (folder / "oms_module").is_dir()
    found = catalog.find(str(folder), "oms" if module else "base")
    parts = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in [*folder.iterdir(), *(path for part in parts for path in part.iterdir())]:
        _refuse_link(path, folder)
    needed = "oms_module" if module else "unet"
    weights = [path for part in parts for path in weight_files(part)]
    if not any(path.parent.name == needed for path in weights):
        raise StudioError(f"{folder / needed} contains no .safetensors weights: restore the folder")
    for path in weights:
        read_header(path)
    return found


def _refuse_link(path: Path, folder: Path) -> None:
    """Raises StudioError for a link that leads out of a model's folder, except into the hub's cache of files."""
    blobs = [folder.parents[1] / "blobs"] if folder.parent.name == "snapshots" else []
    target = path.resolve()
    if not any(target.is_relative_to(place) for place in (folder, *blobs)):
        raise StudioError(f"{path} is a link that leads out of its folder, to {target}: replace it by the file")


def _names(wanted: str) -> list[str]:
    return [wanted, *(f"{wanted[:95]}-{i}" for i in range(2, 1_000))]


def _size(path: Path) -> int:
    """Bytes of a file, or of the weights in a folder and its parts."""
    files = [path] if path.is_file() else [file for part in (path, *path.glob("*/")) for file in weight_files(part)]
    return sum(file.stat().st_size for file in files)


def _id_of(entry: Any) -> Any:
    return entry.get("id") if isinstance(entry, dict) else None


def _change_list(catalog: Catalog, change: Callable[[list[Any]], list[Any]]) -> None:
    """Reads the list again, changes it and writes it, while no other process does. What this version does not know
    stays as it is; a list that cannot be read is set aside. Raises OSError."""
    path = catalog.downloads / OWN
    with locked(path):
        try:
            record = read_record(path) or {"version": 1, "models": []}
            models = own_entries(record, path)
        except StudioError as error:
            catalog.warnings.append(f"{error}: it is kept as {set_aside(path).name}")
            record, models = {"version": 1}, []
        atomic_write(path, json.dumps(record | {"models": change(models)}, indent=1) + "\n")
