"""Explore: grids of seeds, prompts, light, looks and models, or of any two settings. A click opens a cell in Create."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.fields import REQUEST_FIELDS, VARIANT_FIELDS
from oms_app.light import LIGHTS
from oms_app.looks import Look
from oms_app.ui import axes, controls, markup
from oms_app.ui.create_tab import EXPIRED, CreateTab
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.generation import bind_generation
from oms_app.ui.grid_job import GridJob
from oms_app.ui.grid_table import GridResult, table
from oms_app.ui.grids import (
    KINDS,
    LIGHT_BY_SEED,
    LOOK_BY_MODEL,
    PROMPT_BY_CFG,
    SEEDS,
    SLIDER_BY_SEED,
    SWEEPS,
    TWO_FIELDS,
    ExploreValues,
    Grid,
    to_grid,
)
from oms_app.ui.model_choice import MODEL_FIELDS, ModelChoice, ModelGroup
from oms_app.ui.run_controls import RunControls
from oms_app.ui.seed_field import SeedField
from oms_app.ui.send import SendingTab, SharedFields
from oms_app.ui.tab import Page

PRESELECTED_LOOKS = ("plain", "night", "golden-hour", "fog", "high-key")


class ExploreTab(SendingTab):
    id, title = "explore", "Explore"
    fields: FieldSet[ExploreValues]

    def __init__(self, service: StudioService, create: CreateTab) -> None:
        self._service = service
        self._create = create
        self._controls = RunControls("Generate grid", "explore", "explore-")
        self._seed = SeedField("explore-")
        self._model = ModelChoice(service, "explore-", loras=True)
        self._models = ModelGroup(service, "explore-models")

    # Layout

    def build(self) -> None:
        found: dict[str, Component] = {}
        self._axes: dict[str, gr.Column] = {}
        with gr.Row(elem_id="explore-ask"):
            with gr.Column(min_width=280):
                found["prompt"] = controls.text(
                    REQUEST_FIELDS["prompt"], value="mountains", info="For all pictures of the grid.", lines=2,
                    elem_id="explore-prompt",
                )  # fmt: skip
                found["kind"] = gr.Radio(list(KINDS), value=PROMPT_BY_CFG, label="Grid", elem_id="explore-kind")
            with gr.Column(min_width=280):
                self._build_axes(found)
            with gr.Column(min_width=280):
                self._seed.build()
                with gr.Accordion("Picture settings", open=False, elem_id="explore-settings"):
                    self._build_picture_settings(found)
                self.build_sending()
        with gr.Row(elem_id="explore-run"):
            with gr.Column(min_width=280):
                with gr.Row(elem_id="explore-buttons"):
                    self._controls.build_buttons()
                    self._seed.build_new()
                    self._sheet = gr.DownloadButton(
                        "Download sheet", elem_id="explore-sheet", interactive=False, scale=2, min_width=170
                    )
                self._plan = gr.HTML(markup.legend("The number of pictures and the time."), elem_id="explore-plan")
            with gr.Column(min_width=280):
                self._controls.build_status()
        self._table = gr.HTML(
            markup.legend("The grid fills row by row. Click a picture to open it in Create with all its settings."),
            js_on_load=markup.CLICK_JS,
            elem_id="explore-table",
        )
        self._result = gr.State()  # GridResult
        found |= {"seed": self._seed.number}
        found |= {"model": self._model.model, "models": self._models.models}
        found |= {"loras": self._model.loras, "lora_scale": self._model.lora_scale}
        self.fields = FieldSet(ExploreValues, found)

    def _build_axes(self, found: dict[str, Component]) -> None:
        with gr.Column(visible=False, elem_id="explore-by-seed") as self._axes[SEEDS]:
            found["seed_count"] = gr.Slider(1, 16, value=4, step=1, label="Seeds", elem_id="explore-seed-count")
            found["seeds_oms_prompt"] = gr.Textbox(
                label="OMS prompt", info="Empty = the prompt.", max_lines=1, elem_id="explore-seeds-prompt"
            )
            found["seeds_raw"] = gr.Checkbox(False, label="The raw pictures too", elem_id="explore-seeds-raw")
        with gr.Column(visible=False, elem_id="explore-by-fields") as self._axes[TWO_FIELDS]:
            for name, label, field, text in (
                ("row", "Rows", f"{axes.VARIANT} luminance", "20, 50, 80"),
                ("column", "Columns", f"{axes.VARIANT} warmth", "-1, 0, 1"),
            ):
                found[f"{name}_field"] = gr.Dropdown(
                    list(axes.CHOICES), value=field, label=label, elem_id=f"explore-{name}-field"
                )
                found[f"{name}_values"] = gr.Textbox(
                    text, label=f"Values of the {name}s", lines=2, elem_id=f"explore-{name}-values",
                    info="Separated by commas; prompts one on each line.",
                )  # fmt: skip
        with gr.Column(elem_id="explore-by-cfg") as self._axes[PROMPT_BY_CFG]:
            found["oms_prompts"] = gr.Textbox(
                "dark\nsunset\nbright", label="OMS prompts", info="One on each line; each gets a row.", lines=4,
                elem_id="explore-prompts",
            )  # fmt: skip
            found["oms_scales"] = gr.Textbox(
                "0.5, 1, 1.5, 2", label="OMS CFG", info="Numbers separated by commas; each gets a column.", max_lines=1,
                elem_id="explore-scales",
            )  # fmt: skip
        with gr.Column(visible=False, elem_id="explore-by-slider") as self._axes[SLIDER_BY_SEED]:
            with gr.Row():
                for name, value in (("left", "dark"), ("right", "light")):
                    found[name] = gr.Textbox(
                        value, label=f"{name.capitalize()} end", info="Empty = the prompt.", min_width=90, max_lines=1
                    )
            with gr.Row():
                found["places"] = gr.Slider(2, 9, value=5, step=1, label="Places on the slider", min_width=120)
                found["seeds"] = gr.Slider(1, 8, value=3, step=1, label="Seeds", min_width=120, elem_id="explore-seeds")
            found["oms_guidance_scale"] = controls.slider(VARIANT_FIELDS["guidance_scale"])
        with gr.Column(visible=False, elem_id="explore-by-light") as self._axes[LIGHT_BY_SEED]:
            with gr.Row():
                found["dial"] = gr.Dropdown(
                    [(VARIANT_FIELDS[name].label, name) for name in SWEEPS], value="luminance", label="Dial",
                    filterable=False, min_width=120, elem_id="explore-dial",
                )  # fmt: skip
                found["dial_light"] = gr.Dropdown(
                    list(LIGHTS), value=LIGHTS[0], label="Light whose strength it is", filterable=False, visible=False,
                    min_width=120, elem_id="explore-dial-light",
                )  # fmt: skip
            found["dial_values"] = gr.Textbox(
                SWEEPS["luminance"], label="Values", info="Separated by commas; each gets a column.", max_lines=2,
                elem_id="explore-dial-values",
            )  # fmt: skip
            found["dial_seeds"] = gr.Slider(1, 8, value=2, step=1, label="Seeds", elem_id="explore-dial-seeds")
        with gr.Column(visible=False, elem_id="explore-by-look") as self._axes[LOOK_BY_MODEL]:
            looks = self._looks()
            found["looks"] = gr.Dropdown(
                _choices(looks), value=[look.id for look in looks if look.id in PRESELECTED_LOOKS], multiselect=True,
                label="Looks", info="Each gets a row.", elem_id="explore-looks",
            )  # fmt: skip
            self._models.build("Each gets a column, at its default size, steps and CFG.")

    def _build_picture_settings(self, found: dict[str, Component]) -> None:
        defaults = self._model.defaults()
        self._model.build()
        found["negative_prompt"] = controls.text(REQUEST_FIELDS["negative_prompt"], placeholder="optional", max_lines=2)
        with gr.Row():
            for name, elem_id in (("num_inference_steps", "explore-steps"), ("guidance_scale", "explore-cfg")):
                found[name] = controls.number(
                    REQUEST_FIELDS[name], value=getattr(defaults, name, None), info="Empty = the model's default.",
                    elem_id=elem_id, min_width=90,
                )  # fmt: skip
        with gr.Row():
            for name in ("width", "height"):
                found[name] = controls.number(
                    REQUEST_FIELDS[name], value=getattr(defaults, name, None), info="Empty = the model's default.",
                    elem_id=f"explore-{name}", min_width=90,
                )  # fmt: skip
        found["scheduler"] = controls.choice(
            REQUEST_FIELDS["scheduler"], value=getattr(defaults, "scheduler", None), elem_id="explore-scheduler"
        )

    # Events

    def connect(self, page: Page) -> None:
        self._page = page
        bind_generation(
            self._service,
            self._controls,
            self.fields,
            self._job,
            streamed=[self._table, self._result, self._sheet, self._plan, *self._seed.outputs],
            shown=[self._sheet],
        )
        self._seed.connect()
        self._model.connect({name: self.fields[name] for name in MODEL_FIELDS})
        opened = page.item(self).select
        opened(lambda: gr.update(choices=_choices(self._looks())), None, self.fields["looks"], **QUICK)
        all_but_seed = set(self.fields.components) - {self._seed.number}
        gr.on(
            [opened, *(component.change for component in all_but_seed)],
            self._update_plan,
            set(self.fields.components),
            self._plan,
            trigger_mode="always_last",
            **QUICK,
        )
        self.fields["kind"].change(
            lambda kind: [gr.update(visible=kind == one) for one in KINDS],
            self.fields["kind"],
            [self._axes[one] for one in KINDS],
            **QUICK,
        )
        self.fields["dial"].input(
            lambda dial: (SWEEPS.get(str(dial), ""), gr.update(visible=dial == "light_strength")),
            self.fields["dial"],
            [self.fields["dial_values"], self.fields["dial_light"]],
            **QUICK,
        )
        inputs = {self._result, *self._create.fields.components}
        outputs = [*self._create.outputs, page.bar, self._controls.status]
        self._table.click(self._open_cell, inputs, outputs, **QUICK)

    @property
    def shared(self) -> SharedFields:
        return SharedFields(self.fields["prompt"], self._seed.number, self._model)

    @property
    def lists(self) -> Sequence[Component]:
        return [*self._model.lists, *self._models.lists]

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        return {**self._model.refresh(chosen), **self._models.refresh(chosen)}

    # Generating the grid

    def _job(self, values: ExploreValues) -> GridJob:
        return GridJob(self._grid(values), self._service, self._show, self._say, self._save_sheet)

    def _say(self, message: str) -> Updates:
        return {self._controls.status: message}

    def _grid(self, values: ExploreValues) -> Grid:
        infos = self._service.models()
        known = {
            name: [info.id for info in infos if info.available and info.kind == kind]
            for name, kind in (("model", "base"), ("module", "oms"))
        }
        return to_grid(values, self._looks(), {info.id: info.title for info in infos}, known)

    def _looks(self) -> list[Look]:
        return [look for look, _ in self._service.looks.looks()]

    def _show(self, result: GridResult, ended: bool) -> Updates:
        updates: Updates = {self._table: table(result)}
        if not result.cells:
            updates |= self._seed.used(result.grid.requests[0].seed or 0)
            updates[self._sheet] = gr.update(value=None, interactive=False)
        if ended or not result.cells:
            updates[self._result] = result
        if ended:
            updates[self._plan] = self._planned(result.grid)
        return updates

    def _save_sheet(self, result: GridResult, session: str | None) -> Updates:
        rows = [markup.without_isolates(label) for label in result.grid.row_labels]
        columns = [markup.without_isolates(label) for label in result.grid.column_labels]
        try:
            path = self._service.save_sheet(result.for_sheet(), rows, columns, session)
        except StudioError as error:
            return self._say(markup.alert(f"the sheet is not saved: {error}"))
        return {self._sheet: gr.update(value=path, interactive=True)}

    def _update_plan(self, data: Mapping[Component, Any]) -> str:
        """How many pictures the fields ask for and how long they take, or why the fields do not make a grid."""
        try:
            return self._planned(self._grid(self.fields.read(data)))
        except StudioError as error:
            return markup.legend(f"{error}"[:1].upper() + f"{error}"[1:] + ".")

    def _planned(self, grid: Grid) -> str:
        seconds = self._service.estimate(grid.requests)
        time = markup.about(seconds) if seconds is not None else "the time is estimated after the first row"
        return markup.legend(f"{markup.count(grid.size)}, {time}.")

    # Opening a cell

    def _open_cell(self, data: Mapping[Component, Any], event: gr.EventData) -> Updates:
        updates = self._create.show_cell(data, data[self._result], event, "from Explore")
        if updates is None:
            return {self._controls.status: markup.alert(EXPIRED)}
        return {**updates, **self._page.open(self._create)}


def _choices(looks: Sequence[Look]) -> list[tuple[str, str]]:
    return [(look.title, look.id) for look in looks]
