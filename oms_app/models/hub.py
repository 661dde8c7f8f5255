"""Downloads catalogue entries from the Hugging Face hub: only the listed files, never a pickle, never code.

`snapshot_download` discards an incomplete file (since huggingface_hub 1.x), and a model is mostly one large file. So
the files are downloaded one by one into partial files, which are kept if a download is stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2  # the client of huggingface_hub; its errors do not derive from httpx's
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, filter_repo_objects
from tqdm import tqdm

from oms_app.errors import Stopped, StudioError, one_line
from oms_app.models.catalog import MARKER, Entry
from oms_app.models.folder_kinds import PICKLES
from oms_app.paths import atomic_write
from oms_app.schema import Transfer

NEVER = [f"*{suffix}" for suffix in sorted(PICKLES)] + ["*.py", "*.pkl", "*.msgpack", "*.h5", "*.onnx"]
PARTS = ".parts"  # in a model's folder while it is incomplete: one folder per commit, with the partial files
OnProgress = Callable[[Transfer], None]


def fetch(
    entry: Entry,
    folder: Path,
    endpoint: str | None = None,
    *,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Downloads an entry's files to `folder`. Existing files are not downloaded again; a stopped file resumes.

    endpoint: another hub than huggingface.co. on_progress: called for each piece of up to 10 MiB. A marker is written
    once all is there. Raises StudioError, with the reason, and Stopped within a piece of should_stop() turning true.
    """
    if entry.repository is None:
        raise StudioError(f"{entry.id!r} comes with the app: there is nothing to download")
    try:
        info = HfApi(endpoint=endpoint).model_info(entry.repository, revision=entry.revision, files_metadata=True)
        files = {file.rfilename: file for file in info.siblings or ()}
        names = list(filter_repo_objects(files, allow_patterns=list(entry.files), ignore_patterns=NEVER))
        _require_plain(entry, names)
        _require_room(entry, folder, sum(files[name].size or 0 for name in names))
        done = 0
        for name in names:
            tell = _counter(done, sum(files[one].size or 0 for one in names), on_progress, should_stop)
            url = hf_hub_url(entry.repository, name, revision=info.sha, endpoint=endpoint)
            large = files[name].lfs
            expected = large.sha256 if large else None
            part = folder / PARTS / str(info.sha) / f"{name}.part"
            _fetch_one(url, folder / name, part, files[name].size, expected, tell)
            done += files[name].size or 0
        missing = [pattern for pattern in entry.files if not any(folder.glob(pattern))]
        if missing:
            raise StudioError(
                f"{entry.repository} has no {', '.join(missing)}: the catalogue entry {entry.id!r} is outdated"
            )
        mark = {"repository": entry.repository, "revision": entry.revision, "commit": info.sha}
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        atomic_write(folder / MARKER, json.dumps(mark, indent=1) + "\n")
    except GatedRepoError as error:
        raise StudioError(
            f"{entry.repository} requires its terms to be accepted: do so on its page, then log in with `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise StudioError(
            f"{entry.repository} at revision {entry.revision} is no longer on the hub: use a folder of your own"
        ) from error
    except OfflineModeIsEnabled as error:
        raise StudioError(
            "downloads are switched off (HF_HUB_OFFLINE): unset it, or use a folder of your own"
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise StudioError(
            f"{entry.repository} cannot be downloaded ({one_line(error)}): try again, it continues where it stopped"
        ) from error
    return folder


def _fetch_one(
    url: str, target: Path, part: Path, size: int | None, expected: str | None, counter: Callable[[int], type[Any]]
) -> None:
    """One file, by way of its part. expected: its SHA-256. Raises OSError if what arrived is something else."""
    if size is not None and target.is_file() and target.stat().st_size == size:
        counter(size)().update(0)
        return
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        have = file.tell()
        http_get(
            url, file, resume_size=have, headers=build_hf_headers(), expected_size=size, tqdm_class=counter(have)
        )  # fmt: skip
    with part.open("rb") as file:
        came = hashlib.file_digest(file, "sha256").hexdigest() if expected else None
    if came != expected or (size is not None and part.stat().st_size != size):
        part.unlink()
        raise OSError(f"{target.name}: checksum mismatch; deleted")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


def _require_plain(entry: Entry, names: list[str]) -> None:
    """Raises StudioError if a repository's file would be written outside the model's folder."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise StudioError(f"{entry.repository} has a file named {name!r}, outside its folder: do not trust it")


def _require_room(entry: Entry, folder: Path, size: int) -> None:
    """Raises StudioError if the disk has less room than the rest needs. size: bytes of all the files."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    have = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(there).free
    if size - have > free:
        raise StudioError(
            f"{entry.id!r} takes {size / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB free: "
            "free some space there, or set OMS_HOME to a folder on a larger disk"
        )


def _counter(
    before: int, total: int, on_progress: OnProgress | None, should_stop: Callable[[], bool] | None
) -> Callable[[int], type[Any]]:
    """Makes progress bars for huggingface_hub that show nothing, report bytes, and stop the download on request.

    before: bytes of the files before this one. The bar's initial value is the bytes of this file that are on disk.
    """

    def make(have: int) -> type[Any]:
        class Counter(tqdm):
            def __init__(self, *args: Any, **given: Any) -> None:
                self.came = before + have
                super().__init__(*args, **(given | {"disable": True}))

            def update(self, n: float | None = 1) -> None:
                if should_stop and should_stop():
                    raise Stopped("stopped")
                self.came += int(n or 0)
                if on_progress:
                    on_progress(Transfer(done=self.came, total=max(total, self.came)))

        return Counter

    return make
