"""A studio that is there before torch is: the page opens at once, and the engine loads meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from oms_app import gallery
from oms_app.home import user_folder
from oms_app.measure.picture import measure
from oms_app.models.catalog import ModelInfo, open_catalog
from oms_app.requests import GenerateRequest, GenerateResult, ImageResult, ImageStats, Progress

if TYPE_CHECKING:
    from oms_app.studio import Studio


class LateStudio:
    """What the page asks of a Studio. `start` loads the engine in the background; a request waits for it.

    device: as for Studio. home: the user's folder (else $OMS_HOME, else the system's place).
    pictures: where finished pictures are kept (else in the user's folder).
    """

    def __init__(self, *, device: str = "auto", home: Path | None = None, pictures: Path | None = None) -> None:
        self.device = device
        self.pictures = pictures or user_folder(home) / "pictures"
        self._home = home
        self._catalog = open_catalog(home=home)
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="load")
        self._studio: Future[Studio] | None = None

    @property
    def examples(self) -> Path:
        """Where ready-made pairs lie, if there are any."""
        return self._catalog.root / "assets/lumen/examples"

    def start(self) -> Future[Studio]:
        """Begins to load the engine, once. torch and diffusers take seconds to import."""
        if self._studio is None:
            self._studio = self._loader.submit(self._load)
        return self._studio

    def _load(self) -> Studio:
        from oms_app.studio import Studio

        return Studio(device=self.device, home=self._home)

    def models(self) -> list[ModelInfo]:
        return self._catalog.infos()

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
        return self.start().result().generate(request, on_progress=on_progress, should_stop=should_stop)

    def preview(self, request: GenerateRequest) -> tuple[ImageResult, ...] | None:
        """As `Studio.preview`; the first one waits for the engine."""
        return self.start().result().preview(request)

    def save(self, result: GenerateResult) -> GenerateResult:
        """The pictures as PNG with their settings, in `pictures`."""
        return gallery.save(result, self.pictures)

    @staticmethod
    def measure(image: Image.Image) -> ImageStats:
        return ImageStats(**vars(measure(np.asarray(image.convert("RGB")))))
