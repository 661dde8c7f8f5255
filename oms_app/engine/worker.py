"""What uses the device: a dedicated thread for the page, or the caller's thread for a program without a page.

In either case it is the only lock around the device.

Why one thread: every thread that runs a parallel loop of torch on the CPU keeps its own team of OpenMP threads. If
there are more of them than cores, libgomp puts idle ones to sleep instead of letting them spin, and waking them costs
more than the loops of a small model: a pair of Lumen on 2 cores took 3.3 s instead of 1.9 s in a second thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from oms_app.errors import Stopped

T = TypeVar("T")
POLL_SECONDS = 0.05  # how often a waiting caller checks whether it should stop


def wait(future: Future[T], should_stop: Callable[[], bool]) -> T:
    """What the future's work returns. Raises what it raises, and Stopped if should_stop() turns true before it ends and
    it can be cancelled."""
    while True:
        try:
            return future.result(timeout=POLL_SECONDS)
        except TimeoutError:
            if future.done():
                return future.result()  # the work's own TimeoutError, or it ended just now
            if should_stop() and future.cancel():
                raise Stopped("stopped") from None


@contextmanager
def failures_to(future: Future[Any]) -> Iterator[None]:
    """What is raised in the block, the future raises when its result is read."""
    try:
        yield
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:  # a library's sys.exit(): it would end the page in the caller's thread
        failure = RuntimeError(f"the work ended with {type(error).__name__}")
        failure.__cause__ = error
        future.set_exception(failure)


class Worker(Protocol):
    def run(self, work: Callable[[], T], should_stop: Callable[[], bool] = lambda: False) -> T:
        """What `work` returns; raises what it raises, and Stopped if should_stop() turns true before its turn."""

    def run_soon(self, work: Callable[[], T], patience: float, *, draft: bool = False) -> T | None:
        """As `run`; None if its turn has not come within `patience` seconds. draft: `is_wanted` does not count it."""

    def is_wanted(self) -> bool:
        """Whether work other than drafts waits for the device: a draft should then make way."""


class CallerThread:
    """The caller's own thread uses the device; other threads wait for their turn."""

    def __init__(self) -> None:
        self._turn = threading.RLock()

    def run(self, work: Callable[[], T], should_stop: Callable[[], bool] = lambda: False) -> T:
        while not self._turn.acquire(timeout=POLL_SECONDS):
            if should_stop():
                raise Stopped("stopped")
        try:
            return work()
        finally:
            self._turn.release()

    def is_wanted(self) -> bool:
        return False  # nobody draws drafts without a page

    def run_soon(self, work: Callable[[], T], patience: float, *, draft: bool = False) -> T | None:
        if not self._turn.acquire(timeout=patience):
            return None
        try:
            return work()
        finally:
            self._turn.release()


class DeviceWorker:
    """A thread that uses the device, one piece of work after the other. It is a daemon, so a program can exit."""

    def __init__(self, name: str = "device") -> None:
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any], bool]] = queue.SimpleQueue()
        self._wanted = 0  # pieces of waiting work that are no drafts
        self._counting = threading.Lock()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while True:
            future, work, draft = self._waiting.get()
            with self._counting:
                self._wanted -= not draft
            if not future.set_running_or_notify_cancel():
                continue
            with failures_to(future):
                future.set_result(work())
            del future, work  # their contents must not stay in memory while the thread waits

    def submit(self, work: Callable[[], T], *, draft: bool = False) -> Future[T]:
        future: Future[T] = Future()
        with self._counting:
            self._wanted += not draft
        self._waiting.put((future, work, draft))
        return future

    def run(self, work: Callable[[], T], should_stop: Callable[[], bool] = lambda: False) -> T:
        return wait(self.submit(work), should_stop)

    def is_wanted(self) -> bool:
        return self._wanted > 0

    def run_soon(self, work: Callable[[], T], patience: float, *, draft: bool = False) -> T | None:
        started = threading.Event()

        def begin() -> T:
            started.set()
            return work()

        future = self.submit(begin, draft=draft)
        if not started.wait(patience):
            future.cancel()  # without effect if it began just now
        try:
            return future.result()
        except CancelledError:
            return None
