"""Components for the fields of a request: labels, help, ranges and steps come from the table in oms_app/fields.py."""

from __future__ import annotations

from typing import Any

import gradio as gr

from oms_app.fields import RequestField


def text(field: RequestField, **settings: Any) -> gr.Textbox:
    """settings: what differs from the table, and what the table does not have, such as `elem_id`."""
    return gr.Textbox(**_common(field, "") | settings)


def slider(field: RequestField, **settings: Any) -> gr.Slider:
    """Over the range that the table gives for sliders, else over all that is permitted."""
    low, high = slider_range(field)
    return gr.Slider(low, high, **{"step": field.step} | _common(field, low) | settings)


def number(field: RequestField, **settings: Any) -> gr.Number:
    return gr.Number(**{"step": field.step or 1} | _common(field, None) | settings)


def checkbox(field: RequestField, **settings: Any) -> gr.Checkbox:
    return gr.Checkbox(**_common(field, False) | settings)


def choice(field: RequestField, **settings: Any) -> gr.Dropdown:
    return gr.Dropdown(**{"choices": list(field.choices), "filterable": False} | _common(field, None) | settings)


def control(field: RequestField, **settings: Any) -> Any:
    """The component that suits the field's type."""
    if field.kind is bool:
        return checkbox(field, **settings)
    if field.choices:
        return choice(field, **settings)
    if field.kind is str:
        return text(field, **settings)
    bounded = field.low is not None and field.high is not None
    return slider(field, **settings) if bounded and not field.optional else number(field, **settings)


def slider_range(field: RequestField) -> tuple[float, float]:
    """The ends of the field's slider."""
    low, high = field.on_page.low, field.on_page.high
    assert low is not None and high is not None, f"{field.name} has no range"
    return low, high


def _common(field: RequestField, empty: Any) -> dict[str, Any]:
    value = empty if field.default is None else field.default
    return {"value": value, "label": field.label, "info": field.help}
