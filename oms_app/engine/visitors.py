"""Whose pictures are whose: on a shared page each visitor has a folder that nobody else sees, else all have one."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
import time
from collections import OrderedDict
from pathlib import Path

from oms_app.output.history import History

MAX_SESSIONS = 1_000  # open pages whose visitor is remembered
DAY = 24 * 60 * 60  # seconds that a visitor's pictures are kept after the last one


class Visitors:
    """pictures: the folder of all. private: each visitor has a folder in it.

    A visitor is known by a token that the browser made and keeps. An open page tells it once, with its session's name;
    a session that told none has pictures of its own.
    """

    def __init__(self, pictures: Path, *, private: bool) -> None:
        self.pictures, self.private = pictures, private
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
            self._forget_old()

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

    def _forget_old(self) -> None:
        open_now = set(self._folders.values())
        for folder in self.pictures.iterdir() if self.pictures.is_dir() else ():
            if folder.is_dir() and folder not in open_now and folder.stat().st_mtime < time.time() - DAY:
                shutil.rmtree(folder, ignore_errors=True)
