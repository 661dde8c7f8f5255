"""Compare: up to six pictures in a row from one prompt and one seed, by corrections and models, with their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.fields import REQUEST_FIELDS
from oms_app.light import LIGHTS
from oms_app.prestep.corrections import CORRECTIONS, variant_settings
from oms_app.schema import GenerateResult, ImageResult
from oms_app.ui import controls, markup, readout
from oms_app.ui.events import Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import MAX_COMPARED, CompareValues
from oms_app.ui.generation import PictureJob, bind_generation
from oms_app.ui.model_choice import ModelGroup, available_models, options
from oms_app.ui.result_view import picture_panel
from oms_app.ui.run_controls import RunControls
from oms_app.ui.seed_field import SeedField
from oms_app.ui.tab import Page, Tab

AUTOMATIC = ""  # the module of the base model's latent domain; no direction of light
DIM = 20  # percent: the brightness that dial starts with here
SIMILAR = "oms-"  # ids of corrections that differ from OMS in a detail begin so; they are not selected at first


class CompareTab(Tab):
    id, title = "compare", "Compare"
    fields: FieldSet[CompareValues]

    def __init__(self, service: StudioService) -> None:
        self._service = service
        self._controls = RunControls("Compare", "compare", "compare-")
        self._seed = SeedField("compare-")
        self._models = ModelGroup(service, "compare-models")

    def build(self) -> None:
        ready = [
            spec for spec in CORRECTIONS.values() if spec.needs is None or available_models(self._service, spec.needs)
        ]
        found: dict[str, Any] = {}
        with gr.Row(elem_id="compare-ask"):
            with gr.Column(min_width=280):
                found["prompt"] = controls.text(
                    REQUEST_FIELDS["prompt"], value="solid black background", info="For all pictures.", lines=2,
                    elem_id="compare-prompt",
                )  # fmt: skip
                with gr.Row():
                    self._controls.build_buttons()
                    self._seed.build_new()
                self._controls.build_status()
            with gr.Column(min_width=280):
                found["corrections"] = gr.CheckboxGroup(
                    [(spec.title, spec.id) for spec in ready],
                    value=[spec.id for spec in ready if not spec.id.startswith(SIMILAR)][:MAX_COMPARED],
                    label="Corrections",
                    info="Each starts from the same noise.",
                    elem_id="compare-methods",
                )
                self._models.build(f"Each with every correction; at most {MAX_COMPARED} pictures.")
            with gr.Column(min_width=280):
                self._seed.build()
                with gr.Accordion("Settings of the corrections", open=False, elem_id="compare-settings"):
                    found["settings"] = self._build_settings()
        self._summary = gr.HTML("", elem_id="compare-summary")
        with gr.Row(elem_id="compared"):
            self._panels = [self._build_panel(number) for number in range(MAX_COMPARED)]
        found |= {"seed": self._seed.number, "models": self._models.models}
        self.fields = FieldSet(CompareValues, found)

    def _build_settings(self) -> dict[str, Component]:
        """A control for every setting that some correction reads."""
        found = {}
        for name, field in variant_settings().items():
            readers = [spec.title for spec in CORRECTIONS.values() if field in spec.options]
            info = f"{field.help} For: {', '.join(readers)}."
            if name == "module":
                found[name] = controls.choice(field, choices=self._modules(), value=AUTOMATIC, info=info)
            elif name == "prompt":
                found[name] = controls.text(field, info=info, placeholder="empty = the main prompt")
            elif name == "light":
                choices = [("as the prompt says", AUTOMATIC), *LIGHTS]
                found[name] = controls.choice(
                    field, choices=choices, value=AUTOMATIC, info=info, elem_id="compare-light"
                )
            elif name == "luminance":  # else dial would be the same picture as OMS
                found[name] = controls.number(field, value=DIM, info=info, elem_id="compare-luminance")
            else:
                found[name] = controls.control(field, info=info)
        return found

    def _build_panel(self, number: int) -> tuple[gr.Column, gr.Image, gr.HTML]:
        with gr.Column(min_width=0, visible=False, elem_classes="oms-compared") as column:
            return column, picture_panel(f"compared-{number}"), gr.HTML("", elem_id=f"compared-figures-{number}")

    def connect(self, page: Page) -> None:
        bind_generation(
            self._service,
            self._controls,
            self.fields,
            lambda values: PictureJob(values.to_requests(), self._controls, self._show),
            shown=[*(part for panel in self._panels for part in panel), self._summary, *self._seed.outputs],
        )
        self._seed.connect()

    @property
    def lists(self) -> Sequence[Component]:
        return [*self._models.lists, self.fields["settings"]["module"]]

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        module = self.fields["settings"]["module"]
        modules = self._modules()
        value = chosen[module] if chosen[module] in [id_ for _, id_ in modules] else AUTOMATIC
        return {**self._models.refresh(chosen), module: gr.update(choices=modules, value=value)}

    def _modules(self) -> list[tuple[str, str]]:
        return [("automatic", AUTOMATIC), *options(available_models(self._service, "oms"))]

    def _show(self, results: list[GenerateResult]) -> Updates:
        made: list[tuple[GenerateResult, ImageResult]] = [(r, image) for r in results for image in r.images]
        updates: Updates = {}
        for i, (column, picture, figures) in enumerate(self._panels):
            if i >= len(made):
                updates |= {column: gr.update(visible=False), picture: None, figures: ""}
                continue
            result, image = made[i]
            title = CORRECTIONS[image.variant].title
            if len(results) > 1:
                title = f"{title} · {result.request.model}"
            updates |= {
                column: gr.update(visible=True),
                picture: gr.update(value=image.path or image.image, label=title),
                figures: readout.figures(image.stats, image.reached),
            }
        first = results[0]
        notes = dict.fromkeys(note for result in results for note in result.notes)
        return {
            **updates,
            self._summary: readout.summary(first.request.prompt, first.seed, readout.details(first)),
            self._controls.status: markup.note(*notes),
            **self._seed.used(first.seed),
        }
