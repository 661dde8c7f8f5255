"""The store of loaded models: shared, locked while used, within its budget; and the small caches."""

from __future__ import annotations

import gc
import random
import shutil
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import make_lora

from oms_app import GenerateRequest, Studio, Variant
from oms_app.engine.caches import ByteCache
from oms_app.models.loading import ModelKey, expected_bytes
from oms_app.models.loading import load as load_model
from oms_app.models.memory import Bytes
from oms_app.models.store import Store, parameter_bytes
from oms_app.schema import Lora, Progress

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
        for _ in range(15):
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
    assert statistics.hits + statistics.misses == 60
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


class Sized(torch.nn.Module):
    """A model of so many kilobytes, that says when it is loaded and when it is gone."""

    alive: int = 0
    most: int = 0

    def __init__(self, kilobytes: int, cycle: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(256 * kilobytes), requires_grad=False)
        if cycle:  # as the hooks of an offloaded model
            self.forward = self.forward
        Sized.alive += kilobytes
        Sized.most = max(Sized.most, Sized.alive)
        weakref.finalize(self, Sized.gone, kilobytes)

    @staticmethod
    def gone(kilobytes: int) -> None:
        Sized.alive -= kilobytes


@pytest.mark.parametrize("cycle", [False, True], ids=["plain", "with hooks"])
def test_room_is_made_before_a_model_is_loaded_and_what_was_evicted_is_gone(cycle: bool) -> None:
    Sized.alive = Sized.most = 0
    store = Store(
        lambda key: Sized(key[1], cycle), budget=10 * KILOBYTE, expect=lambda key: Bytes(host=key[1] * KILOBYTE)
    )
    gc.disable()  # what is gone is gone without its help, unless there are cycles
    try:
        for key in (("a", 10), ("b", 9), ("a", 10), ("c", 4), ("d", 5), ("a", 10)):
            with store.use(key):
                assert Sized.alive <= 10
    finally:
        gc.enable()
    assert Sized.most <= 10, "no two large models were alive at a time"
    statistics = store.statistics()
    assert (statistics.models, statistics.misses, statistics.evictions) == (1, 6, 5)
    store.clear()
    assert Sized.alive == 0


def test_a_model_larger_than_the_budget_is_gone_after_its_use() -> None:
    Sized.alive = Sized.most = 0
    store = Store(lambda key: Sized(4, False), budget=KILOBYTE, expect=lambda key: Bytes(host=4 * KILOBYTE))
    with store.use("a") as model:
        assert model is not None
    del model
    assert (store.statistics().models, Sized.alive) == (0, 0)


def test_an_evicted_base_is_gone_after_it_has_painted(presets: Path, tmp_path: Path) -> None:
    """Neither the scheduler, nor the previews, nor a cache keep it; no garbage collection is needed."""
    studio = Studio(presets=presets, device="cpu", home=tmp_path)
    kept: list[weakref.ref[Any]] = []
    load = studio._store._load

    def noted(key: Any) -> Any:
        model = load(key)
        kept.append(weakref.ref(model))
        if hasattr(model, "pipeline"):
            kept.append(weakref.ref(model.pipeline.unet))
        return model

    studio._store._load = noted
    news: list[Progress] = []
    studio.generate(GenerateRequest(prompt="sea", seed=1, num_inference_steps=8), on_progress=news.append)
    assert any(one.previews for one in news) and len(kept) >= 3
    gc.disable()
    try:
        studio._store.budget = 0
        with studio._store.use(ModelKey("signal_leak", presets.parents[1] / "assets/alien-leak", "cpu", torch.float32)):
            assert [one() for one in kept[:-1]] == [None] * (len(kept) - 1)
    finally:
        gc.enable()


@pytest.mark.parametrize("what", ["base", "lora"])
def test_a_file_that_is_replaced_is_read_again_and_the_old_model_is_gone(
    what: str, presets: Path, lumen: Path, tmp_path: Path
) -> None:
    parts = shutil.ignore_patterns("oms", "singdiffusion", "signal_leak")
    base = shutil.copytree(lumen, tmp_path / "mine", ignore=parts)
    lora = make_lora(tmp_path / "style.safetensors")
    file = base / "unet/diffusion_pytorch_model.safetensors" if what == "base" else lora
    request = GenerateRequest(
        prompt="sea",
        seed=1,
        model=str(base),
        loras=(Lora(id=str(lora), scale=1.0),),
        variants=(Variant(name="raw", correction="raw"),),
        num_inference_steps=2,
        width=64,
        height=64,
    )
    studio = Studio(presets=presets, device="cpu", home=tmp_path)
    load, kept = studio._store._load, []

    def noted(key: Any) -> Any:
        model = load(key)
        kept.append(weakref.ref(model))
        return model

    studio._store._load = noted
    first = studio.generate(request).images[0].image
    tensors = {name: 0.5 * value for name, value in load_file(file).items()}
    save_file(tensors, file.with_suffix(".new"), {"format": "pt"})
    file.with_suffix(".new").replace(file)
    second = studio.generate(request).images[0].image
    fresh = Studio(presets=presets, device="cpu", home=tmp_path).generate(request).images[0].image
    assert second.tobytes() == fresh.tobytes() != first.tobytes()
    gc.collect()
    assert kept[0]() is None and kept[1]() is not None
    assert studio._store.statistics().models == 1


def test_what_a_model_will_take_is_known_from_its_headers(presets: Path, lumen: Path) -> None:
    for kind, folder in (("base", lumen), ("oms", lumen / "oms"), ("text", lumen)):
        key = ModelKey(kind, folder, "cpu", torch.float32)  # type: ignore[arg-type]
        loaded = parameter_bytes(load_model(key)).host
        assert loaded * 0.98 <= expected_bytes(key).host <= loaded * 1.02, kind
    on_card = ModelKey("base", lumen, "cuda", torch.float16)
    assert expected_bytes(on_card).device == expected_bytes(ModelKey("base", lumen, "cpu", torch.float16)).host
    assert expected_bytes(replace(on_card, mode="model_offload")).device == 0
