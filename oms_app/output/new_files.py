"""New files in the folder of pictures: complete or absent, and never in place of another."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from oms_app.errors import StudioError


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Create the folder. An OSError here or in the block becomes a StudioError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StudioError(f"the folder {folder} cannot be written to ({reason}): name another") from error


def timestamp() -> str:
    """What names of files begin with."""
    return time.strftime("%Y%m%d-%H%M%S")


def new_file(folder: Path, stem: str, suffix: str, write: Callable[[Path], None]) -> Path:
    """Write STEM.suffix, or STEM-2.suffix … if that exists. `paths.atomic_path` would replace an existing file.

    write: writes the content to the path that it is given. Raises OSError, and StudioError after 10,000 names.
    """
    temporary = folder / f".{stem}-{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        write(temporary)
        for number in range(1, 10_000):
            path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
            try:
                os.link(temporary, path)  # fails if the name is taken, also if another process takes it just now
            except FileExistsError:
                continue
            except OSError:  # a file system without links
                if path.exists():
                    continue
                temporary.replace(path)
            return path
        raise StudioError(f"{folder} contains 10,000 files named {stem}: name another folder")
    finally:
        temporary.unlink(missing_ok=True)
