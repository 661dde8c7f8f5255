"""Fetches what the catalogue names from the Hugging Face hub: only the files wanted, never a pickle, never code."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from oms_app.models.catalog import MARKER, PICKLES, Entry
from oms_app.requests import StudioError

NEVER = [f"*{suffix}" for suffix in sorted(PICKLES)] + ["*.py", "*.pkl", "*.msgpack", "*.h5", "*.onnx"]


def fetch(entry: Entry, folder: Path, endpoint: str | None = None) -> Path:
    """Downloads an entry's files to `folder`; what is there already is not fetched again, so a stopped download goes
    on.

    endpoint: another hub than huggingface.co. A mark is left once all is there. Raises StudioError, with the reason.
    """
    if entry.repository is None:
        raise StudioError(f"{entry.id!r} comes with the app: there is nothing to download")
    try:
        snapshot_download(
            entry.repository,
            revision=entry.revision,
            local_dir=folder,
            allow_patterns=list(entry.files),
            ignore_patterns=NEVER,
            endpoint=endpoint,
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
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
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
