"""All the computing in one thread, for the sake of speed.

Every thread that runs a parallel loop of torch on the CPU gets a team of OpenMP threads of its own, and keeps it. Once
there are more of them than cores, libgomp no longer lets those that wait spin, but puts them to sleep, and waking them
costs more than the loops of a small model: a pair of Lumen on 2 cores took 3.3 s instead of 1.9 s in a second thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from oms_app.schema import Stopped

T = TypeVar("T")


class DeviceWorker:
    """Does what it is given, one after the other. The thread is a daemon's, so a program can end amid its work."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while True:
            future, work = self._work.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)  # raised again where the result is asked for
            del future, work  # what they hold is not kept while nothing is asked for

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._work.put((future, work))
        return future

    def do(self, work: Callable[[], T], should_stop: Callable[[], bool] = lambda: False) -> T:
        """What `work` returns; raises what it raises, and Stopped where should_stop() turns true before its turn."""
        future = self.submit(work)
        while True:
            try:
                return future.result(timeout=0.05)
            except TimeoutError:
                if future.done():
                    return future.result()  # its own TimeoutError, or it ended just now
                if should_stop() and future.cancel():
                    raise Stopped("stopped") from None

    def do_soon(self, work: Callable[[], T], patience: float) -> T | None:
        """As `do`; None where its turn has not come within `patience` seconds."""
        started = threading.Event()

        def begin() -> T:
            started.set()
            return work()

        future = self.submit(begin)
        if not started.wait(patience):
            future.cancel()  # in vain where it began just now
        try:
            return future.result()
        except CancelledError:
            return None
