"""Computing in one thread: its order, Stop before one's turn, patience, errors."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from oms_app.engine.worker import DeviceWorker
from oms_app.errors import Stopped


def test_all_work_is_done_in_one_thread_in_its_order() -> None:
    hands, done = DeviceWorker("hands"), list[int]()

    def note(number: int) -> int:
        done.append(number)
        return threading.get_ident()

    futures = [hands.submit(partial(note, i)) for i in range(20)]
    assert len({future.result() for future in futures}) == 1 and done == list(range(20))
    with ThreadPoolExecutor(8) as pool:
        threads = set(pool.map(lambda i: hands.run(partial(note, i)), range(40)))
    assert threads == {futures[0].result()} and sorted(done[20:]) == list(range(40))


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("its own")])
def test_an_error_is_raised_where_the_work_was_asked_for(error: Exception) -> None:
    def fail() -> None:
        time.sleep(0.06)  # longer than one look at the future
        raise error

    hands = DeviceWorker("hands")
    with pytest.raises(type(error), match=str(error)):
        hands.run(fail)
    with pytest.raises(type(error), match=str(error)):
        hands.run_soon(fail, patience=5)
    assert hands.run(lambda: "still there") == "still there"


def test_what_waits_can_be_stopped_and_a_preview_gives_up() -> None:
    hands, gate, stop, done = DeviceWorker("hands"), threading.Event(), threading.Event(), list[str]()
    running = hands.submit(gate.wait)
    assert hands.run_soon(lambda: done.append("preview"), patience=0.05) is None
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(hands.run, lambda: done.append("stopped"), stop.is_set)
        time.sleep(0.1)
        stop.set()
        with pytest.raises(Stopped):
            waiting.result(timeout=10)
    gate.set()
    assert running.result(timeout=10) and hands.run(lambda: list(done), stop.is_set) == []
    assert hands.run_soon(lambda: "now", patience=5) == "now"


def test_drafts_make_way_for_other_work_but_not_for_each_other() -> None:
    hands, began, go = DeviceWorker("hands"), threading.Event(), threading.Event()

    def occupy() -> bool:
        began.set()
        return go.wait()

    busy = hands.submit(occupy)
    began.wait()
    drafts = [hands.submit(lambda: hands.is_wanted(), draft=True) for _ in range(2)]
    assert not hands.is_wanted()
    work = hands.submit(lambda: hands.is_wanted())
    assert hands.is_wanted()
    go.set()
    assert busy.result() and [draft.result() for draft in drafts] == [True, True]
    assert work.result() is False
