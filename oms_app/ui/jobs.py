"""State of running work: a stop flag for each open page, and estimates of the time left."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

MAX_SESSIONS = 1_000  # open pages whose stop flag is remembered


class StopFlags:
    """A stop flag for each open page, by its session hash. The oldest are forgotten."""

    def __init__(self) -> None:
        self._flags: OrderedDict[str | None, threading.Event] = OrderedDict()
        self._lock = threading.Lock()

    def reset(self, session: str | None) -> threading.Event:
        """A new flag, for a request that begins to wait or to run."""
        flag = threading.Event()
        with self._lock:
            self._flags[session] = flag
            self._flags.move_to_end(session)
            while len(self._flags) > MAX_SESSIONS:
                self._flags.popitem(last=False)
        return flag

    def of(self, session: str | None) -> threading.Event:
        """The flag of the session's latest request."""
        with self._lock:
            flag = self._flags.get(session)
        return flag or self.reset(session)


class RemainingTime:
    """Estimates the time left from the speed so far. minimum: seconds that must pass before the first estimate."""

    def __init__(self, minimum: float = 0.0) -> None:
        self._minimum = minimum
        self._first: tuple[float, float] | None = None  # what was done at the first call, and when that was

    def left(self, done: float, total: float) -> float | None:
        """Seconds; None until something was done since the first call. A smaller `done` starts again."""
        now = time.monotonic()
        if self._first is None or done < self._first[0]:
            self._first = (done, now)
        first, began = self._first
        if done <= first or now - began < self._minimum:
            return None
        return (now - began) / (done - first) * (total - done)
