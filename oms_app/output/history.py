"""The pictures saved in a folder: found, marked as favourites, deleted and brought back.

The folder is the truth; an index in SQLite makes it quick. In `.history` inside the folder are `index.sqlite3`, which
may be deleted at any time and is then made anew from the PNG files; `favourites`, an empty file named after each; and
`deleted`, from which a picture can be brought back for a week. So several processes may use a folder at once.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from oms_app.errors import StudioError
from oms_app.fields import VARIANT_FIELDS
from oms_app.output import png
from oms_app.pictures import saved_picture
from oms_app.schema import Variant

logger = logging.getLogger(__name__)
T = TypeVar("T")
FORMAT = 1  # of the index; another one is made anew
THUMBNAIL = 192  # pixels
FIRST, BATCH = 60, 200  # files that `refresh` reads at once, and that its thread reads in one transaction
KEPT_DELETED = 7 * 24 * 60 * 60  # seconds
STARTED = time.time() - time.monotonic()  # add `monotonic` for a time that nobody sets while this program runs
PATIENCE = 10.0  # seconds to wait while another process writes the index
SETTLED = 2_000_000_000  # nanoseconds since the last change of a folder whose contents need not be compared again
ATTEMPTS = 4  # to use the index: another process may be making a damaged one anew
TAGS = ("prompt", "luminance", "tint", "warmth", "light", "spread")  # settings of a variant that can be searched for
TABLES = """
CREATE TABLE pictures (name TEXT PRIMARY KEY, time INTEGER NOT NULL, words TEXT, prompt TEXT, model TEXT, seed INTEGER,
    variant TEXT, corrected INTEGER, pair TEXT, tags TEXT, light TEXT, favourite INTEGER NOT NULL DEFAULT 0);
CREATE INDEX by_time ON pictures (time DESC, name DESC);
CREATE INDEX by_pair ON pictures (pair, corrected);
CREATE TABLE thumbnails (name TEXT PRIMARY KEY, webp BLOB NOT NULL);
"""
# The raw picture of a pair is shown with the corrected one, not beside it.
SHOWN = """words IS NOT NULL AND (corrected OR NOT EXISTS
    (SELECT 1 FROM pictures AS other WHERE other.pair = pictures.pair AND other.corrected))"""


@dataclass(frozen=True)
class SavedPicture:
    """A picture of the folder. name: of its file. time: seconds since 1970. corrected: its variant is not raw."""

    name: str
    time: float
    prompt: str
    model: str
    seed: int
    variant: str
    corrected: bool
    favourite: bool


@dataclass(frozen=True)
class Query:
    """Which pictures to find; what is left out is not asked for.

    words: all of them occur in the prompts, in any order and in upper or lower case. tag: one of TAGS, "raw", or
    "light=" and a direction, or "light=picture". light, prefix, suffix: of a look, see `light_of`.
    """

    words: str = ""
    model: str = ""
    tag: str = ""
    light: str = ""
    prefix: str = ""
    suffix: str = ""
    favourites: bool = False


@dataclass(frozen=True)
class Found:
    """pictures: the newest first. total: how many there are. unread: files whose settings are still to be read."""

    pictures: tuple[SavedPicture, ...]
    total: int
    unread: int


@dataclass
class _Reading:
    """The thread that reads what `refresh` left."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    thread: threading.Thread | None = None


class History:
    """folder: of the pictures; it need not exist yet. Raises StudioError if the index cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own = folder / ".history"
        self._reading = _Reading()
        self._settled: tuple[int, int, int] | None = None  # the state that the index was last compared with

    def refresh(self) -> int:
        """Brings the index up to date with the folder. Returns how many files a thread has still to read."""
        state = self._state()
        if state is not None and state == self._settled:
            return 0
        unread = self._index(lambda index: self._compare(index))
        if unread:
            self._add(unread[:FIRST])
        elif state is not None and max(state[:2]) < time.time_ns() - SETTLED:
            self._settled = state
        rest = unread[FIRST:]
        with self._reading.lock:
            running = self._reading.thread is not None and self._reading.thread.is_alive()
            if rest and not running:
                self._reading.thread = threading.Thread(target=self._read, args=(rest,), name="history", daemon=True)
                self._reading.thread.start()
        return len(rest)

    def _state(self) -> tuple[int, int, int] | None:
        """What changes with the folder's files, with the favourites and with another index; None if one is absent.

        Times of folders may be some milliseconds coarse, so only those of some time ago are relied on.
        """
        try:
            marked = self._own / "favourites"
            return (
                self.folder.stat().st_mtime_ns,
                marked.stat().st_mtime_ns if marked.exists() else 0,
                (self._own / "index.sqlite3").stat().st_ino,
            )
        except OSError:
            return None

    def wait(self) -> None:
        """Until the thread of `refresh` has read everything."""
        if (thread := self._reading.thread) is not None:
            thread.join()

    def find(self, query: Query | None = None, first: int = 0, count: int = FIRST) -> Found:
        """`count` pictures from the first-th on."""
        unread = self.refresh()
        where, values = _condition(query or Query())
        columns = "name, time, prompt, model, seed, variant, corrected, favourite"

        def read(index: sqlite3.Connection) -> Found:
            (total,) = index.execute(f"SELECT count(*) FROM pictures WHERE {where}", values).fetchone()
            rows = index.execute(
                f"SELECT {columns} FROM pictures WHERE {where} ORDER BY time DESC, name DESC LIMIT ? OFFSET ?",
                [*values, count, max(0, first)],
            )
            return Found(tuple(map(_picture, rows)), total, unread)

        return self._index(read)

    def models(self) -> list[str]:
        """Of the pictures, by name."""
        self.refresh()
        question = "SELECT DISTINCT model FROM pictures WHERE words IS NOT NULL ORDER BY model"
        return self._index(lambda index: [model for (model,) in index.execute(question)])

    def path(self, name: str) -> Path:
        """Of a picture. Raises StudioError if the folder has no picture of that name."""
        path = self.folder / name
        if not _is_name(name) or path.is_symlink() or not path.is_file():
            raise StudioError(f"there is no picture {str(name)[:80]!r} any more: it was deleted or moved")
        return path

    def settings(self, name: str) -> png.Restored:
        return png.read_any(self.path(name))

    def pair(self, name: str) -> tuple[Path | None, Path | None]:
        """The raw picture and a corrected one of one noise: `name` and its counterpart, if that is there."""
        path, own = self.path(name), self.settings(name)
        self.refresh()
        question = (
            "SELECT name FROM pictures WHERE corrected != ? AND pair = (SELECT pair FROM pictures WHERE name = ?) "
            "ORDER BY abs(time - (SELECT time FROM pictures WHERE name = ?)), name LIMIT 1"
        )
        corrected = own.chosen.is_corrected
        row = self._index(lambda index: index.execute(question, [corrected, name, name]).fetchone())
        other = self.folder / row[0] if row else None
        return (other, path) if corrected else (path, other)

    def thumbnails(self, names: Iterable[str]) -> dict[str, bytes]:
        """WebP files of at most THUMBNAIL pixels, made once. A picture that cannot be read is left out."""
        wanted = list(names)

        def read(index: sqlite3.Connection) -> dict[str, bytes]:
            rows = index.execute(
                f"SELECT name, webp FROM thumbnails WHERE name IN ({', '.join('?' * len(wanted))})", wanted
            )
            return dict(rows)

        found = self._index(read)
        made = {name: webp for name in wanted if name not in found and (webp := _thumbnail(self.folder / name))}

        def write(index: sqlite3.Connection) -> None:
            index.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", list(made.items()))

        if made:
            self._index(write)
        return found | made

    def mark(self, name: str, favourite: bool) -> None:
        """Makes a picture a favourite, or no longer."""
        self.path(name)
        mark = self._own / "favourites" / name
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch() if favourite else mark.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def delete(self, name: str) -> tuple[str, ...]:
        """Removes a picture, and the raw one of its pair unless another corrected one belongs to it. `undelete` brings
        them back within a week. Returns the names."""
        names = [name, *self._left_alone(name)]
        deleted = self._own / "deleted"
        try:
            deleted.mkdir(parents=True, exist_ok=True)
            for one in names:
                self.path(one).replace(deleted / f"{int(time.time())}~{one}")
            self._forget_deleted()
        except OSError as error:
            raise self._unwritable(error) from error
        return tuple(names)

    def undelete(self, names: Iterable[str]) -> None:
        """Brings deleted pictures back. Raises StudioError if one is not there any more."""
        for name in names:
            deleted = sorted(one for one in self._deleted() if one.name.partition("~")[2] == name)
            target = self.folder / name
            if not deleted or target.exists():
                raise StudioError(f"{str(name)[:80]!r} cannot be brought back: a week has passed, or its name is taken")
            deleted[-1].replace(target)

    def _left_alone(self, name: str) -> list[str]:
        """The raw pictures that nothing would show without this corrected one."""
        same = "pair = (SELECT pair FROM pictures WHERE name = ?)"

        def read(index: sqlite3.Connection) -> list[str]:
            others = f"SELECT count(*) FROM pictures WHERE corrected AND name != ? AND {same}"
            if index.execute(others, [name, name]).fetchone() != (0,):
                return []
            raw = f"SELECT name FROM pictures WHERE NOT corrected AND name != ? AND {same}"
            return [one for (one,) in index.execute(raw, [name, name])]

        self.refresh()
        return self._index(read) if self.settings(name).chosen.is_corrected else []

    def _deleted(self) -> list[Path]:
        folder = self._own / "deleted"
        return [one for one in folder.iterdir() if one.name.endswith(".png")] if folder.is_dir() else []

    def _forget_deleted(self) -> None:
        """Removes for good what was deleted more than a week ago. The computer's clock may be set: while this program
        runs, a week takes a week; and if a picture was deleted in the future, or before it was written, its week begins
        now."""
        now = time.time()
        for path in self._deleted():
            since, _, name = path.name.partition("~")
            if not since.isdigit():
                continue
            if int(since) > now + 1 or int(since) + 1 < path.stat().st_mtime <= now:
                if not (begins := path.with_name(f"{int(now)}~{name}")).exists():
                    path.replace(begins)
            elif int(since) < min(now, STARTED + time.monotonic()) - KEPT_DELETED:
                path.unlink(missing_ok=True)
                (self._own / "favourites" / name).unlink(missing_ok=True)

    def _compare(self, index: sqlite3.Connection) -> list[tuple[str, int]]:
        """Removes from the index what is not in the folder, and sets the favourites. Returns the files that are not in
        the index, with their times, the newest first."""
        here = _files(self.folder)
        known: dict[str, int] = dict(index.execute("SELECT name, time FROM pictures"))
        gone = [(name,) for name, written in known.items() if here.get(name) != written]
        if gone:
            index.executemany("DELETE FROM pictures WHERE name = ?", gone)
            index.executemany("DELETE FROM thumbnails WHERE name = ?", gone)
        marked = set(_files(self._own / "favourites"))
        were = {name for (name,) in index.execute("SELECT name FROM pictures WHERE favourite")}
        for names, value in ((marked - were, 1), (were - marked, 0)):
            index.executemany("UPDATE pictures SET favourite = ? WHERE name = ?", [(value, name) for name in names])
        unread = [(name, written) for name, written in here.items() if known.get(name) != written]
        return sorted(unread, key=lambda one: (one[1], one[0]), reverse=True)

    def _read(self, files: Sequence[tuple[str, int]]) -> None:
        for start in range(0, len(files), BATCH):
            try:
                self._add(files[start : start + BATCH])
            except StudioError as error:
                logger.warning("%s", error)
                return

    def _add(self, files: Sequence[tuple[str, int]]) -> None:
        """Reads their settings into the index."""
        marked = set(_files(self._own / "favourites"))
        rows = [(*_row(self.folder / name, written), name in marked) for name, written in files]
        statement = f"INSERT OR REPLACE INTO pictures VALUES ({', '.join('?' * 12)})"
        self._index(lambda index: index.executemany(statement, rows))

    def _index(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns with the open index, in one transaction. A damaged index is made anew."""
        for attempt in range(ATTEMPTS):
            try:
                return self._transaction(work)
            except (sqlite3.DatabaseError, OSError) as error:
                if attempt == ATTEMPTS - 1 or "locked" in str(error):
                    raise self._unwritable(error) from error
                # Of the operational errors, such as a full disk, only a missing table means damage. Some come from
                # another process that is removing a damaged index just now, so these are tried again too.
                if isinstance(error, sqlite3.DatabaseError) and (
                    not isinstance(error, sqlite3.OperationalError) or "no such" in str(error)
                ):
                    logger.warning("%s is made anew: %s", self._own / "index.sqlite3", error)
                    for path in self._own.glob("index.sqlite3*"):
                        path.unlink(missing_ok=True)
                time.sleep(0.02 * 4**attempt)
        raise AssertionError("unreachable")

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._own.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._own / "index.sqlite3", timeout=PATIENCE, isolation_level=None)
        with closing(connection) as index:
            index.execute("PRAGMA synchronous = OFF")  # after a loss of power the index is made anew
            if index.execute("PRAGMA user_version").fetchone() != (FORMAT,):
                index.execute("BEGIN IMMEDIATE")
                if index.execute("PRAGMA user_version").fetchone() != (FORMAT,):
                    for (table,) in index.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                        index.execute(f'DROP TABLE "{table}"')
                    for statement in TABLES.split(";"):
                        index.execute(statement)
                    index.execute(f"PRAGMA user_version = {FORMAT}")
                index.execute("COMMIT")
            index.execute("BEGIN IMMEDIATE")
            result = work(index)
            index.execute("COMMIT")
            return result

    def _unwritable(self, error: Exception) -> StudioError:
        reason = getattr(error, "strerror", None) or str(error)
        return StudioError(f"the history in {self._own} cannot be written ({reason}): make the folder writable")


def light_of(variant: Variant) -> str:
    """The light that a variant's settings make, as a text that is equal for equal settings; "" for raw."""
    if not variant.is_corrected:
        return ""
    settings = variant.model_dump(mode="json", exclude={"name", "correction", "module", "force"})
    defaults = {name: one.default for name, one in VARIANT_FIELDS.items()}
    changed = {name: value for name, value in settings.items() if value != defaults.get(name)}
    return json.dumps([variant.correction, changed], sort_keys=True)


def _files(folder: Path) -> dict[str, int]:
    """The names of the pictures in a folder and when they were written, in nanoseconds."""
    try:
        with os.scandir(folder) as entries:
            return {one.name: one.stat(follow_symlinks=False).st_mtime_ns for one in entries if _is_name(one.name)}
    except OSError:  # it does not exist yet, or a file was deleted just now
        return {}


def _is_name(name: str) -> bool:
    """Whether a text can be the name of a picture in the folder: never a path."""
    if not isinstance(name, str) or not name.endswith(".png") or name.startswith(".") or len(name) > 250:
        return False
    return not set(name) & set("/\\:\0") and name.isprintable()


def _row(path: Path, written: int) -> tuple[Any, ...]:
    """A row of the table `pictures`, but for `favourite`. A file without settings of ours has only name and time."""
    try:
        restored = png.read_any(path)
    except StudioError:
        return (path.name, written, *([None] * 9))
    request, variant = restored.request, restored.chosen
    words = " ".join(filter(None, (request.prompt, request.negative_prompt, variant.prompt, variant.prompt_b)))
    pair = f"{request.model_copy(update={'variants': ()}).model_dump_json()} {restored.index}"
    pair += "".join(sorted(light_of(one) for one in request.variants))
    return (
        path.name, written, words.casefold(), request.prompt, request.model, restored.seed, variant.name,
        variant.is_corrected, hashlib.sha256(pair.encode()).hexdigest(), _tags(variant), light_of(variant),
    )  # fmt: skip


def _tags(variant: Variant) -> str:
    """Such as " luminance light light=left ": what `Query.tag` is compared with."""
    if not variant.is_corrected:
        return " raw "
    changed = [name for name in TAGS if getattr(variant, name, None) != VARIANT_FIELDS[name].default]
    if variant.light is not None:
        changed.append(f"light={variant.light.partition(':')[0]}")  # a direction, or "picture" of `picture:1,2,…`
    return f" {' '.join(changed)} "


def _condition(query: Query) -> tuple[str, list[Any]]:
    """The WHERE clause of a query, and the values in it."""
    where: list[str] = [SHOWN]
    values: list[Any] = []
    for word in query.words.casefold().split()[:20]:
        where.append("instr(words, ?)")
        values.append(word)
    if query.model:
        where.append("model = ?")
        values.append(query.model)
    if query.tag:
        where.append("instr(tags, ?)")
        values.append(f" {query.tag} ")
    if query.light:
        where.append("light = ?")
        values.append(query.light)
    for start, text in ((1, query.prefix), (-len(query.suffix), query.suffix)):
        if text:
            where.append("substr(prompt, ?, ?) = ?")
            values += [start, len(text), text]
    if query.favourites:
        where.append("favourite")
    return " AND ".join(where), values


def _picture(row: Sequence[Any]) -> SavedPicture:
    name, written, prompt, model, seed, variant, corrected, favourite = row
    return SavedPicture(name, written / 1e9, prompt, model, seed, variant, bool(corrected), bool(favourite))


def _thumbnail(path: Path) -> bytes | None:
    try:
        small = saved_picture(path)
    except StudioError:
        return None
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()
