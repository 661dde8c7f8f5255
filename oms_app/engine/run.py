"""Progress, Stop and time of one running request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

from oms_app.errors import Stopped
from oms_app.schema import Preview, Progress, RunStage, Seconds


class Run:
    def __init__(self, on_progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool] | None) -> None:
        self._on_progress = on_progress
        self.should_stop = should_stop or (lambda: False)
        self._seconds = dict.fromkeys(get_args(RunStage), 0.0)
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: RunStage) -> Iterator[None]:
        """Reports the stage, times it, and raises Stopped if Stop was pressed before it."""
        self.check()
        self.report(name)
        started = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - started

    def report(self, stage: RunStage, step: int = 0, steps: int = 0, previews: tuple[Preview, ...] = ()) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(stage=stage, step=step, steps=steps, previews=previews))

    def counter(
        self, total: int, part: range, look: Callable[[int, int], tuple[Preview, ...]]
    ) -> Callable[[int, int], None]:
        """(step, steps) → progress over all chunks, weighted by their pictures, so that the bar moves evenly.

        look: (step, steps) → the previews to send along; it is called only if there is a listener.
        """

        def count(step: int, steps: int) -> None:
            previews = look(step, steps) if self._on_progress is not None else ()
            self.report("denoise", (part.start * steps + step * len(part)) // total, steps, previews)

        return count

    def check(self) -> None:
        if self.should_stop():
            raise Stopped("stopped")

    def seconds(self) -> Seconds:
        return Seconds(**self._seconds, total=time.perf_counter() - self._started)
