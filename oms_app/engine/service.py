"""A studio that is there before torch is: the page opens at once, and the engine loads meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from oms_app.engine.estimates import Pace
from oms_app.engine.worker import DeviceWorker
from oms_app.looks import Shelf
from oms_app.measure.picture import measure
from oms_app.models import user_models as own
from oms_app.models.catalog import Entry, ModelInfo, open_catalog
from oms_app.output import png as gallery
from oms_app.paths import user_folder
from oms_app.schema import (
    PREVIEW_PATIENCE,
    GenerateRequest,
    GenerateResult,
    ImageResult,
    ImageStats,
    Progress,
    StudioError,
    Transfer,
)

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio


class StudioService:
    """What the page asks of a Studio. `start` loads the engine in the background; a request waits for it.

    device, precision, memory: as for Studio. home: the user's folder (else $OMS_HOME, else the system's place).
    pictures: where finished pictures are kept, for visitors who may save no looks (else in the user's folder).
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
        self._asked: dict[str, Any] = {"device": device, "precision": precision, "memory": memory}
        self.pictures = pictures or user_folder(home) / "pictures"
        self._home = home
        self._catalog = open_catalog(home=home)
        self.looks = Shelf(own=None if pictures else user_folder(home) / "looks")
        self._pace = Pace(user_folder(home) / "pace.json")
        self._engine = DeviceWorker("engine")
        self._studio: Future[Studio] | None = None
        self._starting = threading.Lock()

    @property
    def examples(self) -> Path:
        """Where ready-made pairs lie, if there are any."""
        return self._catalog.root / "assets/lumen/examples"

    def start(self) -> Future[Studio]:
        """Begins to load the engine, once. torch and diffusers take seconds to import.

        Whatever else imports a part of them waits for it first: diffusers loads its classes lazily, and two threads
        that do so at once can each find the other's modules half made (ImportError).
        """
        with self._starting:
            if self._studio is None:
                self._studio = self._engine.submit(self._load)
            return self._studio

    def _load(self) -> Studio:
        from oms_app.engine.studio import Studio

        return Studio(**self._asked, home=self._home, catalog=self._catalog)

    def models(self) -> list[ModelInfo]:
        return self._catalog.infos()

    def complaints(self) -> list[str]:
        """What is wrong with the list of the user's own models."""
        return self._catalog.complaints

    def download(
        self,
        model_id: str,
        *,
        on_progress: Callable[[Transfer], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Fetches an entry of the catalogue, see `hub.fetch`. Raises StudioError for an id that is not in it."""
        self.start().result()
        from oms_app.models.hub import fetch  # half a second that the first page need not wait for

        entry = self._catalog.entries.get(model_id)
        if entry is None:
            raise StudioError(f"unknown model {model_id!r}: choose one of {', '.join(self._catalog.entries)}")
        fetch(entry, self._catalog.folder(entry), on_progress=on_progress, should_stop=should_stop)

    def add_model(self, source: str) -> ModelInfo:
        """A folder or a .safetensors file on this machine, by its path. Raises StudioError, saying why not."""
        self.start().result()
        return self._info(self._engine.do(lambda: own.add(self._catalog, source)))

    def keep_model(self, dropped: Path) -> ModelInfo:
        """A .safetensors file that was uploaded: it is moved into the user's folder. Raises StudioError, saying why
        not."""
        self.start().result()
        return self._info(self._engine.do(lambda: own.keep(self._catalog, dropped)))

    def forget_model(self, model_id: str) -> str:
        """Takes a model that the user added off the list and returns where its files still are."""
        return own.forget(self._catalog, model_id).folder

    def _info(self, entry: Entry) -> ModelInfo:
        return next(info for info in self._catalog.infos() if info.id == entry.id)

    def statistics(self) -> dict[str, Any]:
        """Of the store of loaded models, see `store.Statistics`. Waits for the engine."""
        return asdict(self.start().result().statistics())

    def generate(
        self,
        request: GenerateRequest,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> GenerateResult:
        """As `Studio.generate`. Raises StudioError also where the device asked for is not to be had."""
        if on_progress:
            on_progress(Progress(stage="load"))
        studio = self.start().result()
        result = self._engine.do(
            lambda: studio.generate(request, on_progress=on_progress, should_stop=should_stop),
            should_stop or (lambda: False),
        )
        self._pace.learn(result)
        return result

    def estimate(self, requests: Sequence[GenerateRequest]) -> float | None:
        """Seconds that they will take together, from what was painted here before; None where nothing is known."""
        return self._pace.estimate(requests, {info.id: info.defaults for info in self._catalog.infos()})

    def preview(self, request: GenerateRequest) -> tuple[ImageResult, ...] | None:
        """As `Studio.preview`; the first one waits for the engine."""
        studio = self.start().result()
        return self._engine.do_soon(lambda: studio.preview(request), PREVIEW_PATIENCE)

    def save(self, result: GenerateResult) -> GenerateResult:
        """The pictures as PNG with their settings, in `pictures`."""
        return gallery.save(result, self.pictures)

    def save_sheet(
        self, cells: Sequence[Sequence[gallery.Cell]], row_labels: Sequence[str], column_labels: Sequence[str]
    ) -> Path:
        """A grid as one labelled PNG with its settings, in `pictures`."""
        return gallery.save_sheet(cells, row_labels, column_labels, self.pictures)

    @staticmethod
    def measure(image: Image.Image) -> ImageStats:
        return ImageStats(**vars(measure(np.asarray(image.convert("RGB")))))
