"""Running a request beside the page: progress as it goes, and a Stop that is heard at the next step."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from oms_app.schema import GenerateRequest, GenerateResult, ImageResult, Progress, Transfer

T = TypeVar("T")

EMBEDDED = "lumen"
SPACING = 0.5  # seconds between two pieces of news: showing one takes a browser's core for some 40 ms
MAX_SESSIONS = 1_000  # open pages whose stop flag is remembered


class Engine(Protocol):
    """What painting needs of `oms_app.Studio`.

    models: everything in the catalogue, with id, kind, title, description, size, licence, domain, note, needs,
    available, own and, for a base, defaults (width, height, num_inference_steps, guidance_scale, scheduler).
    """

    def models(self) -> Sequence[Any]: ...

    def generate(
        self,
        request: GenerateRequest,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> GenerateResult: ...

    def preview(self, request: GenerateRequest) -> tuple[ImageResult, ...] | None: ...


class Library(Engine, Protocol):
    """What the page as a whole needs: `oms_app.engine.service.StudioService`, which says what each does and raises."""

    def catalog_warnings(self) -> Sequence[str]: ...

    def download(
        self,
        model_id: str,
        *,
        on_progress: Callable[[Transfer], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None: ...

    def add_model(self, source: str) -> Any: ...

    def keep_model(self, dropped: Path) -> Any: ...

    def forget_model(self, model_id: str) -> str: ...

    def statistics(self) -> dict[str, Any]: ...


class Stops:
    """A stop flag for each open page, by its session hash. The oldest are forgotten."""

    def __init__(self) -> None:
        self._flags: OrderedDict[str | None, threading.Event] = OrderedDict()
        self._lock = threading.Lock()

    def fresh(self, session: str | None) -> threading.Event:
        """A new flag, for a request that begins to wait or to work."""
        flag = threading.Event()
        with self._lock:
            self._flags[session] = flag
            self._flags.move_to_end(session)
            while len(self._flags) > MAX_SESSIONS:
                self._flags.popitem(last=False)
        return flag

    def of(self, session: str | None) -> threading.Event:
        with self._lock:
            flag = self._flags.get(session)
        return flag or self.fresh(session)


def available_models(studio: Engine, kind: str) -> list[Any]:
    """The models of a kind that are on this machine, the embedded one first."""
    found = [info for info in studio.models() if info.available and info.kind == kind]
    return sorted(found, key=lambda info: info.id != EMBEDDED)


class Pace:
    """How long the painting will still take, told by its steps so far."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None  # the first step that was heard of, and when

    def left(self, news: Progress) -> float | None:
        """Seconds; None outside denoising, and until two steps were heard of."""
        if not news.steps:
            return None
        now = time.monotonic()
        if self._first is None or news.step < self._first[0]:
            self._first = (news.step, now)
        step, began = self._first
        return (now - began) / (news.step - step) * (news.steps - news.step) if news.step > step else None


def follow(
    studio: Engine, request: GenerateRequest, stop: threading.Event, spacing: float = SPACING
) -> Iterator[Progress | GenerateResult]:
    """What happens while the request runs, its result last. Raises what `studio.generate` raises. See `watch`."""
    return watch(lambda tell: studio.generate(request, on_progress=tell, should_stop=stop.is_set), stop, spacing)


def watch(
    work: Callable[[Callable[[Any], None]], T], stop: threading.Event, spacing: float = SPACING
) -> Iterator[Any | T]:
    """What `work` tells while it runs, and last what it returns. Raises what it raises.

    The work is done in a thread of its own, so that the page hears of it at once. News is told at most every `spacing`
    seconds, the latest with the latest previews, and the result at once. Closing the iterator (the page has gone) stops
    the work.
    """
    news: queue.Queue[tuple[str, Any]] = queue.Queue()

    def run() -> None:
        try:
            news.put(("done", work(lambda item: news.put(("on the way", item)))))
        except BaseException as error:
            news.put(("failed", error))  # raised again by the reader, who can tell the person

    threading.Thread(target=run, name="work", daemon=True).start()
    told = 0.0  # when
    try:
        while True:
            state, item = news.get()
            while state == "on the way":  # later news come in its place, as long as it is not its turn
                try:
                    newer = news.get(timeout=max(0.0, told + spacing - time.monotonic()))
                except queue.Empty:
                    break
                older, (state, item) = item, newer
                if isinstance(older, Progress) and isinstance(item, Progress) and not item.previews:
                    item = item.model_copy(update={"previews": older.previews})
            told = time.monotonic()
            if state == "failed":
                raise item
            yield item
            if state == "done":
                return
    except GeneratorExit:
        stop.set()
        raise
