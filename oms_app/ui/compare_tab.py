"""Compare: up to twelve pictures of one prompt, by corrections, models and seeds, with their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.fields import REQUEST_FIELDS
from oms_app.light import LIGHTS
from oms_app.prestep.corrections import CORRECTIONS, variant_settings
from oms_app.schema import Progress
from oms_app.ui import controls, live_previews, markup, readout
from oms_app.ui.compare_job import Compared, CompareJob
from oms_app.ui.events import Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import MAX_COMPARED, CompareValues
from oms_app.ui.generation import bind_generation
from oms_app.ui.model_choice import LoraChoice, ModelGroup, available_models, options
from oms_app.ui.result_view import picture_panel
from oms_app.ui.run_controls import RunControls
from oms_app.ui.seed_field import SeedField
from oms_app.ui.send import SendingTab, SharedFields
from oms_app.ui.tab import Page

AUTOMATIC = ""  # the module of the base model's latent domain; no direction of light
MAX_SEEDS = 4  # to compare
PRESELECTED = 6  # corrections
DIM = 20  # percent: the brightness that dial starts with here
SIMILAR = "oms-"  # ids of corrections that differ from OMS in a detail begin so; they are not selected at first


class CompareTab(SendingTab):
    id, title = "compare", "Compare"
    fields: FieldSet[CompareValues]

    def __init__(self, service: StudioService) -> None:
        self._service = service
        self._controls = RunControls("Compare", "compare", "compare-")
        self._seed = SeedField("compare-")
        self._models = ModelGroup(service, "compare-models")
        self._loras = LoraChoice(service, "compare-")

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
                    value=[spec.id for spec in ready if not spec.id.startswith(SIMILAR)][:PRESELECTED],
                    label="Corrections",
                    info="Each starts from the same noise.",
                    elem_id="compare-methods",
                )
                self._models.build(f"Each with every correction; at most {MAX_COMPARED} pictures.")
            with gr.Column(min_width=280):
                self._seed.build()
                found["count"] = gr.Slider(
                    1, MAX_SEEDS, value=1, step=1, label="Seeds", info="In a row from the seed above.",
                    elem_id="compare-count",
                )  # fmt: skip
                with gr.Accordion("Picture settings", open=False, elem_id="compare-pictures"):
                    self._build_picture_settings(found)
                with gr.Accordion("Settings of the corrections", open=False, elem_id="compare-settings"):
                    found["settings"] = self._build_settings()
                self.build_sending()
        self._summary = gr.HTML("", elem_id="compare-summary")
        with gr.Row(elem_id="compared"):
            self._overlays: list[Component] = []
            self._panels = [self._build_panel(number) for number in range(MAX_COMPARED)]
        found |= {"seed": self._seed.number, "models": self._models.models}
        found |= {"loras": self._loras.loras, "lora_scale": self._loras.scale}
        self.fields = FieldSet(CompareValues, found)

    def _build_picture_settings(self, found: dict[str, Any]) -> None:
        with gr.Row():
            for name in ("width", "height"):
                found[name] = controls.number(
                    REQUEST_FIELDS[name], value=0, info="0 = each model's own.", min_width=90,
                    elem_id=f"compare-{name}",
                )  # fmt: skip
        scheduler = REQUEST_FIELDS["scheduler"]
        found["scheduler"] = controls.choice(
            scheduler, choices=[("each model's own", AUTOMATIC), *scheduler.choices], value=AUTOMATIC,
            elem_id="compare-scheduler",
        )  # fmt: skip
        self._loras.build()

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
            picture = picture_panel(f"compared-{number}", alt_text=f"Picture {number + 1} of the comparison")
            self._overlays.append(live_previews.build(f"compared-{number}"))
            return column, picture, gr.HTML("", elem_id=f"compared-figures-{number}")

    def connect(self, page: Page) -> None:
        bind_generation(
            self._service,
            self._controls,
            self.fields,
            self._job,
            streamed=[*self._overlays, *(column for column, _, _ in self._panels)],
            shown=[*(part for panel in self._panels for part in panel), self._summary, *self._seed.outputs],
        )
        self._seed.connect()

    @property
    def shared(self) -> SharedFields:
        return SharedFields(self.fields["prompt"], self._seed.number, self._models)

    @property
    def lists(self) -> Sequence[Component]:
        return [*self._models.lists, *self._loras.lists, self.fields["settings"]["module"]]

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        module = self.fields["settings"]["module"]
        modules = self._modules()
        value = chosen[module] if chosen[module] in [id_ for _, id_ in modules] else AUTOMATIC
        lists = {**self._models.refresh(chosen), **self._loras.refresh(chosen)}
        return {**lists, module: gr.update(choices=modules, value=value)}

    def _modules(self) -> list[tuple[str, str]]:
        return [("automatic", AUTOMATIC), *options(available_models(self._service, "oms"))]

    def _job(self, values: CompareValues) -> CompareJob:
        return CompareJob(
            values.to_requests(),
            self._service,
            lambda message: {self._controls.status: message},
            self._live,
            self._show,
        )

    def _live(self, event: Progress | None, panels: Mapping[tuple[str, int], int]) -> Updates:
        """The previews of an event over their panels; None removes all."""
        if event is None:
            return live_previews.updates({str(i): one for i, one in enumerate(self._overlays)}, None)
        updates: Updates = {}
        for preview in event.previews:
            number = panels[preview.variant, preview.index]
            updates |= live_previews.shown(self._overlays[number], preview.image)
            updates[self._panels[number][0]] = gr.update(visible=True)
        return updates

    def _show(self, made: Mapping[int, Compared], message: str) -> Updates:
        updates: Updates = {}
        models = {one.result.request.model for one in made.values()}
        seeds = {one.image.seed for one in made.values()}
        for number, (column, picture, figures) in enumerate(self._panels):
            one = made.get(number)
            if one is None:
                updates |= {column: gr.update(visible=False), picture: None, figures: ""}
                continue
            image = one.image
            title = [CORRECTIONS[image.variant].title]
            title += [one.result.request.model] if len(models) > 1 else []
            title += [f"seed {image.seed}"] if len(seeds) > 1 else []
            name = " · ".join(title)
            updates |= {
                column: gr.update(visible=True),
                picture: gr.update(value=image.path or image.image, label=name, alt_text=name),
                figures: readout.figures(image.stats, image.reached),
            }
        first = made[min(made)]
        notes = dict.fromkeys(note for one in made.values() for note in one.result.notes)
        *details, _ = readout.details(first.result)  # its time is that of a part
        shown = readout.summary(first.result.request.prompt, first.image.seed, details)
        return {
            **updates,
            self._summary: shown,
            self._controls.status: markup.note(*notes, *([message] if message else [])),
            **self._seed.used(min(seeds)),
        }
