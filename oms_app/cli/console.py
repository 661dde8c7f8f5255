"""What a command prints: progress on stderr; on stdout one JSON object, or tables for a person."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oms_app.schema import STAGE_TEXTS, Progress, Transfer

if TYPE_CHECKING:
    from rich.table import Table

TICK_SECONDS = 0.5  # between two changes of the line in a terminal
FILE_SECONDS = 10.0  # between two lines of progress in a file
WIDE = 1_000  # columns of a table that goes into a file or a pipe: no cell is wrapped
GIB = 2**30


class ProgressLine:
    """What a command is doing, on stderr, once it takes longer than a second: a count with the time left, else the
    time passed. A terminal has one line that is rewritten; a file gets a line every FILE_SECONDS.

    A thread of its own shows the time, so that a stage that reports nothing, such as loading, is not silent.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._text, self._done, self._total = "loading the libraries", 0.0, 0.0
        self._counted_from: tuple[float, float] = (0.0, 0.0)  # what was done when counting began, and when that was
        self._shown_at = time.monotonic()
        self._began = self._stage_began = self._shown_at
        self._shows = False  # there is a line to be removed

    def start(self) -> None:
        """Begins to show the time that passes."""
        threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def __call__(self, progress: Progress) -> None:
        text = STAGE_TEXTS[progress.stage].lower()
        self._set(f"{text}, step" if progress.steps else text, progress.step, progress.steps)

    def count_captions(self, done: int, total: int) -> None:
        """For evaluations, which take hours."""
        self._set("caption", done, total)

    def count_pictures(self, done: int, total: int, seconds: float) -> None:
        """seconds: left, as the work itself estimates it. Each call follows a minute of work, so a file gets each."""
        self._set(f"about {done} of {total} pictures, {seconds / 60:.0f} min left")
        if not self._is_terminal:
            self._show(force=True)

    def show_transfer(self, transfer: Transfer) -> None:
        """For downloads, in GB."""
        self._set("downloaded GB", transfer.done / 1e9, transfer.total / 1e9)

    def close(self) -> None:
        self._ended.set()
        with self._lock:
            self._clear()

    def interrupt(self) -> None:
        """Removes the line, so that another line may be printed."""
        with self._lock:
            self._clear()

    def _set(self, text: str, done: float = 0.0, total: float = 0.0) -> None:
        now = time.monotonic()
        with self._lock:
            if text != self._text or done < self._done:
                self._stage_began, self._counted_from = now, (done, now)
            self._text, self._done, self._total = text, done, total
        self._show()

    def _tick(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            self._show()

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        with self._lock:
            interval = TICK_SECONDS if self._is_terminal else FILE_SECONDS
            due = now - self._began > 1.0 and now - self._shown_at >= interval
            if self._ended.is_set() or not (due or force):
                return
            self._shown_at, self._shows = now, True
            if self._is_terminal:
                print(f"\r\x1b[K{self._line(now)}", end="", file=sys.stderr, flush=True)
            else:
                print(self._line(now), file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        if not self._total:
            return f"{self._text} ({now - self._stage_began:.0f} s)"
        number = "{:.2f}" if self._total != int(self._total) else "{:.0f}"
        text = f"{self._text} {number.format(self._done)} of {number.format(self._total)}"
        first, since = self._counted_from
        if self._done <= first:
            return f"{text} ({now - self._stage_began:.0f} s)"
        left = (now - since) / (self._done - first) * (self._total - self._done)
        return f"{text}, about {f'{left / 60:.0f} min' if left >= 100 else f'{left:.0f} s'} left"

    def _clear(self) -> None:
        if self._shows and self._is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._shows = False


class _LogLines(logging.StreamHandler):
    """The log on stderr, each line in place of the progress."""

    def __init__(self, progress: ProgressLine) -> None:
        super().__init__(sys.stderr)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.interrupt()
        super().emit(record)


@contextlib.contextmanager
def output_on_stderr(level: int = logging.WARNING, *, own_progress: bool = False) -> Iterator[ProgressLine]:
    """While a command works, what libraries print and what this package logs go to stderr: stdout is for the result.

    level: of the package's log. Training logs its results at INFO; a request that is refused should print one line.
    own_progress: the command shows its progress itself.
    """
    progress = ProgressLine()
    if not own_progress:
        progress.start()
    handler, logger = _LogLines(progress), logging.getLogger("oms_app")
    previous = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield progress
        finally:
            progress.close()
            logger.removeHandler(handler)
            logger.setLevel(previous)


def print_result(result: Mapping[str, Any], as_json: bool, *shown: Table | str) -> None:
    """`result` as one line of JSON, or the tables and lines in `shown`."""
    if as_json:
        print(json.dumps(result, allow_nan=False), flush=True)
        return
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDE
    console = Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)
    for part in shown:
        console.print(part, soft_wrap=isinstance(part, str))


def warn_of_few(number: int, of_what: str, enough: int) -> None:
    """A line on stderr if a sample is too small to conclude from."""
    if number < enough:
        print(f"warning: {number} {of_what} are few: the figures scatter; take {enough} or more", file=sys.stderr)


def print_error(message: str, remedy: str = "", code: int = 2) -> int:
    """One line on stderr. Returns the exit code."""
    text = " ".join(message.split()).rstrip(".")
    print(f"error: {text}; {remedy}" if remedy else f"error: {text}", file=sys.stderr, flush=True)
    return code


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table with titles. Columns of numbers are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, title in enumerate(columns):
        numeric = all(_is_number(row[i]) for row in rows)
        made.add_column(title, justify="right" if rows and numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_in_words(value) for value in row))
    return made


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Two columns, name and value. The entries of a mapping follow its name, indented."""
    from rich.table import Table

    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")

    def add(values: Mapping[str, Any], indent: str) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                made.add_row(indent + name.replace("_", " "), "")
                add(value, indent + "  ")
            elif name.endswith("_bytes"):
                size = "-" if value is None else f"{value / GIB:.2f} GiB"
                made.add_row(indent + name.removesuffix("_bytes").replace("_", " "), size)
            else:
                made.add_row(indent + name.replace("_", " "), _in_words(value))

    add(facts, "")
    return made


def _is_number(value: object) -> bool:
    """Also of a number that is formatted already."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            float(value)
            return True
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _in_words(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_in_words, value)) or "none"
    return str(value)
