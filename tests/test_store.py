"""The store of loaded models: shared, locked while used, within its budget; and the small caches."""

from __future__ import annotations

import random
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oms_app.engine.caches import ByteCache
from oms_app.models.store import Bytes, Store, parameter_bytes

KILOBYTE = 1_024


class Loader:
    """Models of one kilobyte; counts loads, fails for the key "broken"."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    def __call__(self, key: str) -> torch.nn.Module:
        self.loads.append(key)
        time.sleep(0.002)
        if key == "broken":
            raise OSError("broken")
        return torch.nn.Linear(256, 1, bias=False)


def test_a_model_is_loaded_once_and_the_oldest_goes_first() -> None:
    loader = Loader()
    store = Store(loader, budget=2 * KILOBYTE)
    for key in ["a", "b", "a", "c", "a", "b"]:
        with store.use(key):
            pass
    assert loader.loads == ["a", "b", "c", "b"]  # c drove out b, which was the least recently used
    statistics = store.statistics()
    assert (statistics.hits, statistics.misses, statistics.evictions) == (2, 4, 2)
    assert statistics.bytes_used == 2 * KILOBYTE


def test_what_is_in_use_is_never_evicted() -> None:
    store = Store(Loader(), budget=KILOBYTE)
    with store.use("a") as a:
        with store.use("b"), store.use("c"):
            assert store.statistics().models == 3  # over budget, for all are in use
        with store.use("a") as again:
            assert again is a
    assert store.statistics().bytes_used <= KILOBYTE


def test_a_failed_load_leaves_nothing_behind() -> None:
    store = Store(Loader(), budget=KILOBYTE)
    for _ in range(2):
        with pytest.raises(OSError, match="broken"), store.use("broken"):
            pass
    assert store.statistics().models == 0
    with store.use("a"):
        pass


def test_threads_share_loads_and_keep_the_budget() -> None:
    loader = Loader()
    store = Store(loader, budget=3 * KILOBYTE)
    failures: list[str] = []
    in_use: dict[int, int] = {}

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            key = chance.choice("abcdef")
            with store.use(key) as model:
                if store.statistics().bytes_used > (3 + 4) * KILOBYTE:
                    failures.append("budget")
                if not isinstance(model, torch.nn.Module):
                    failures.append("no model")
                in_use[id(model)] = in_use.get(id(model), 0) + 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []
    statistics = store.statistics()
    assert statistics.hits + statistics.misses == 160
    assert statistics.misses == len(loader.loads)
    assert statistics.bytes_used <= 3 * KILOBYTE


def test_many_threads_wait_for_one_load() -> None:
    loader = Loader()
    store = Store(loader, budget=KILOBYTE)
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(30)
        with store.use("a"):
            pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert loader.loads == ["a"]


def test_bytes_of_modules_and_of_what_holds_them() -> None:
    class Holder:
        def __init__(self) -> None:
            self.a = torch.nn.Linear(10, 10, dtype=torch.float16)
            self.name = "x"

    assert parameter_bytes(torch.nn.Linear(10, 10)) == Bytes(host=440)
    assert parameter_bytes(Holder()) == Bytes(host=220)
    assert parameter_bytes("nothing") == Bytes()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=40))
def test_a_byte_cache_keeps_its_budget_and_its_latest(puts: list[tuple[int, int]]) -> None:
    cache: ByteCache[int] = ByteCache(100)
    sizes: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, size, size)
        sizes[key] = size
        assert cache.get(key) == size
        held = {k: s for k in sizes if (s := cache.get(k)) is not None}
        assert sum(held.values()) <= 100
        assert all(sizes[k] == s for k, s in held.items())
        cache.get(key)
    cache.put("huge", 1, 101)
    assert cache.get("huge") is None
