"""How old files are, by a clock that nobody sets: old uploads, previews and pictures of visitors are deleted by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


class FileAges:
    """A file's age counts from the first look that saw it as it is, since the computer's clock may be set. So look
    often, in rounds; a file that was not looked at in the last round is forgotten. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before: dict[Path, tuple[tuple[int, int], float]] = {}
        self._seen: dict[Path, tuple[tuple[int, int], float]] = {}  # of each file its times, and the first look

    def start_round(self) -> None:
        self._before, self._seen = self._seen, {}

    def age(self, path: Path) -> float:
        """Seconds; 0 at the first look. Also of a folder. Raises OSError."""
        stat, now = path.stat(), self._clock()
        times = (stat.st_mtime_ns, stat.st_ctime_ns)
        known = self._before.get(path, (times, now))
        self._seen[path] = known if known[0] == times else (times, now)
        return now - self._seen[path][1]
