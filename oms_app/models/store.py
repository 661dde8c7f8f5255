"""The cache of loaded models: byte budget, least recently used first out, never one that is in use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch


def parameter_bytes(model: Any) -> int:
    """Bytes of the parameters and buffers of a module, a pipeline or anything that holds such in its attributes."""
    if isinstance(model, torch.nn.Module):
        tensors = [*model.parameters(), *model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if hasattr(model, "components"):
        parts = model.components.values()
        return sum(parameter_bytes(part) for part in parts if isinstance(part, torch.nn.Module))
    if hasattr(model, "__dict__"):
        return sum(
            parameter_bytes(part)
            for part in vars(model).values()
            if isinstance(part, torch.nn.Module) or hasattr(part, "components")
        )
    return 0


def automatic_budget() -> int:
    """Half of the memory that is free now, in bytes: the other half is for latents, the page and everyone else."""
    return int(psutil.virtual_memory().available // 2)


@dataclass
class _Record:
    model: Any = None
    size: int = 0
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while loading


@dataclass(frozen=True)
class Statistics:
    """hits, misses (loads), evictions: counts since the start. bytes_used, budget: bytes now. models: loaded now."""

    hits: int
    misses: int
    evictions: int
    bytes_used: int
    budget: int
    models: int


class Store:
    """`with store.use(key) as model:` loads once, shares, and keeps the model from being evicted while it is used.

    load: key → model, called outside the store's lock, so that two different models may load at a time.
    budget: bytes. It is passed only by a model that is loading, or where everything is in use.
    """

    def __init__(self, load: Callable[[Any], Any], budget: int | None = None) -> None:
        self._load = load
        self.budget = automatic_budget() if budget is None else budget
        self._lock = threading.RLock()
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()
        self._hits = self._misses = self._evictions = 0

    @contextmanager
    def use(self, key: Hashable) -> Iterator[Any]:
        with self._lock:
            record = self._records.setdefault(key, _Record())
            self._records.move_to_end(key)
            record.users += 1  # from here on it cannot be evicted
        try:
            with record.lock:  # a second caller waits for the first one's load
                if record.model is None:
                    model = self._load(key)
                    with self._lock:
                        record.model, record.size = model, parameter_bytes(model)
                        self._misses += 1
                else:
                    with self._lock:
                        self._hits += 1
            self._evict()
            yield record.model
        finally:
            with self._lock:
                record.users -= 1
                if record.model is None and record.users == 0 and self._records.get(key) is record:
                    del self._records[key]  # its load failed: the next caller tries anew
            self._evict()

    def clear(self) -> None:
        """Forgets every model that is not in use."""
        with self._lock:
            for key in [key for key, record in self._records.items() if record.users == 0]:
                self._drop(key)

    def statistics(self) -> Statistics:
        with self._lock:
            loaded = [record for record in self._records.values() if record.model is not None]
            used = sum(record.size for record in loaded)
            return Statistics(self._hits, self._misses, self._evictions, used, self.budget, len(loaded))

    def _evict(self) -> None:
        with self._lock:
            used = sum(record.size for record in self._records.values())
            for key in list(self._records):
                if used <= self.budget:
                    return
                record = self._records[key]
                if record.users == 0:
                    used -= record.size
                    self._drop(key)

    def _drop(self, key: Hashable) -> None:
        del self._records[key]
        self._evictions += 1
