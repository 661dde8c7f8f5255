"""The reports of running work as an iterator."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from oms_app.engine.worker import POLL_SECONDS, failures_to
from oms_app.errors import Stopped
from oms_app.schema import Progress

T = TypeVar("T")


def stream_events(
    begin: Callable[[Callable[[Any], None]], Future[T]], stop: threading.Event, interval: float
) -> Iterator[Any | T]:
    """Yields what the work reports, and last what it returns. Raises what it raises, and Stopped if it never began.

    begin: starts the work, which calls its argument with each report. Reports are yielded at most every `interval`
    seconds, the latest with the latest previews; the result at once. Closing the iterator sets `stop`.
    """
    reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
    future = begin(reports.put)
    future.add_done_callback(reports.put)
    next_due = 0.0
    pending: Any = None
    try:
        while True:
            wait = max(0.0, next_due - time.monotonic()) if pending is not None else POLL_SECONDS
            try:
                report = reports.get(timeout=wait)
            except queue.Empty:
                if pending is not None:
                    yield pending
                    pending, next_due = None, time.monotonic() + interval
                elif stop.is_set() and future.cancel():
                    raise Stopped("stopped") from None
                continue
            if report is future:
                yield future.result()
                return
            pending = _merged(pending, report)
    finally:
        if not future.done():  # the reader stopped early
            stop.set()


def _merged(older: Any, newer: Any) -> Any:
    """The newer report, with the older one's previews if it has none of its own."""
    if isinstance(older, Progress) and isinstance(newer, Progress) and not newer.previews:
        return newer.model_copy(update={"previews": older.previews})
    return newer


def in_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Starts `work` in a thread of its own, for what does not need the device. It sees the caller's context variables:
    on ZeroGPU one says who the visitor is. Nobody waits for it any more once its future is cancelled."""
    future: Future[T] = Future()

    def run() -> None:
        with contextlib.suppress(InvalidStateError), failures_to(future):  # suppressed: it was cancelled
            future.set_result(work())

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True).start()
    return future
