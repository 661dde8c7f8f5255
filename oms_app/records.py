"""Small JSON files of the user's: bounded when read, written whole, shared by processes, set aside when damaged."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oms_app.errors import StudioError, one_line

MAX_BYTES = 16 * 2**20
LOCK_SECONDS = 10.0  # after which another process is believed to hang


def read_record(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is no file. Raises StudioError for anything else, also for what is no
    plain file, such as a FIFO, which would wait for ever."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a plain file")
        if status.st_size > max_bytes:
            raise ValueError(f"it is larger than {max_bytes:,} bytes")
        value = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(value, dict):
            raise ValueError("it contains no JSON object")
        return value
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StudioError(f"{path} cannot be read ({one_line(error)})") from error


def set_aside(path: Path) -> Path:
    """Renames a damaged file, so that nothing of it is lost, and returns its new path. Raises OSError."""
    for number in range(1, 1_000):
        target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d')}-{number}")
        if not os.path.lexists(target):
            path.rename(target)
            return target
    raise OSError(f"{path.parent} contains 1,000 damaged copies of {path.name}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is in this block for a path. Creates the folder. Raises OSError, also if another
    process does not leave it within LOCK_SECONDS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() > until:
                raise TimeoutError(f"another process holds {path.name}")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)  # also unlocks


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_leftovers(*folders: Path, older_than: float = 60 * 60.0) -> None:
    """Deletes temporary files of processes that were killed. older_than: seconds; younger ones may be in use. Those
    from the future are old too: the computer's clock was set since."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    if abs(time.time() - path.lstat().st_mtime) > older_than and path.is_file():
                        path.unlink()
