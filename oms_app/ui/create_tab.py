"""Create: a prompt gives two pictures from one seed, raw and with One More Step, with their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.schema import OMS, GenerateResult
from oms_app.ui import (
    controls,
    drafts,
    examples,
    gradio_compat,
    markup,
    readout,
    restore,
    saved_settings,
    vocabulary,
    word_check,
)
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CREATE_FIELDS, CreateValues
from oms_app.ui.generation import PictureJob, bind_generation
from oms_app.ui.grid_table import GridCell, GridResult
from oms_app.ui.history_strip import HistoryStrip
from oms_app.ui.light_panel import LightPanel
from oms_app.ui.looks_panel import LooksPanel
from oms_app.ui.model_choice import MODEL_FIELDS, ModelChoice
from oms_app.ui.result_view import Picture, ResultView, ShownResult
from oms_app.ui.run_controls import RunControls
from oms_app.ui.seed_field import RANDOM, SeedField
from oms_app.ui.send import SendingTab, SharedFields
from oms_app.ui.sweep import Sweep
from oms_app.ui.tab import Page
from oms_app.ui.undo import UndoButtons

TRY = (
    '<p class="oms-try">Try it: move <b>Mean brightness</b> or write an OMS prompt, and press Generate. '
    "The scene stays, its light changes.</p>"
)
EXPIRED = "This picture has expired: generate it again."


class CreateTab(SendingTab):
    """fields: the components whose values make a request. controls: Generate, Stop and the status."""

    id, title = "create", "Create"
    refreshes_on_load = False  # saved_settings.py restores the choice of models together with their lists
    fields: FieldSet[CreateValues]

    def __init__(self, service: StudioService) -> None:
        self._service = service
        self._examples = examples.load(service.examples)
        self.controls = RunControls("Generate", "generate")
        self._seed = SeedField()
        self._models = ModelChoice(service, loras=True)
        self._view = ResultView()
        self._history = HistoryStrip(service)
        self._light = LightPanel(service)
        self._sweep = Sweep(service)
        self._undo = UndoButtons()
        self._looks = LooksPanel(service.looks)

    # Layout

    def build(self) -> None:
        found: dict[str, Component] = {}
        opens = self._examples[0] if self._examples else None
        with gr.Row(elem_id="layout", equal_height=False):
            with gr.Column(elem_id="ask", min_width=0):
                self._vocabulary = vocabulary.build()
                found["prompt"] = controls.text(
                    CREATE_FIELDS["prompt"],
                    value=opens.prompt if opens else "",
                    info=None,
                    placeholder="such as: mountains at night",
                    lines=2,
                    max_lines=6,
                    elem_id="prompt",
                )
                with gr.Row(elem_id="buttons"):
                    self.controls.build_buttons()
                    self._seed.build_new()
                self.controls.build_status(TRY if opens else "")
                self._words = word_check.build()
            with gr.Column(elem_id="tune", min_width=0):
                self._light.build(found, opens.variant if opens else OMS)
                with self._light.switches:
                    self._sweep.build_button(self.controls)
                    self._live = drafts.build_switch(self._service)
                with gr.Row(elem_id="which"):
                    self._seed.build(opens.seed if opens else RANDOM)
                    found["count"] = controls.slider(CREATE_FIELDS["count"], elem_id="count", min_width=120)
                self._undo.build()
                self.build_sending()
                with gr.Accordion("Picture settings", open=False, elem_id="settings"):
                    self._build_picture_settings(found)
                self._restore = restore.build()
            # After the settings, so that Tab goes from the prompt to them; style.css places it.
            with gr.Column(elem_id="show", min_width=0):
                self._view.build(opens.result(self._service) if opens else None)
                self._sweep.build()
                self._history.build()
        # Outside of the layout, within which the pictures stay on the screen: they would lie over it.
        with gr.Column(elem_id="start", min_width=0):
            self._looks.build()
            if self._examples:
                gr.HTML(markup.heading("Examples"))
                self._cards = gr.HTML(examples.cards(self._examples), js_on_load=markup.CLICK_JS, elem_id="examples")
            gr.HTML(readout.LEGEND)
        found |= {"seed": self._seed.number, "model": self._models.model}
        found |= {"loras": self._models.loras, "lora_scale": self._models.lora_scale}
        self.fields = FieldSet(CreateValues, found)

    def _build_picture_settings(self, found: dict[str, Component]) -> None:
        defaults = self._models.defaults()
        value = {name: getattr(defaults, name) if defaults else None for name in MODEL_FIELDS}
        found["negative_prompt"] = controls.text(CREATE_FIELDS["negative_prompt"], placeholder="optional")
        self._models.build()
        with gr.Row():
            for name in ("width", "height"):
                found[name] = controls.number(CREATE_FIELDS[name], value=value[name], info="In pixels.", min_width=90)
        with gr.Row():
            found["num_inference_steps"] = controls.number(
                CREATE_FIELDS["num_inference_steps"], value=value["num_inference_steps"], elem_id="steps", min_width=90
            )
            found["scheduler"] = controls.choice(CREATE_FIELDS["scheduler"], value=value["scheduler"], min_width=90)
        found["guidance_scale"] = controls.slider(
            CREATE_FIELDS["guidance_scale"], value=value["guidance_scale"], elem_id="cfg"
        )

    # Events

    def connect(self, page: Page) -> None:
        bind_generation(
            self._service,
            self.controls,
            self.fields,
            lambda values: PictureJob([values.to_request()], self.controls, self._show_results, self._view.live),
            streamed=self._view.overlays,
            shown=self._shown,
        )
        self._light.connect(page.demo, self.fields, also=self._view.summary)
        self._sweep.connect(self.fields, self._open_of_sweep, self.outputs)
        drafts.connect(self._live, self.fields, self._service, self._view)
        word_check.connect(self._words, self.fields, self._service)
        vocabulary.connect(page.demo, self._vocabulary, self.fields, self._service)
        self._undo.connect(page.demo, self.fields)
        self._seed.connect()
        self._models.connect({name: self.fields[name] for name in MODEL_FIELDS})
        self._looks.connect(page.demo, self.fields, self.controls.status, self._view.oms_file)
        saved_settings.connect(page.demo, self.fields, self.lists, self._service, self.refresh)
        self._connect_visibility()
        restore.connect(self._restore, self.fields, self._service, self.show_result, self.controls.status, self.outputs)
        self._history.connect(page.demo, self.fields, self._view, self.show_result, self.controls.status, self.outputs)
        if self._examples:
            self._cards.click(self._open_example, set(self.fields.components), self.outputs, **QUICK)

    def _connect_visibility(self) -> None:
        fields = self.fields
        gr.on(
            [fields["oms_on"].change, fields["oms_plain"].change],
            lambda on, plain: gr.update(visible=on and plain),
            [fields["oms_on"], fields["oms_plain"]],
            self._view.plain_panel,
            **QUICK,
        )

    @property
    def shared(self) -> SharedFields:
        return SharedFields(self.fields["prompt"], self._seed.number, self._models)

    @property
    def lists(self) -> Sequence[Component]:
        return self._models.lists

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        return self._models.refresh(chosen)

    # Showing a picture

    @property
    def outputs(self) -> list[Component]:
        """The components that `show_result` updates."""
        return list(dict.fromkeys([*self._shown, self.controls.status, *self.fields.components]))

    def show_result(self, result: ShownResult, fields: Updates | None = None) -> Updates:
        """Shows a finished picture: of Generate, an example, Explore. fields: updates of the fields that come with it,
        if it was not made from what they hold."""
        return {
            **self._view.show(result),
            self.controls.status: markup.note(*result.notes),
            **(fields or {}),
            **self._seed.used(result.seed),
        }

    def show_cell(
        self, data: Mapping[Component, Any], result: GridResult | None, event: gr.EventData, source: str
    ) -> Updates | None:
        """Opens the picture of a grid that was clicked, with its settings; None if the grid is gone. data: with the
        values of the fields. source: such as "from Explore"."""
        clicked = gradio_compat.event_data(event)
        cell = result.cells.get((int(clicked["row"]), int(clicked["column"]))) if result else None
        if result is None or not isinstance(cell, GridCell):
            return None
        raw, corrected = result.raw_of(cell), cell.variant.is_corrected
        shown = ShownResult(
            prompt=cell.request.prompt,
            seed=cell.image.seed,
            raw=Picture.of(raw),
            oms=Picture.of(cell.image) if corrected else None,
            details=(source,),
            notes=() if raw else ("Press Generate for the raw picture as well.",),
        )
        before = self.fields.read(data)
        after = before.with_picture(cell.request, cell.variant)
        return self.show_result(shown, self.fields.changes(before, after))

    def _open_of_sweep(self, data: Mapping[Component, Any], result: GridResult | None, event: gr.EventData) -> Updates:
        return self.show_cell(data, result, event, "from the sweep") or {self.controls.status: markup.alert(EXPIRED)}

    @property
    def _shown(self) -> list[Component]:
        return [*self._view.outputs, *self._seed.outputs]

    def _show_results(self, results: list[GenerateResult]) -> Updates:
        return self.show_result(ShownResult.of_result(results[0]))

    def _open_example(self, data: Mapping[Component, Any], event: gr.EventData) -> Updates:
        example = examples.clicked(self._examples, event)
        values = self.fields.read(data)
        after = example.apply(values, self._models.defaults(examples.MODEL))
        return self.show_result(example.result(self._service), self.fields.changes(values, after))
