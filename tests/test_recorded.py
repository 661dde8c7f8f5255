"""Recorded passes: the same bits, only where they may be, and gone with their UNet."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import WIDTH, make_unet

from oms_app.models import recorded as recording
from oms_app.models.recorded import recorded


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    """One thread, so that a batch stays whole, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield before
    torch.set_num_threads(before)


@pytest.fixture
def unet() -> torch.nn.Module:
    torch.manual_seed(0)
    made: torch.nn.Module = make_unet().eval()
    return made


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The batch sizes that were recorded, after two passes rather than twenty."""
    sizes: list[int] = []
    real = torch.jit.trace

    def counted(module: torch.nn.Module, given: tuple[torch.Tensor, ...], **settings: Any) -> Any:
        sizes.append(len(given[0]))
        return real(module, given, **settings)

    monkeypatch.setattr(torch.jit, "trace", counted)
    monkeypatch.setattr(recording, "MIN_CALLS", 2)
    yield sizes


def given(batch: int, side: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 4, side, side), torch.tensor(500), torch.randn(batch, 32, WIDTH)


@torch.no_grad()
def one_pass(unet: torch.nn.Module, x: torch.Tensor, t: Any, hidden: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = unet(x, t, encoder_hidden_states=hidden, cross_attention_kwargs=None, return_dict=False)[0]
    return made


def test_what_comes_often_is_replayed_bit_for_bit(unet: torch.nn.Module, traced: list[int]) -> None:
    for batch, side, times in ((2, 8, 4), (1, 8, 2), (2, 16, 4)):
        for step in range(times):
            x, _, hidden = given(batch, side)
            t = torch.tensor(999 - 300 * step)
            plain = one_pass(unet, x, t, hidden)
            with recorded(unet):
                assert torch.equal(one_pass(unet, x, t, hidden), plain)
    assert traced == [2, 2], "one came twice only; the last is of another size"
    assert "forward" not in vars(unet)


def test_each_core_takes_its_part_of_a_batch(unet: torch.nn.Module, traced: list[int]) -> None:
    """Four pictures on two threads as two and two, three as they are, six on four as two and two and two."""
    for threads, batch, part in ((2, 4, 2), (2, 3, 3), (4, 6, 2)):
        torch.set_num_threads(threads)
        x, t, hidden = given(batch)
        singly = torch.cat([one_pass(unet, x[i : i + 1], t, hidden[i : i + 1]) for i in range(batch)])
        with recorded(unet):
            for _ in range(4):
                assert torch.allclose(one_pass(unet, x, t, hidden), singly, atol=1e-5)
        assert torch.get_num_threads() == threads
        assert part in traced
    assert traced == [2, 3], "the parts of six are of a size that was recorded before"


def test_a_batch_with_a_timestep_for_each_is_not_cut(unet: torch.nn.Module, traced: list[int]) -> None:
    torch.set_num_threads(2)
    x, _, hidden = given(2)
    t = torch.tensor([900, 100])
    plain = one_pass(unet, x, t, hidden)
    with recorded(unet):
        for _ in range(4):
            assert torch.allclose(one_pass(unet, x, t, hidden), plain, atol=1e-5)
    assert traced == [2]


def test_what_is_out_of_the_usual_is_left_to_the_unet(unet: torch.nn.Module, traced: list[int]) -> None:
    x, t, hidden = given(1)
    with torch.no_grad(), recorded(unet):
        for _ in range(4):
            unet(x, t, encoder_hidden_states=hidden, cross_attention_kwargs={"scale": 1.0}, return_dict=False)
            unet(x, 500, encoder_hidden_states=hidden, return_dict=False)
            assert unet(x, t, encoder_hidden_states=hidden).sample.shape == x.shape
    assert traced == []


def test_large_and_hooked_and_learning_unets_are_not_recorded(
    unet: torch.nn.Module, traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def often() -> None:
        with recorded(unet):
            for _ in range(4):
                one_pass(unet, *given(1))

    monkeypatch.setattr(recording, "MAX_PARAMETERS", 10)
    often()
    monkeypatch.setattr(recording, "MAX_PARAMETERS", 10**9)
    unet.train()
    often()
    unet.eval()
    own = unet.forward
    monkeypatch.setattr(unet, "forward", lambda *given, **more: own(*given, **more))
    often()
    assert traced == []


def test_the_shape_unused_for_longest_goes(
    unet: torch.nn.Module, traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_SHAPES", 1)
    with recorded(unet):
        for batch in (1, 1, 1, 2, 2, 2, 1):
            one_pass(unet, *given(batch))
    assert traced == [1, 2, 1]


def test_a_recording_shares_the_weights_and_goes_with_its_unet(traced: list[int]) -> None:
    unet = make_unet().eval()
    with recorded(unet):
        for _ in range(4):
            one_pass(unet, *given(1))
        x, t, hidden = given(1)
        before = one_pass(unet, x, t, hidden)
        with torch.no_grad():
            unet.get_parameter("conv_out.bias").add_(1.0)
        assert torch.allclose(one_pass(unet, x, t, hidden), before + 1, atol=1e-5)
    assert traced == [1]
    gone = weakref.ref(unet), weakref.ref(unet.get_parameter("conv_out.bias"))
    del unet
    gc.collect()
    assert [each() for each in gone] == [None, None]
