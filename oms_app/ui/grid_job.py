"""Generates a grid part by part, and shows each part when it is finished."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from oms_app.engine.service import StudioService
from oms_app.errors import Stopped, StudioError
from oms_app.schema import STAGE_TEXTS, GenerateRequest, GenerateResult, Progress
from oms_app.ui import markup
from oms_app.ui.events import Updates
from oms_app.ui.generation import GenerationJob
from oms_app.ui.grid_table import GridResult
from oms_app.ui.grids import Grid, GridPart

logger = logging.getLogger(__name__)
PART_SECONDS = 4.0  # that one request of a grid may take: then its pictures are shown, and Stop keeps them


class GridJob(GenerationJob):
    """If a part of several pictures fails, each is tried separately; the cell of one that fails again shows the
    reason.

    result: the finished cells. update: updates for it (True: the job has ended). on_status: for a message. save: writes
    files of the finished cells, which may be fewer than asked for, and returns updates; it is given the session of the
    open page too.
    """

    interval = 1.0  # seconds: a grid takes long, and a browser that falls behind shows its rows late

    def __init__(
        self,
        grid: Grid,
        service: StudioService,
        update: Callable[[GridResult, bool], Updates],
        on_status: Callable[[str], Updates],
        save: Callable[[GridResult, str | None], Updates],
    ) -> None:
        self.result = GridResult(grid)
        self._service = service
        self._expected = service.estimate(grid.requests)
        self._update, self._on_status, self._save = update, on_status, save
        self._parts = deque((row, part) for row, parts in enumerate(grid.rows) for part in parts)
        self._started = time.perf_counter()
        self._notes: dict[str, None] = {}
        self._stopped = self._saved = False
        self._row: int
        self._part: GridPart

    def begin(self) -> Updates:
        self._started = time.perf_counter()
        return self._update(self.result, False)

    def next_request(self) -> GenerateRequest | None:
        if not self._parts:
            return None
        self._row, part = self._parts.popleft()
        self._part, *rest = part.apart(pictures_at_once(self._service, part.request, len(part.columns)))
        self._parts.extendleft((self._row, one) for one in reversed(rest))
        return self._part.request

    def on_progress(self, event: Progress) -> Updates:
        columns = len(self._part.columns)
        done = len(self.result.cells) + (event.step / event.steps * columns if event.steps else 0.0)
        size = self.result.grid.size
        left = markup.left(self._left(done))
        text = f"{STAGE_TEXTS[event.stage]}: {int(done)} of {markup.count(size)} finished{left}"
        return self._on_status(markup.status(text, done, size))

    def on_result(self, result: GenerateResult) -> Updates:
        self._notes |= dict.fromkeys(result.notes)
        self.result.add(self._row, self._part, result)
        return self._update(self.result, False)

    def on_error(self, error: Exception) -> Exception | None:
        if isinstance(error, Stopped):  # what is finished is kept
            self._parts.clear()
            self._stopped = True
            return None
        if len(self._part.columns) > 1:
            self._parts.extendleft((self._row, one) for one in reversed(self._part.apart()))
            return None
        reason = str(error)
        if not isinstance(error, StudioError):
            logger.error("a cell failed", exc_info=error)
            reason = f"an unexpected error ({type(error).__name__}: {error})"
        self.result.cells[self._row, self._part.columns[0]] = reason
        return None

    def end(self, error: Exception | None) -> Updates:
        if self._stopped:
            message = f"Stopped. {self.result.finished} of {markup.count(self.result.grid.size)} are kept."
        elif failed := len(self.result.cells) - self.result.finished:
            message = f"{markup.count(failed)} failed: the reason is in the cell"
        else:
            message = ""
        status = self._on_status(markup.note(*self._notes, *([message] if message else [])))
        return {**status, **self._update(self.result, True)}

    def show(self, session: str | None) -> Updates:
        if self._saved or not self.result.finished:  # the event can be called again
            return {}
        self._saved = True
        return self._save(self.result, session)

    def _left(self, done: float) -> float | None:
        """Seconds; from the speed of this job as soon as there is a cell, else from earlier ones."""
        passed, share = time.perf_counter() - self._started, done / self.result.grid.size
        if self.result.cells:
            return passed / share - passed
        return None if self._expected is None else self._expected - passed


def pictures_at_once(service: StudioService, request: GenerateRequest, pictures: int) -> int:
    """How many pictures of a request to make in one: what is running is lost by Stop. pictures: that it asks for."""
    seconds = service.estimate([request])
    if seconds is None:  # nothing has run yet
        return 1
    return max(1, int(PART_SECONDS * pictures / max(seconds, 1e-6)))
