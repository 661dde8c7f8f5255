"""Paths of the shipped files and of the user's folder, and atomic writing of files.

In a checkout `assets/` and `presets/` stand beside the package; a wheel carries them in `oms_app/_shipped/`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "_shipped"
SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent
ASSETS = SHIPPED / "assets"
PRESETS = SHIPPED / "presets"
EMBEDDED = "lumen"  # id of the embedded base model
EMBEDDED_FOLDER = ASSETS / EMBEDDED


def user_folder(home: Path | None = None) -> Path:
    """The user's folder of pictures, settings and training runs; it is not created here.

    `home` if given, else $OMS_HOME, else the system's place for an application's data.
    """
    chosen = home or os.environ.get("OMS_HOME") or platformdirs.user_data_path("oms-studio", appauthor=False)
    return Path(chosen).expanduser()


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write the whole file or nothing: see `atomic_path`. Text is written as UTF-8. Raises OSError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which replaces `path` when the block ends and is deleted if the block fails.

    Creates the parent folder. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
