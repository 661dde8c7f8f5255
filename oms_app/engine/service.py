"""The engine for the page: usable before torch is loaded, and run by one thread of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from oms_app.engine.calibration import Calibration, expected
from oms_app.engine.estimates import RunTimes
from oms_app.engine.events import in_thread, stream_events
from oms_app.engine.image_stats import image_stats
from oms_app.engine.picture_settings import PictureSettings, read_picture
from oms_app.engine.run import Run
from oms_app.engine.visitors import INTERVAL as INTERVAL  # for the page
from oms_app.engine.visitors import KEPT as KEPT
from oms_app.engine.visitors import Visitors
from oms_app.engine.worker import DeviceWorker, wait
from oms_app.engine.zero_gpu import remote_generate
from oms_app.errors import StudioError
from oms_app.looks import LookLibrary
from oms_app.models import user_models
from oms_app.models.catalog import Entry, ModelInfo, open_catalog
from oms_app.models.reading import read_vocabulary
from oms_app.output import png
from oms_app.output.animation import save_animation
from oms_app.output.history import History, Query, light_of
from oms_app.paths import EMBEDDED, user_folder
from oms_app.records import remove_leftovers
from oms_app.schema import (
    GenerateRequest,
    GenerateResult,
    ImageResult,
    ImageStats,
    Progress,
    Reached,
    Transfer,
    Variant,
)

if TYPE_CHECKING:
    from oms_app.engine.stages import ResolvedRequest
    from oms_app.engine.studio import Studio

prompts = logging.getLogger("oms_app.prompts")  # at the level DEBUG, which only `--log-prompts` shows
MAX_PREVIEWS = 8  # at a time
DRAFT_TRIES = 3
REPORT_SECONDS = 0.5  # between two reports: showing one takes a browser's core about 40 ms


class StudioService:
    """All that the page needs. `start` loads the engine in the background; a request waits for it.

    One thread loads the engine and uses the device (worker.py). Requests arrive one by one: waiting ones are in the
    page's queue, so that they occupy no thread and the page can show their position.

    device, precision, memory: as for Studio. home: the user's folder (else $OMS_HOME, else the system's place).
    pictures: folder of finished pictures, for visitors who are strangers to each other: each sees only their own, and
    none can save looks (else one folder in the user's folder).
    looks: the shipped ones and the user's.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        precision: str = "auto",
        memory: str = "auto",
        home: Path | None = None,
        pictures: Path | None = None,
    ) -> None:
        self._elsewhere = remote_generate(precision, memory, home)
        device = "cpu" if self._elsewhere else device  # this process has no GPU then
        self._engine: dict[str, Any] = {"device": device, "precision": precision, "memory": memory, "home": home}
        self._worker = DeviceWorker()
        folder = user_folder(home)
        remove_leftovers(folder, *(folder / name for name in ("pictures", "looks", "models")))
        self._catalog = open_catalog(home=home)
        self._run_times = RunTimes(user_folder(home) / "pace.json")
        self._studio: Future[Studio] | None = None
        self._starting = threading.Lock()
        self._ending = threading.Event()
        self._previews = threading.Semaphore(MAX_PREVIEWS)
        self.pictures = pictures or user_folder(home) / "pictures"
        self.visitors = Visitors(self.pictures, private=pictures is not None)
        self.looks = LookLibrary(folder=None if pictures else user_folder(home) / "looks")

    @property
    def examples(self) -> Path:
        """Where the examples are, if there are any."""
        return self._catalog.root / "assets" / EMBEDDED / "examples"

    def start(self) -> Future[Studio]:
        """Begins to load the engine, once. torch and diffusers take seconds to import.

        Other code that imports a part of them waits for this first: diffusers loads its classes lazily, and if two
        threads do so at once, each can find modules that the other has only partly imported (ImportError).
        """
        with self._starting:
            if self._studio is None:
                self._studio = self._worker.submit(self._load)
            return self._studio

    def _load(self) -> Studio:
        from oms_app.engine.studio import Studio

        return Studio(**self._engine, catalog=self._catalog, worker=self._worker)

    def generate(
        self,
        request: GenerateRequest,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> GenerateResult:
        """As `Studio.generate`. Raises StudioError also if the device that was chosen is not available."""
        complete, stop = self._complete(request), self._stops(should_stop)
        result = wait(self._begin(complete, Run(on_progress, stop)), stop)
        self._run_times.learn(result)
        return result

    def stream(
        self, request: GenerateRequest, stop: threading.Event, interval: float = REPORT_SECONDS
    ) -> Iterator[Progress | GenerateResult]:
        """Progress while the request runs, at most every `interval` seconds, and last its result.

        Raises what `generate` raises. Setting `stop`, or closing the iterator, ends the request within one step.
        """
        yield Progress(stage="load")
        complete = self._complete(request)

        def begin(report: Callable[[Progress], None]) -> Future[GenerateResult]:
            return self._begin(complete, Run(report, self._stops(stop.is_set)))

        event: Progress | GenerateResult
        for event in stream_events(begin, stop, interval):
            if isinstance(event, GenerateResult):
                self._run_times.learn(event)
            yield event

    def _complete(self, request: GenerateRequest) -> ResolvedRequest:
        """As `Studio.complete`; waits for the engine."""
        prompts.debug("%s", request.prompt)
        return self.start().result().complete(request)

    def _begin(self, complete: ResolvedRequest, run: Run) -> Future[GenerateResult]:
        """Makes the pictures where the device is: on the worker's thread, or on ZeroGPU in another process."""
        if self._elsewhere is not None:
            return in_thread(partial(self._elsewhere, complete), "ZeroGPU")
        return self._worker.submit(partial(self.start().result().paint, complete, run))

    def stop(self, seconds: float) -> None:
        """Ends running work within one step, and waits at most `seconds` for it. For the end of the program."""
        self._ending.set()
        with contextlib.suppress(TimeoutError):
            self._worker.submit(lambda: None).result(timeout=seconds)

    def _stops(self, should_stop: Callable[[], bool] | None) -> Callable[[], bool]:
        return lambda: self._ending.is_set() or (should_stop is not None and should_stop())

    def estimate(self, requests: Sequence[GenerateRequest]) -> float | None:
        """Seconds that the requests will take together, from earlier runs on this machine; None if unknown."""
        return self._run_times.estimate(requests, {info.id: info.defaults for info in self._catalog.infos()})

    def preview(self, request: GenerateRequest) -> tuple[ImageResult, ...] | None:
        """As `Studio.preview`; the first one waits for the engine. None too if MAX_PREVIEWS are wanted already: each
        occupies a thread of the page while it waits."""
        if not self._previews.acquire(blocking=False):
            return None
        try:
            return self.start().result().preview(request)
        finally:
            self._previews.release()

    def draft(self, request: GenerateRequest, *, whole: bool = False) -> GenerateResult | None:
        """As `Studio.draft`. If a preview came between, a draft in few steps is tried again."""
        studio = self.start().result()
        for _ in range(1 if whole else DRAFT_TRIES):
            if (result := studio.draft(request, whole=whole)) is not None:
                return result
        return None

    def word_suggestions(self, model_id: str, *texts: str) -> dict[str, tuple[str, ...]]:
        """As `Studio.word_suggestions`; the first one waits for the engine."""
        return self.start().result().word_suggestions(model_id, *texts)

    def calibration(self, model_id: str) -> Calibration | None:
        """How exactly a base obeys the dial's brightness; None if nobody measured it. Does not wait for the engine."""
        return expected(model_id, self._engine["home"])

    def has_spread_head(self, model_id: str) -> bool:
        """Whether Spread works with a base. Does not wait for the engine."""
        entry = self._catalog.entries.get(model_id)
        return entry is not None and self._catalog.has_spread_head(entry)

    def vocabulary(self, model_id: str) -> list[str]:
        """The words that a model with a small vocabulary knows, in order; empty for models that read any word."""
        return sorted(read_vocabulary(self._catalog.weights(self._catalog.entries[model_id])))

    def statistics(self) -> dict[str, Any]:
        """Of the store of loaded models, see `store.Statistics`. Waits for the engine."""
        return asdict(self.start().result().statistics())

    def models(self) -> list[ModelInfo]:
        return self._catalog.infos()

    def warnings(self) -> list[str]:
        """Damaged files of the user's: lists, looks and the times of earlier runs."""
        return [*self._catalog.warnings, *self._run_times.warnings, *self.looks.warnings]

    def download(
        self,
        model_id: str,
        *,
        on_progress: Callable[[Transfer], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Downloads an entry of the catalogue, see `hub.fetch`. Raises StudioError for an unknown id."""
        self.start().result()
        from oms_app.models.hub import fetch  # takes half a second, which would delay the first page

        entry = self._catalog.entries.get(model_id)
        if entry is None:
            raise StudioError(f"unknown model {model_id!r}: choose one of {', '.join(self._catalog.entries)}")
        fetch(entry, self._catalog.folder(entry), on_progress=on_progress, should_stop=should_stop)

    def stream_download(
        self, model_id: str, stop: threading.Event, interval: float = REPORT_SECONDS
    ) -> Iterator[Transfer | None]:
        """As `download`, as an iterator over its progress; None comes last. It does not occupy the device."""

        def begin(report: Callable[[Transfer], None]) -> Future[None]:
            work = partial(self.download, model_id, on_progress=report, should_stop=stop.is_set)
            return in_thread(work, "download")

        return stream_events(begin, stop, interval)

    def add_model(self, source: str) -> ModelInfo:
        """A folder or a .safetensors file on this machine, by its path. Raises StudioError, with the reason."""
        self.start().result()
        return self._info(self._worker.run(partial(user_models.add, self._catalog, source)))

    def keep_model(self, uploaded: Path) -> ModelInfo:
        """Moves an uploaded .safetensors file into the user's folder. Raises StudioError, with the reason."""
        self.start().result()
        return self._info(self._worker.run(partial(user_models.keep, self._catalog, uploaded)))

    def forget_model(self, model_id: str) -> str:
        """Removes a model that the user added from the list and returns the path of its files, which stay."""
        return user_models.forget(self._catalog, model_id).folder

    def _info(self, entry: Entry) -> ModelInfo:
        return next(info for info in self._catalog.infos() if info.id == entry.id)

    def history(self, session: str | None) -> History:
        """The saved pictures that an open page may see. session: its name, see `Visitors`."""
        return self.visitors.history(session)

    def query(self, look: str = "", **asked: Any) -> Query:
        """What to look for in a history. look: id, "" for any. asked: the other fields of Query. Raises StudioError for
        an unknown look."""
        if not look:
            return Query(**asked)
        found = self.looks.find(look)
        prefix, suffix = (f"{found.prefix} " if found.prefix else ""), (f" {found.suffix}" if found.suffix else "")
        return Query(**asked, light=light_of(found.variant()), prefix=prefix, suffix=suffix)

    def save(self, result: GenerateResult, session: str | None = None) -> GenerateResult:
        """Writes the pictures as PNG with their settings into the folder of the session's history."""
        return png.save(result, self.history(session).folder)

    def save_sheet(
        self,
        cells: Sequence[Sequence[png.Cell]],
        row_labels: Sequence[str],
        column_labels: Sequence[str],
        session: str | None,
    ) -> Path:
        """Writes a grid as one labelled PNG with its settings beside the session's pictures."""
        return png.save_sheet(cells, row_labels, column_labels, self.history(session).folder)

    def save_sweep(self, pictures: Sequence[Image.Image], session: str | None) -> tuple[Path, Path]:
        """Writes pictures from dark to light as an animated WebP and GIF beside the session's pictures."""
        return save_animation(pictures, self.history(session).folder, "sweep")

    def read_picture(self, path: Path) -> PictureSettings:
        """The settings in a picture of this program or another. Raises StudioError if there are none."""
        return read_picture(path, self._catalog.infos())

    @staticmethod
    def measure(image: Image.Image) -> ImageStats:
        return image_stats(image)

    @staticmethod
    def reached(variant: Variant, image: Image.Image) -> tuple[Reached, ...]:
        """What a variant's dials asked for, and what its picture has."""
        from oms_app.engine.reached import reached  # torch takes seconds to load

        return reached(variant, image)
