"""The choice of models, with their LoRAs, as every tab has it; its lists follow the models on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.fields import LORA_FIELDS, REQUEST_FIELDS
from oms_app.models.catalog import Defaults, ModelInfo
from oms_app.paths import EMBEDDED
from oms_app.ui import controls
from oms_app.ui.events import QUICK, Component, Updates

MODEL_FIELDS = ("width", "height", "num_inference_steps", "scheduler", "guidance_scale")  # their defaults are a model's


def available_models(service: StudioService, kind: str) -> list[ModelInfo]:
    """The models of a kind whose files are on this machine, the embedded one first."""
    found = [info for info in service.models() if info.available and info.kind == kind]
    return sorted(found, key=lambda info: info.id != EMBEDDED)


def options(infos: Sequence[ModelInfo]) -> list[tuple[str, str]]:
    """The choices of a list: title and id."""
    return [(info.title, info.id) for info in infos]


def _defaults_by_id(infos: Sequence[ModelInfo]) -> dict[str, Any]:
    return {info.id: info.defaults.model_dump() for info in infos if info.defaults}


class ModelChoice:
    """One base model and, with `loras`, its LoRAs and their strength. prefix: of the element ids."""

    def __init__(self, service: StudioService, prefix: str = "", *, loras: bool = False) -> None:
        self._service = service
        self._prefix = prefix
        self._loras = LoraChoice(service, prefix) if loras else None

    def build(self, info: str = "Changing it sets size, steps, scheduler and CFG to the model's defaults.") -> None:
        """Creates the components inside the current column."""
        models = available_models(self._service, "base")
        self._defaults_table = gr.JSON(_defaults_by_id(models), visible="hidden")
        self.model = controls.choice(
            REQUEST_FIELDS["model"], choices=options(models), value=models[0].id if models else None, info=info,
            elem_id=f"{self._prefix}model",
        )  # fmt: skip
        if self._loras is not None:
            self._loras.build()
            self.loras, self.lora_scale = self._loras.loras, self._loras.scale

    def connect(self, fields: Mapping[str, Component]) -> None:
        """A new choice of the visitor sets these fields to the model's defaults. fields: by their names in Defaults.

        In the browser, so that the choice and its defaults are one step of Undo.
        """
        self._of_model = fields
        components = list(fields.values())
        names = json.dumps(list(fields))
        js = f"(table, model, ...now) => {names}.map((name, i) => table[model]?.[name] ?? now[i])"
        self.model.input(None, [self._defaults_table, self.model, *components], components, js=js, **QUICK)

    def _defaults_of(self, model: str) -> Updates:
        defaults = self.defaults(model)
        return {field: getattr(defaults, name) for name, field in self._of_model.items()} if defaults else {}

    @property
    def chosen_with(self) -> list[Component]:
        """The choice and the fields that `choose` sets."""
        return [self.model, *self._of_model.values()]

    def chosen(self, data: Mapping[Component, Any]) -> str | None:
        model: str | None = data[self.model]
        return model

    def choose(self, model: str, data: Mapping[Component, Any]) -> Updates:
        """Updates that choose a model, and set the fields to its defaults if another was chosen. data: the values."""
        return {} if data[self.model] == model else {self.model: model} | self._defaults_of(model)

    def defaults(self, model: str | None = None) -> Defaults | None:
        """Of a model on this machine; of the first one if none is named; None if there is no such model."""
        models = available_models(self._service, "base")
        return next((info.defaults for info in models if model in (None, info.id)), None)

    @property
    def lists(self) -> list[Component]:
        """The components that `refresh` updates."""
        return [self.model, self._defaults_table, *(self._loras.lists if self._loras else [])]

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        """See `Tab.refresh`."""
        models = available_models(self._service, "base")
        ids = [info.id for info in models]
        model = chosen[self.model] if chosen[self.model] in ids else next(iter(ids), None)
        updates = {
            self.model: gr.update(choices=options(models), value=model),
            self._defaults_table: _defaults_by_id(models),
        }
        return {**updates, **(self._loras.refresh(chosen) if self._loras else {})}


class LoraChoice:
    """Any number of LoRAs and their strength; hidden while there are none. prefix: of the element ids."""

    def __init__(self, service: StudioService, prefix: str = "") -> None:
        self._service = service
        self._prefix = prefix

    def build(self) -> None:
        found = available_models(self._service, "lora")
        with gr.Column(visible=bool(found), elem_id=f"{self._prefix}lora-settings") as self._settings:
            self.loras = gr.Dropdown(
                options(found), value=[], multiselect=True, label="LoRAs", elem_id=f"{self._prefix}loras",
                info="Small additions to a model: a style, a subject, fewer steps. Each fits one family of models.",
            )  # fmt: skip
            self.scale = controls.slider(LORA_FIELDS["scale"])

    @property
    def lists(self) -> list[Component]:
        """The components that `refresh` updates."""
        return [self.loras, self._settings]

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        """See `Tab.refresh`."""
        found = available_models(self._service, "lora")
        return {self.loras: _selection(found, chosen[self.loras]), self._settings: gr.update(visible=bool(found))}


class ModelGroup:
    """Any number of base models. elem_id: of the group."""

    def __init__(self, service: StudioService, elem_id: str) -> None:
        self._service = service
        self._elem_id = elem_id

    def build(self, info: str) -> None:
        models = available_models(self._service, "base")
        self.models = gr.CheckboxGroup(
            options(models), value=[info.id for info in models[:1]], label="Models", info=info, elem_id=self._elem_id
        )

    @property
    def lists(self) -> list[Component]:
        return [self.models]

    @property
    def chosen_with(self) -> list[Component]:
        return [self.models]

    def chosen(self, data: Mapping[Component, Any]) -> str | None:
        """The first one."""
        return next(iter(data[self.models] or ()), None)

    def choose(self, model: str, data: Mapping[Component, Any]) -> Updates:
        """Updates that choose this model alone."""
        return {self.models: [model]}

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        """See `Tab.refresh`."""
        return {self.models: _selection(available_models(self._service, "base"), chosen[self.models])}


def _selection(infos: Sequence[ModelInfo], chosen: Sequence[str] | None) -> Any:
    ids = [info.id for info in infos]
    return gr.update(choices=options(infos), value=[one for one in chosen or () if one in ids])
