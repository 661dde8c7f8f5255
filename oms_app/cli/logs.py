"""Logs of the page: to the console and, with rotation, to a file; no prompts unless asked for, and crash reports."""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType

from oms_app import __version__
from oms_app.errors import StudioError

MAX_BYTES, KEPT = 5 * 2**20, 5  # of a log file, and how many older ones are kept
MAX_CRASHES = 20


def start(file: Path | None, *, prompts: bool) -> None:
    """Console and file. prompts: the prompts of requests are logged too. Raises StudioError if the file cannot be
    written."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("oms_app").setLevel(logging.INFO)  # which attention is used, and why
    logging.getLogger("oms_app.prompts").setLevel(logging.DEBUG if prompts else logging.NOTSET)
    if file is None:
        return
    try:
        file.expanduser().parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(file.expanduser(), maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8")
    except (OSError, RuntimeError) as error:
        raise StudioError(f"--log-file {file} cannot be written ({error}): name another") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)


def report_crashes(folder: Path) -> None:
    """An exception that nobody catches is written to a file in `folder`, and named in one line on stderr."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        path = write_report(folder, error)
        where = f"; the report is {path}" if path else ""
        print(f"error: an unexpected {kind.__name__} ended the program{where}", file=sys.stderr)

    sys.excepthook = hook


def write_report(folder: Path, error: BaseException) -> Path | None:
    """The types and places of an error and its causes, without messages, values or home folders, since those may hold
    prompts; None if it cannot be written."""
    lines = [f"OMS Studio {__version__}, Python {sys.version.split()[0]}, {sys.platform}"]
    seen: BaseException | None = error
    while seen is not None:
        lines.append(f"{type(seen).__name__}:")
        lines += [
            f"  {short_path(one.filename)}:{one.lineno} in {one.name}"
            for one in traceback.extract_tb(seen.__traceback__)
        ]
        seen = seen.__cause__ or seen.__context__
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("crash-*.txt"))[: -MAX_CRASHES + 1]:
            old.unlink(missing_ok=True)
        path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6}.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError:
        return None
    return path


def short_path(path: str) -> str:
    """The part of a source file's path that does not depend on whose machine it is."""
    return re.sub(r"^.*[\\/](?=(site-packages|oms_app|lib[\\/]python[\d.]+)[\\/])", "", path).removeprefix(
        str(Path.home())
    )
