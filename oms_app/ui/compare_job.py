"""The pictures of Compare, one model after the other: previews while they are made, and Stop keeps those that are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from oms_app.engine.service import StudioService
from oms_app.errors import Stopped
from oms_app.schema import STAGE_TEXTS, GenerateRequest, GenerateResult, ImageResult, Progress, draw_seed
from oms_app.ui import markup
from oms_app.ui.events import Updates
from oms_app.ui.generation import GenerationJob, error_message
from oms_app.ui.grid_job import pictures_at_once
from oms_app.ui.jobs import RemainingTime


@dataclass(frozen=True)
class Compared:
    """A finished picture and the request that made it."""

    result: GenerateResult
    image: ImageResult


class CompareJob(GenerationJob):
    """requests: one for each model, each with the same variants and count.

    on_status: updates for a message. live: updates for the previews of an event, by the numbers of their panels.
    show: updates for the finished pictures, by the numbers of their panels, and a message.
    """

    def __init__(
        self,
        requests: Sequence[GenerateRequest],
        service: StudioService,
        on_status: Callable[[str], Updates],
        live: Callable[[Progress | None, dict[tuple[str, int], int]], Updates],
        show: Callable[[dict[int, Compared], str], Updates],
    ) -> None:
        self._size = sum(len(one.variants) * one.count for one in requests)
        self._parts = deque(_parts(requests, service))
        self._on_status, self._live, self._show = on_status, live, show
        self._made: dict[int, Compared] = {}
        self._panels: dict[tuple[str, int], int] = {}  # of the running request, by variant and index
        self._time = RemainingTime()
        self._stopped = False

    def next_request(self) -> GenerateRequest | None:
        if not self._parts:
            return None
        request, self._panels = self._parts.popleft()
        return request

    def on_progress(self, event: Progress) -> Updates:
        share = event.step / event.steps if event.steps else 0.0
        done = len(self._made) + share * len(self._panels)
        left = markup.left(self._time.left(done, self._size))
        text = f"{STAGE_TEXTS[event.stage]}: {len(self._made)} of {markup.count(self._size)} finished{left}"
        return {**self._on_status(markup.status(text, done, self._size)), **self._live(event, self._panels)}

    def on_result(self, result: GenerateResult) -> Updates:
        for image in result.images:
            self._made[self._panels[image.variant, image.index]] = Compared(result, image)
        return {}

    def on_error(self, error: Exception) -> Exception | None:
        if not isinstance(error, Stopped) or not self._made:
            return error
        self._parts.clear()  # what is made is shown
        self._stopped = True
        return None

    def end(self, error: Exception | None) -> Updates:
        updates = self._live(None, {})
        if error is None:
            return updates
        self._made.clear()
        return {**updates, **self._on_status(error_message(error))}

    def show(self, session: str | None) -> Updates:
        made, self._made = self._made, {}  # an open page must not keep them in memory
        message = f"Stopped. {len(made)} of {markup.count(self._size)} are kept." if self._stopped else ""
        return self._show(made, message)


def _parts(
    requests: Iterable[GenerateRequest], service: StudioService
) -> Iterable[tuple[GenerateRequest, dict[tuple[str, int], int]]]:
    """The requests in parts that take a few seconds, all with one seed; and the panels of their pictures."""
    first = 0
    seed: int | None = None
    for whole in requests:
        seed = draw_seed(whole.count) if seed is None and whole.seed is None else seed
        request = whole if seed is None else whole.model_copy(update={"seed": seed})
        assert request.seed is not None
        size = pictures_at_once(service, request, len(request.variants) * request.count)
        many = max(1, size // request.count)  # variants in a part
        for start in range(0, len(request.variants), many):
            variants = request.variants[start : start + many]
            for index in range(request.count) if size < request.count else (None,):
                changes = {"variants": variants} | ({} if index is None else {"seed": request.seed + index, "count": 1})
                part = request.model_copy(update=changes)
                panels = {
                    (one.name, i): first + (i if index is None else index) * len(request.variants) + start + number
                    for i in range(part.count)
                    for number, one in enumerate(variants)
                }
                yield part, panels
        first += len(request.variants) * request.count
