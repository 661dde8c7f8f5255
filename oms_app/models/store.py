"""The cache of loaded models: byte budget, least recently used first out, never one that is in use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from oms_app.models.memory import Bytes, automatic_budget, release_unused


def parameter_bytes(model: Any) -> Bytes:
    """Bytes of the parameters and buffers of a module, a pipeline or any object with such attributes."""
    if isinstance(model, torch.nn.Module):
        own = [0, 0]
        for tensor in (*model.parameters(), *model.buffers()):
            own[tensor.device.type not in ("cpu", "meta")] += tensor.numel() * tensor.element_size()
        return Bytes(*own)
    parts = model.components if hasattr(model, "components") else getattr(model, "__dict__", {})
    held = (part for part in parts.values() if isinstance(part, torch.nn.Module) or hasattr(part, "components"))
    return sum(map(parameter_bytes, held), Bytes())


@dataclass
class _Record:
    model: Any = None
    size: Bytes = field(default_factory=Bytes)
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while loading


@dataclass(frozen=True)
class StoreStatistics:
    """hits, misses (loads), evictions: counts since the start. models: loaded now. bytes_used, budget: bytes of the
    host's memory; device_bytes_used, device_budget: of the device's own, None if it has none."""

    hits: int
    misses: int
    evictions: int
    bytes_used: int
    budget: int
    models: int
    device_bytes_used: int = 0
    device_budget: int | None = None


class Store:
    """`with store.use(key) as model:` loads once, shares, and keeps the model from being evicted while it is used.

    load: key → model, called outside the store's lock, so that two different models can load at the same time.
    stale: whether a key's files are gone or were replaced: its model is unloaded with the next load, once it is idle.
    budget, device_budget: bytes of the host's memory and of the device's own. expect: key → bytes that its model will
    use, so that others are evicted before it is loaded. A budget is exceeded only if everything is in use.
    """

    def __init__(
        self,
        load: Callable[[Any], Any],
        budget: int | None = None,
        device_budget: int | None = None,
        expect: Callable[[Any], Bytes] | None = None,
        stale: Callable[[Any], bool] | None = None,
    ) -> None:
        self._load = load
        self._expect = expect or (lambda key: Bytes())
        self._stale = stale or (lambda key: False)
        self.budget = automatic_budget() if budget is None else budget
        self.device_budget = device_budget
        self._lock = threading.RLock()
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()
        self._hits = self._misses = self._evictions = 0
        self._released = False  # models were dropped since memory was last released

    @contextmanager
    def use(self, key: Hashable) -> Iterator[Any]:
        with self._lock:
            record = self._records.setdefault(key, _Record())
            self._records.move_to_end(key)
            record.users += 1  # from here on it cannot be evicted
        try:
            with record.lock:  # a second caller waits for the first one's load
                self._provide(key, record)
            self._evict()
            yield record.model
        finally:
            with self._lock:
                record.users -= 1
                if record.model is None and record.users == 0 and self._records.get(key) is record:
                    del self._records[key]  # its load failed: the next caller tries again
            del record  # else this frame would keep the model that is evicted
            self._evict()

    def _provide(self, key: Hashable, record: _Record) -> None:
        """The record's model, loaded if it is not yet, after making room for it."""
        if record.model is not None:
            with self._lock:
                self._hits += 1
            return
        expected = self._expect(key)  # reads the headers of its files
        with self._lock:
            record.size = expected  # reserved while it loads
        self._drop_stale()
        self._evict()
        self.release_evicted()
        model = self._load(key)
        with self._lock:
            record.model, record.size = model, parameter_bytes(model)
            self._misses += 1

    def release_evicted(self) -> None:
        """Gives the memory of evicted models back to the system, once nothing refers to them."""
        if self._released:
            self._released = False
            release_unused()

    def clear(self) -> None:
        """Unloads every model that is not in use."""
        with self._lock:
            idle = [key for key, record in self._records.items() if record.users == 0]
            for key in idle:
                self._drop(key)
        self.release_evicted()

    def statistics(self) -> StoreStatistics:
        with self._lock:
            loaded = [record for record in self._records.values() if record.model is not None]
            used = sum((record.size for record in loaded), Bytes())
            return StoreStatistics(
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                bytes_used=used.host,
                budget=self.budget,
                models=len(loaded),
                device_bytes_used=used.device,
                device_budget=self.device_budget,
            )

    def _evict(self) -> None:
        """The least recently used first, and only models that free the kind of memory that is needed."""
        with self._lock:
            used = sum((record.size for record in self._records.values()), Bytes())
            for key in list(self._records):
                size, users = self._records[key].size, self._records[key].users
                over_host = used.host > self.budget and size.host > 0
                over_device = self.device_budget is not None and used.device > self.device_budget and size.device > 0
                if users == 0 and (over_host or over_device):
                    used += Bytes(-size.host, -size.device)
                    self._drop(key)

    def _drop_stale(self) -> None:
        with self._lock:
            for key in [key for key, record in self._records.items() if record.users == 0 and self._stale(key)]:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        del self._records[key]
        self._evictions += 1
        self._released = True
