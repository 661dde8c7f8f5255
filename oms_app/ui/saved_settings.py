"""Keeps the settings of Create in the visitor's browser, not on the server, so that they survive a reload.

Each tab of the browser has its own, in sessionStorage. A new tab starts with the last that any had, in localStorage.
Restored values are checked like any other input; a field whose value is not valid keeps its default.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.fields import RequestField
from oms_app.light import is_layout
from oms_app.ui import gradio_compat
from oms_app.ui.controls import slider_range
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CREATE_FIELDS, OMS_MODES, CreateValues
from oms_app.ui.light_values import PAD, PAINTING, PICTURE
from oms_app.ui.model_choice import MODEL_FIELDS, available_models

KEY = "oms-studio-create"
READ = f"""last => {{
  try {{ return [JSON.parse(sessionStorage.getItem('{KEY}')) ?? last]; }} catch {{ return [last]; }}
}}"""
WRITE = f"""(names, values) => {{
  const settings = Object.fromEntries(names.map((name, i) => [name, values[i]]));
  try {{ sessionStorage.setItem('{KEY}', JSON.stringify(settings)); }} catch {{}}
  return settings;
}}"""
NAMES = tuple(field.name for field in dataclass_fields(CreateValues))
# Meaningless without the model that they were set for:
OF_MODEL = (*MODEL_FIELDS, "loras")


def valid(saved: Any, models: Sequence[str], loras: Sequence[str] = ()) -> dict[str, Any]:
    """Those of the saved values that the fields may hold, by name. models, loras: ids of those on this machine."""
    if not isinstance(saved, dict):
        return {}

    def passes(name: str, value: Any) -> bool:
        if name in (PAINTING, PICTURE):
            return value == "" or is_layout(value)
        if name in CREATE_FIELDS:
            return _permitted(CREATE_FIELDS[name], value)
        if name == "loras":
            return isinstance(value, list) and all(one in loras for one in value)
        choices: dict[str, Sequence[str]] = {"oms_mode": OMS_MODES, "model": models, "light": PAD}
        return isinstance(value, str) and value in choices[name] if name in choices else isinstance(value, bool)

    good = {name: saved[name] for name in NAMES if name in saved and passes(name, saved[name])}
    if "model" not in good:
        good = {name: value for name, value in good.items() if name not in OF_MODEL}
    return good


def connect(
    demo: gr.Blocks,
    fields: FieldSet[CreateValues],
    lists: Sequence[Component],
    service: StudioService,
    refresh: Callable[[Mapping[Component, Any]], Updates],
) -> None:
    """Writes every change of a field into the browser, and fills the fields when the page opens.

    lists, refresh: as of the tab. The lists of models come in the same event as what is chosen in them: in two events
    the later would undo the other's choice.
    """
    components = [fields[name] for name in NAMES]
    store = gradio_compat.browser_state(KEY)

    def restore(saved: Any) -> Updates:
        good = valid(saved, *([info.id for info in available_models(service, kind)] for kind in ("base", "lora")))
        chosen = {fields[name]: good.pop(name, fields[name].value) for name in ("model", "loras")}
        return {**refresh(chosen), **{fields[name]: value for name, value in good.items()}}

    demo.load(restore, store, list(dict.fromkeys([*components, *lists])), js=READ, **QUICK)
    gr.on(  # only in the browser
        [component.change for component in components],
        None,
        components,
        store,
        js=f"(...values) => ({WRITE})({json.dumps(NAMES)}, values)",
        **QUICK,
    )


def _permitted(field: RequestField, value: Any) -> bool:
    """Whether the field's control can hold the value."""
    if field.choices:
        return isinstance(value, str) and value in field.choices
    if field.kind is bool:
        return isinstance(value, bool)
    if field.kind is str:
        fits = isinstance(value, str) and (field.max_length is None or len(value) <= field.max_length)
        return fits and (field.pattern is None or re.match(field.pattern, value) is not None)
    low, high = slider_range(field)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high
