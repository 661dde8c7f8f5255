"""From dark to light: one seed at seven brightnesses, as a strip under the pictures of Create and as an animation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.schema import RAW, draw_seed
from oms_app.ui import markup
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues
from oms_app.ui.generation import bind_generation
from oms_app.ui.grid_job import GridJob
from oms_app.ui.grid_table import GridCell, GridResult, table
from oms_app.ui.grids import Grid, GridPart
from oms_app.ui.run_controls import RunControls
from oms_app.ui.seed_field import is_random

LEVELS = (10, 23, 37, 50, 63, 77, 90)  # percent of mean brightness
# When it begins: later the visitor may have gone elsewhere.
SCROLL = """html => {
  const show = () => document.querySelector('#sweep')?.scrollIntoView({block: 'nearest'});
  if (!html.includes('<img')) setTimeout(show, 100);
}"""


def to_grid(values: CreateValues) -> Grid:
    """The raw picture and one for each of LEVELS, in one row; all else is as the fields say.

    Raises StudioError as `CreateValues.to_request`.
    """
    seed = draw_seed() if is_random(values.seed) else values.seed
    first = replace(
        values, seed=seed, count=1, oms_on=True, oms_plain=False, luminance_on=True, luminance=LEVELS[0]
    ).to_request()
    light = first.variants[1]
    levels = [light.model_copy(update={"name": f"brightness {level}", "luminance": level}) for level in LEVELS]
    request = first.model_copy(update={"variants": (RAW, *levels)})
    labels = ("raw", *(f"{level}\u00a0%" for level in LEVELS))
    return Grid(((GridPart(request, tuple(range(len(labels)))),),), (f"seed {request.seed}",), labels)


class Sweep:
    """The button in the Light panel, and the strip, which is hidden until there is one."""

    def __init__(self, service: StudioService) -> None:
        self._service = service

    def build_button(self, controls: RunControls) -> None:
        """Creates the button inside the current row. controls: of Generate, whose Stop and status it shares."""
        self._controls = controls
        self._start = controls.build_start("Dark to light", "sweep-start")

    def build(self) -> None:
        """Creates the strip inside the current column."""
        with gr.Column(visible=False, elem_id="sweep", min_width=0) as self._panel:
            with gr.Row(elem_id="sweep-head"):
                gr.HTML(markup.heading("From dark to light"))
                self._files = [
                    gr.DownloadButton(
                        f"Download {kind}", size="sm", interactive=False, min_width=120, elem_id=f"sweep-{kind.lower()}"
                    )
                    for kind in ("WebP", "GIF")
                ]
                self._close = gr.Button("Close", size="sm", min_width=60, elem_id="sweep-close")
            self._table = gr.HTML("", js_on_load=markup.CLICK_JS, elem_id="sweep-table")
        self._result = gr.State()  # GridResult

    def connect(
        self,
        fields: FieldSet[CreateValues],
        open_cell: Callable[[Mapping[Component, Any], GridResult | None, gr.EventData], Updates],
        outputs: Sequence[Component],
    ) -> None:
        """open_cell: updates of `outputs` that open a picture of the strip in Create."""
        bind_generation(
            self._service,
            self._controls,
            fields,
            lambda values: GridJob(to_grid(values), self._service, self._show, self._say, self._save),
            start=self._start,
            streamed=[self._panel, self._table, *self._files, self._result],
            shown=self._files,
        )
        self._table.change(None, self._table, None, js=SCROLL, **QUICK)
        self._close.click(lambda: gr.update(visible=False), None, self._panel, **QUICK)

        def open_picture(data: Mapping[Component, Any], event: gr.EventData) -> Updates:
            return open_cell(data, data[self._result], event)

        self._table.click(open_picture, {self._result, *fields.components}, list(outputs), **QUICK)

    def _say(self, message: str) -> Updates:
        return {self._controls.status: message}

    def _show(self, result: GridResult, ended: bool) -> Updates:
        updates: Updates = {self._table: table(result)}
        if not ended:
            blank = {one: gr.update(value=None, interactive=False) for one in self._files}
            return updates | {self._panel: gr.update(visible=True)} | blank
        return {**updates, self._result: result}

    def _save(self, result: GridResult, session: str | None) -> Updates:
        row = [result.cells.get((0, column)) for column in range(1, 1 + len(LEVELS))]
        pictures = [cell.image.image for cell in row if isinstance(cell, GridCell)]
        if not pictures:
            return {}
        try:
            paths = self._service.save_sweep(pictures, session)
        except StudioError as error:
            return self._say(markup.alert(f"the animation is not saved: {error}"))
        return {one: gr.update(value=path, interactive=True) for one, path in zip(self._files, paths, strict=True)}
