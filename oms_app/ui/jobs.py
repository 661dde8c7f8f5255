"""State of running work: a stop flag for each open page, and estimates of the time left."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from oms_app.ui.listeners import LISTENERS

MAX_SESSIONS = 1_000  # open pages whose stop flag is remembered


class StopFlag(threading.Event):
    """Set by Stop; also if nobody listens to the session any more."""

    def __init__(self, session: str | None) -> None:
        super().__init__()
        self._session = session

    def is_set(self) -> bool:
        return super().is_set() or LISTENERS.gone(self._session)


class StopFlags:
    """A stop flag for each open page, by its session hash. The oldest are forgotten, except of running requests."""

    def __init__(self) -> None:
        self._flags: OrderedDict[str | None, threading.Event] = OrderedDict()
        self._running: Counter[str | None] = Counter()
        self._lock = threading.Lock()

    def reset(self, session: str | None) -> threading.Event:
        """A new flag, for a request that begins to wait or to run."""
        flag = StopFlag(session)
        with self._lock:
            self._flags[session] = flag
            self._flags.move_to_end(session)
            old = len(self._flags) - MAX_SESSIONS
            for one in [one for one in self._flags if one not in self._running][: max(0, old)]:
                del self._flags[one]
        return flag

    @contextmanager
    def running(self, session: str | None) -> Iterator[threading.Event]:
        """The session's flag, which is not forgotten in the block."""
        with self._lock:
            self._running[session] += 1
        try:
            yield self.of(session)
        finally:
            with self._lock:
                self._running -= Counter([session])

    def is_set(self, session: str | None) -> bool:
        with self._lock:
            flag = self._flags.get(session)
        return flag is not None and flag.is_set()

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
