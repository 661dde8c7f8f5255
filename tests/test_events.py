"""Reports of running work as an iterator: throttled, with the latest previews, and stopped before or while it runs."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from PIL import Image

from oms_app.engine.events import in_thread, stream_events
from oms_app.engine.worker import CallerThread, DeviceWorker
from oms_app.errors import Stopped
from oms_app.schema import Preview, Progress

PREVIEW = Preview(variant="raw", index=0, image=Image.new("RGB", (1, 1)))


def reports(work: Callable[[Callable[[Any], None]], Any], interval: float) -> list[Any]:
    stop = threading.Event()
    return list(stream_events(lambda report: in_thread(lambda: work(report), "work"), stop, interval))


def test_every_report_is_passed_on_without_an_interval_and_the_result_comes_last() -> None:
    def work(report: Callable[[Any], None]) -> str:
        for number in range(3):
            report(number)
            time.sleep(0.05)
        return "done"

    assert reports(work, 0.0) == [0, 1, 2, "done"]


def test_reports_in_between_are_dropped_but_their_previews_are_kept() -> None:
    def work(report: Callable[[Any], None]) -> str:
        report(Progress(stage="denoise", step=1, steps=9))
        time.sleep(0.2)
        report(Progress(stage="denoise", step=2, steps=9, previews=(PREVIEW,)))
        report(Progress(stage="denoise", step=3, steps=9))
        time.sleep(0.6)
        return "done"

    first, second, done = reports(work, 0.4)
    assert (first.step, second.step, done) == (1, 3, "done") and second.previews == (PREVIEW,)


def test_a_result_does_not_wait_for_the_interval() -> None:
    def work(report: Callable[[Any], None]) -> str:
        report(1)
        return "done"

    began = time.monotonic()
    assert reports(work, 30.0)[-1] == "done"
    assert time.monotonic() - began < 10


def test_an_error_is_raised_by_the_iterator() -> None:
    def work(report: Callable[[Any], None]) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        reports(work, 0.0)


def test_a_thread_has_the_callers_context_and_a_librarys_exit_is_an_error() -> None:
    visitor: contextvars.ContextVar[str] = contextvars.ContextVar("visitor", default="nobody")
    visitor.set("someone")
    assert in_thread(visitor.get, "work").result(timeout=10) == "someone"
    with pytest.raises(RuntimeError, match="SystemExit"):
        in_thread(lambda: sys.exit(0), "work").result(timeout=10)
    gate, cancelled = threading.Event(), Future[bool]()
    cancelled = in_thread(gate.wait, "work")
    assert cancelled.cancel()
    gate.set()


def test_work_that_is_stopped_while_it_waits_never_runs() -> None:
    worker, gate, stop, ran = DeviceWorker(), threading.Event(), threading.Event(), list[str]()
    running: Future[bool] = worker.submit(gate.wait)
    stop.set()
    with pytest.raises(Stopped):
        list(stream_events(lambda report: worker.submit(lambda: ran.append("ran")), stop, 0.0))
    gate.set()
    assert running.result(timeout=10) and worker.run(lambda: list(ran)) == []


def test_the_callers_thread_has_the_device_to_itself() -> None:
    worker, inside, leave, stop = CallerThread(), threading.Event(), threading.Event(), threading.Event()

    def work() -> int:
        inside.set()
        leave.wait(10)
        return threading.get_ident()

    other = in_thread(lambda: worker.run(work), "other")
    assert inside.wait(10)
    assert worker.run_soon(lambda: "never", patience=0.05) is None
    stop.set()
    with pytest.raises(Stopped):
        worker.run(lambda: "never", stop.is_set)
    leave.set()
    assert other.result(timeout=10) != threading.get_ident() == worker.run(threading.get_ident)
