"""The user's folder: pictures, settings, training runs. OMS_HOME moves it."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def user_folder(home: Path | None = None) -> Path:
    """`home` where it is given, else $OMS_HOME, else the system's place for an application's data. Not created here."""
    chosen = home or os.environ.get("OMS_HOME") or platformdirs.user_data_path("oms-studio", appauthor=False)
    return Path(chosen).expanduser()
