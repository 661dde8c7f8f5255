"""Guessing a password is slowed: after a few wrong ones a visitor waits, twice as long after each further one."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

FREE = 5  # wrong passwords before the first wait
FIRST_WAIT, LONGEST_WAIT = 2.0, 15 * 60.0  # seconds
FORGOTTEN = 60 * 60.0  # seconds after the last wrong password
MAX_VISITORS = 10_000


@dataclass
class _Visitor:
    wrong: int = 0
    until: float = 0.0
    last: float = 0.0


class LoginLimit:
    """Wrong passwords by visitor. An attempt counts as wrong until it is known to be good, so that many at once are
    no way around."""

    def __init__(self) -> None:
        self._visitors: OrderedDict[str, _Visitor] = OrderedDict()

    def wait(self, visitor: str) -> float:
        """Seconds until the visitor may try again; 0 means now."""
        known = self._visitors.get(visitor)
        return max(0.0, known.until - time.monotonic()) if known else 0.0

    def begun(self, visitor: str) -> None:
        """An attempt begins."""
        now = time.monotonic()
        known = self._visitors.setdefault(visitor, _Visitor())
        if now - known.last > FORGOTTEN:
            known.wrong = 0
        self._visitors.move_to_end(visitor)
        while len(self._visitors) > MAX_VISITORS:
            self._visitors.popitem(last=False)
        known.wrong, known.last = known.wrong + 1, now
        if known.wrong > FREE:
            known.until = now + min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(known.wrong - FREE - 1, 20))

    def ended(self, visitor: str, *, good: bool) -> None:
        """The attempt that began is known: a good one forgets the wrong ones before it."""
        if good:
            self._visitors.pop(visitor, None)
