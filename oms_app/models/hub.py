"""Fetches what the catalogue names from the Hugging Face hub: only the files wanted, never a pickle, never code."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2  # what huggingface_hub speaks with; its errors are no relatives of httpx's
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from oms_app.models.catalog import MARKER, PICKLES, Entry
from oms_app.requests import Stopped, StudioError, Transfer

NEVER = [f"*{suffix}" for suffix in sorted(PICKLES)] + ["*.py", "*.pkl", "*.msgpack", "*.h5", "*.onnx"]


def fetch(
    entry: Entry,
    folder: Path,
    endpoint: str | None = None,
    *,
    on_progress: Callable[[Transfer], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Downloads an entry's files to `folder`; what is there already is not fetched again, so a stopped download goes
    on.

    endpoint: another hub than huggingface.co. on_progress: told of each piece of up to 10 MB, from several threads.
    A mark is left once all is there. Raises StudioError, with the reason, and Stopped within a piece of should_stop()
    turning true.
    """
    if entry.repository is None:
        raise StudioError(f"{entry.id!r} comes with the app: there is nothing to download")
    _require_room(entry, folder)
    try:
        snapshot_download(
            entry.repository,
            revision=entry.revision,
            local_dir=folder,
            allow_patterns=list(entry.files),
            ignore_patterns=NEVER,
            endpoint=endpoint,
            tqdm_class=_counter(entry, on_progress, should_stop),
        )
    except GatedRepoError as error:
        raise StudioError(
            f"{entry.repository} asks for its terms to be accepted: do so on its page, then log in with `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise StudioError(
            f"{entry.repository} at revision {entry.revision} is not on the hub any more: give a folder of your own"
        ) from error
    except OfflineModeIsEnabled as error:
        raise StudioError(
            "the hub is switched off (HF_HUB_OFFLINE): unset that, or give a folder of your own"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise StudioError(
            f"{entry.repository} cannot be fetched ({reason}): try again, it goes on where it was"
        ) from error
    missing = [pattern for pattern in entry.files if not any(folder.glob(pattern))]
    if missing:
        raise StudioError(
            f"{entry.repository} lacks {', '.join(missing)}: the catalogue entry {entry.id!r} is outdated"
        )
    mark = {"repository": entry.repository, "revision": entry.revision}
    (folder / MARKER).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
    return folder


def _require_room(entry: Entry, folder: Path) -> None:
    """Raises StudioError where the disk has less room than is still to come."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    have = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(there).free
    if (entry.size or 0) - have > free:
        raise StudioError(
            f"{entry.id!r} takes {(entry.size or 0) / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB free: "
            "make room there, or set OMS_HOME to a folder on a larger disk"
        )


def _counter(
    entry: Entry, on_progress: Callable[[Transfer], None] | None, should_stop: Callable[[], bool] | None
) -> type[Any]:
    """A progress bar for huggingface_hub that shows nothing, tells of bytes, and stops the download where asked."""
    counts: dict[int, int] = {}  # by bar: one counts what is written, another what is received
    lock = threading.Lock()

    class Counter(tqdm):
        def __init__(self, *args: Any, **given: Any) -> None:
            self._counts_bytes = given.get("unit") == "B"
            super().__init__(*args, **(given | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            if should_stop and should_stop():
                raise Stopped("stopped")
            if not self._counts_bytes or not n:
                return
            with lock:
                counts[id(self)] = counts.get(id(self), 0) + int(n)
                done = max(counts.values())
            if on_progress:
                on_progress(Transfer(done=done, total=max(entry.size or 0, done)))

    return Counter
