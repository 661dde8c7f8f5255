"""Models: the catalogue, downloads, the user's own models, and the memory that loaded models use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import Stopped, StudioError
from oms_app.models.catalog import ModelInfo
from oms_app.ui import gradio_compat, markup
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.fair_queue import stopped_go_first
from oms_app.ui.jobs import RemainingTime, StopFlags
from oms_app.ui.model_cards import catalogue, statistics, to_fetch, transfer
from oms_app.ui.roles import require_owner
from oms_app.ui.tab import Page, Tab

logger = logging.getLogger(__name__)
# Where a model that was added can be chosen, by its kind.
PLACES = {
    "lora": "Create: Picture settings → LoRAs",
    "oms": "Compare: Settings of the corrections → OMS module",
    "base": "Create: Picture settings → Model, and of Explore and Compare",
}


class ModelsTab(Tab):
    """local: the tab offers downloads and adding models."""

    id, title = "models", "Models"

    def __init__(self, service: StudioService, local: bool) -> None:
        self._service = service
        self._local = local
        self._flags = StopFlags()

    # Layout

    def build(self) -> None:
        with gr.Row(elem_id="models-layout", elem_classes="" if self._local else "oms-alone"):
            with gr.Column(elem_id="models-list", min_width=0):
                self._catalogue = gr.HTML(
                    self._cards(), js_on_load=markup.CLICK_JS if self._local else None, elem_id="catalogue"
                )
            if self._local:
                with gr.Column(elem_id="models-progress", min_width=0):
                    self._status = gr.HTML(markup.note(*self._service.warnings()), elem_id="models-status")
                    self._stop = gr.Button("Stop", elem_id="models-stop", elem_classes="oms-stop", visible=False)
            with gr.Column(elem_id="models-side", min_width=0):
                if self._local:
                    self._build_adding()
                gr.HTML(markup.heading("Memory"))
                self._statistics = gr.HTML(statistics(None), elem_id="statistics")
                self._update = gr.Button("Refresh", size="sm", elem_id="refresh-statistics")
        self._wanted = gr.State()  # ids to download

    def _build_adding(self) -> None:
        gr.HTML(
            markup.heading("Add your own model")
            + markup.legend(
                "A Stable Diffusion 1.x, 2.x or XL checkpoint or a LoRA as .safetensors, or a folder in the layout of "
                "diffusers or of the OMS authors. A file that you drop is copied into your models folder."
            )
        )
        self._path = gr.Textbox(
            label="Path on this machine",
            placeholder="/home/me/models/dreamy.safetensors",
            info="The files stay where they are.",
            max_lines=1,
            elem_id="own-path",
        )
        self._add = gr.Button("Add", elem_id="own-add")
        self._added = gr.HTML("", elem_id="own-status")
        self._drop = gr.File(label="Or drop a .safetensors file", height=170, elem_id="own-drop")

    # Events

    def connect(self, page: Page) -> None:
        self._page = page
        count: dict[str, Any] = {"fn": self._count, "inputs": None, "outputs": self._statistics, **QUICK}
        page.item(self).select(**count)
        self._update.click(**count)
        if self._local:
            self._connect_downloads()
            self._connect_adding()

    @property
    def lists(self) -> Sequence[Component]:
        return [self._catalogue]

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        return {self._catalogue: self._cards()}

    def _cards(self, *, busy: bool = False) -> str:
        return catalogue(self._service.models(), self._local, busy=busy)

    def _count(self) -> str:
        try:
            return statistics(self._service.statistics())
        except StudioError as error:
            return markup.alert(str(error))

    # Downloads

    def _connect_downloads(self) -> None:
        lists, choices = self._page.lists, self._page.choices
        state = [self._wanted, self._status, self._stop]
        checked = self._catalogue.click(self._on_button, choices, [*state, *lists], **QUICK)
        ran = checked.then(
            self._download,
            self._wanted,
            [self._status, self._catalogue],
            concurrency_id="download",
            concurrency_limit=1,
            show_progress="hidden",
            api_visibility="private",
        )
        stopped_go_first(self._flags)
        ran.then(self._after_download, choices, [self._wanted, self._stop, *lists], **QUICK)
        self._stop.click(self._request_stop, None, self._stop, **QUICK)

    def _on_button(self, data: Mapping[Component, Any], event: gr.EventData, session: gr.Request) -> Updates:
        """A button of the catalogue: removes a model from the list at once, or decides what to download."""
        require_owner("models")
        clicked = gradio_compat.event_data(event)
        action, model = str(clicked.get("action")), str(clicked.get("id"))
        infos = {info.id: info for info in self._service.models()}
        if action == "forget":
            try:
                folder = self._service.forget_model(model)
            except StudioError as error:
                return {self._wanted: None, self._status: markup.alert(str(error))}
            title = infos[model].title if model in infos else model
            message = f"{title} is removed from the list. Its files stay in {folder}"
            return {self._wanted: None, self._status: markup.note(message), **self._page.refresh(data)}
        wanted = to_fetch(infos, model, whole=action == "fetch-all")
        if not wanted:
            return {
                self._wanted: None, self._status: markup.note("It is already downloaded."), **self._page.refresh(data)
            }  # fmt: skip
        self._flags.reset(session.session_hash)
        return {
            self._wanted: wanted,
            self._status: markup.progress(None),
            self._stop: gr.update(visible=True, interactive=True),
            self._catalogue: self._cards(busy=True),
        }

    def _download(self, wanted: list[str] | None, session: gr.Request) -> Iterator[Updates]:
        require_owner("models")
        if not wanted:
            return
        titles = {info.id: info.title for info in self._service.models()}
        stop = self._flags.of(session.session_hash)
        try:
            for number, model in enumerate(wanted, 1):
                if stop.is_set():
                    raise Stopped("stopped")
                title = f"{titles[model]} ({number} of {len(wanted)})" if len(wanted) > 1 else titles[model]
                yield {self._status: transfer(title, None, None)}
                # Once more, with the first event: cards that came from opening the page have enabled buttons.
                busy = {self._catalogue: self._cards(busy=True)}
                time = RemainingTime(minimum=1.0)
                for event in self._service.stream_download(model, stop):
                    if event is not None:
                        yield {self._status: transfer(title, event, time.left(event.done, event.total)), **busy}
                        busy = {}
            names = " and ".join(titles[model] for model in wanted)
            yield {self._status: markup.note(f"{names}: downloaded. The lists in the other tabs are up to date.")}
        except Stopped:
            yield {self._status: markup.note("Stopped. The next download continues from here.")}
        except StudioError as error:
            yield {self._status: markup.alert(str(error))}
        except Exception as error:
            logger.exception("a download failed")
            what = f"An unexpected error stopped the download ({type(error).__name__}: {error})"
            yield {self._status: markup.alert(f"{what}. Try again: it continues from here.")}

    def _after_download(self, data: Mapping[Component, Any]) -> Updates:
        return {self._wanted: None, self._stop: gr.update(visible=False), **self._page.refresh(data)}

    def _request_stop(self, session: gr.Request) -> Updates:
        self._flags.of(session.session_hash).set()
        return {self._stop: gr.update(interactive=False)}

    # The user's own models

    def _connect_adding(self) -> None:
        def by_path(data: Mapping[Component, Any]) -> Updates:
            return self._take(lambda: self._service.add_model(data[self._path] or ""), data)

        def by_file(data: Mapping[Component, Any]) -> Updates:
            file = data[self._drop]
            if file is None:
                return {self._drop: None}
            return {**self._take(lambda: self._service.keep_model(Path(file)), data), self._drop: None}

        outputs = [self._added, self._path, self._drop, *self._page.lists]
        settings: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "add"}
        for event, handler, field in (
            (self._add.click, by_path, self._path),
            (self._path.submit, by_path, self._path),
            (self._drop.upload, by_file, self._drop),
        ):
            checking = event(lambda: markup.status("Checking the model …"), None, self._added, **QUICK)
            checking.then(handler, {field, *self._page.choices}, outputs, **settings)

    def _take(self, add: Callable[[], ModelInfo], data: Mapping[Component, Any]) -> Updates:
        try:
            require_owner("models")
            info = add()
        except StudioError as error:
            return {self._added: markup.alert(str(error))}
        except Exception as error:  # a file from anywhere may break a library in its own way
            logger.exception("a model could not be added")
            return {self._added: markup.alert(f"The model cannot be read ({type(error).__name__}: {error})")}
        place = PLACES.get(info.kind, PLACES["base"])
        message = f"{info.title} is now in the list of {place}."
        return {self._added: markup.note(message), self._path: "", **self._page.refresh(data)}
