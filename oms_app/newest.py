"""A dictionary that stays small, for what would grow with every visitor, request or model while a page runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Newest(OrderedDict[K, V]):
    """At most `most` entries: those that were set last. make: the value of a missing key, as in a defaultdict."""

    def __init__(self, most: int, make: Callable[[], V] | None = None) -> None:
        super().__init__()
        self._most, self._make = most, make

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)

    def __missing__(self, key: K) -> V:
        if self._make is None:
            raise KeyError(key)
        self[key] = made = self._make()
        return made
