"""Who still waits for an answer: the streams of events that browsers and programs hold open, by session."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PATIENCE = 5.0  # seconds without an open stream after which a session counts as gone
MAX_SESSIONS = 20_000


@dataclass
class _Session:
    streams: int = 0
    since: float = field(default_factory=time.monotonic)  # when the last stream closed, or the session was first seen


class Listeners:
    """active: a middleware reports the streams; else nobody counts as gone.

    A session is the browser's session hash, or the event's own id for a request without one.
    """

    def __init__(self) -> None:
        self.active = False
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """A stream of the session's events is open."""
        with self._lock:
            known = self._known(session)
            known.streams += 1
        try:
            yield
        finally:
            with self._lock:
                known.streams -= 1
                known.since = time.monotonic()

    def asks(self, session: str | None) -> None:
        """A request came: the stream for its answer is opened next, so the time without one begins anew."""
        if session:
            with self._lock:
                self._known(session).since = time.monotonic()

    def gone(self, session: str | None, patience: float = PATIENCE) -> bool:
        """Whether nobody has listened for `patience` seconds. Asking for the first time begins that time."""
        if not self.active or not session:
            return False
        with self._lock:
            known = self._known(session)
            return known.streams == 0 and time.monotonic() - known.since > patience

    def _known(self, session: str) -> _Session:
        known = self._sessions.setdefault(session, _Session())
        self._sessions.move_to_end(session)
        while len(self._sessions) > MAX_SESSIONS:
            oldest = next(iter(self._sessions))
            if self._sessions[oldest].streams:  # still in use: it is not forgotten
                self._sessions.move_to_end(oldest)
                break
            del self._sessions[oldest]
        return known


LISTENERS = Listeners()
