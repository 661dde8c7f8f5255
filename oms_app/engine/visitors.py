"""Whose pictures are whose: on a shared page each visitor has a folder that nobody else sees, else all have one."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from oms_app.errors import StudioError
from oms_app.file_ages import FileAges
from oms_app.output.history import History

logger = logging.getLogger(__name__)
MAX_SESSIONS = 1_000  # open pages whose visitor is remembered
KEPT = 60 * 60.0  # seconds that a picture on a shared page is kept
INTERVAL = 60.0  # seconds between two searches for older ones, and for uploads and previews


class Visitors:
    """pictures: the folder of all. private: each visitor has a folder in it. clock: seconds.

    A visitor is known by a token that the browser made and keeps. An open page tells it once, with its session's name;
    a session that told none has pictures of its own.
    """

    def __init__(self, pictures: Path, *, private: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.pictures, self.private, self._ages = pictures, private, FileAges(clock)
        self._folders: OrderedDict[str, Path] = OrderedDict()
        self._histories: OrderedDict[Path, History] = OrderedDict()
        self._lock = threading.Lock()

    def identify(self, session: str | None, token: str) -> None:
        """Says which visitor a session belongs to. A token that no browser of ours makes is ignored."""
        if not self.private or not session or not re.fullmatch(r"[0-9a-f-]{32,36}", token):
            return
        with self._lock:
            self._folders[session] = self._folder(f"visitor {token}")
            self._folders.move_to_end(session)
            while len(self._folders) > MAX_SESSIONS:
                self._folders.popitem(last=False)

    def history(self, session: str | None) -> History:
        """The pictures that a session may see, and into which its new ones go."""
        with self._lock:
            folder = self.pictures
            if self.private:
                folder = self._folders.get(session or "") or self._folder(f"session {session}")
            history = self._histories.setdefault(folder, History(folder))
            self._histories.move_to_end(folder)
            while len(self._histories) > MAX_SESSIONS:
                self._histories.popitem(last=False)
            return history

    def _folder(self, secret: str) -> Path:
        """A name from which nobody learns the token."""
        return self.pictures / hashlib.sha256(secret.encode()).hexdigest()[:32]

    def delete_in_background(self) -> None:
        """Deletes old pictures from now on, in a thread, if visitors are strangers to each other."""

        def work() -> None:
            while True:
                time.sleep(INTERVAL)
                try:
                    self.delete_old()
                except OSError as error:
                    logger.warning("old pictures were not deleted: %s", type(error).__name__)

        if self.private:
            threading.Thread(target=work, name="old pictures", daemon=True).start()

    def delete_old(self) -> None:
        """Deletes the files that are older than KEPT, deleted pictures that can be brought back too, and all of a
        visitor who has made none since. Call it often, see `FileAges`. A folder in which this fails does not keep the
        others. Raises OSError."""
        self._ages.start_round()
        for folder in (self.pictures, *(one for one in self.pictures.iterdir() if one.is_dir())):
            try:
                self._delete_in(folder)
            except (OSError, StudioError) as error:
                logger.warning("old pictures of a folder were not deleted: %s", type(error).__name__)

    def _delete_in(self, folder: Path) -> None:
        if folder != self.pictures and self._ages.age(folder) > KEPT:
            shutil.rmtree(folder, ignore_errors=True)
            return
        kept = (*folder.iterdir(), *(folder / ".history/deleted").glob("*"))
        old = [path for path in kept if path.is_file() and self._ages.age(path) > KEPT]
        for path in old:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        if old and folder != self.pictures:
            History(folder).refresh()  # else its index keeps their thumbnails and prompts
