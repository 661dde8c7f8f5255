"""What a command prints: progress on stderr; on stdout one JSON object, or tables for a person."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oms_app.schema import Progress, Transfer

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 1_000  # columns of a table that goes into a file or a pipe: no cell is wrapped
GIB = 2**30


class ProgressLine:
    """One line on stderr that is rewritten in a terminal. Nothing is shown if stderr goes into a file."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._tenth = 0  # of a download, as last printed

    def __call__(self, progress: Progress) -> None:
        steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
        self._show(f"{progress.stage}{steps}")

    def count_captions(self, done: int, total: int) -> None:
        """Evaluations take hours, so a file gets a line for every 20 captions."""
        if self._is_terminal:
            self._show(f"caption {done} of {total}")
        elif done % 20 == 0 or done == total:
            print(f"caption {done} of {total}", file=sys.stderr, flush=True)

    def count_pictures(self, done: int, total: int, seconds: float) -> None:
        """Each call follows a minute of work, so a file gets a line for each."""
        text = f"about {done} of {total} pictures, {seconds / 60:.0f} min left"
        if self._is_terminal:
            self._show(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def show_transfer(self, transfer: Transfer) -> None:
        """Downloads take minutes, so a file gets a line for every tenth of them."""
        tenth = 10 * transfer.done // max(transfer.total, 1)
        text = f"{transfer.done / 1e9:.2f} of about {transfer.total / 1e9:.2f} GB"
        if self._is_terminal:
            self._show(text)
        elif tenth != self._tenth:
            self._tenth = tenth
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        self._show("")

    def _show(self, text: str) -> None:
        if self._is_terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def output_on_stderr(level: int = logging.WARNING) -> Iterator[ProgressLine]:
    """While a command works, what libraries print and what this package logs go to stderr: stdout is for the result.

    level: of the package's log. Training logs its results at INFO; a request that is refused should print one line.
    """
    progress = ProgressLine()
    handler, logger = logging.StreamHandler(sys.stderr), logging.getLogger("oms_app")
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
