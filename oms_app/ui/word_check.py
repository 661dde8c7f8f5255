"""Words of the prompts checked while they are typed: unknown ones with known words near them, and other hints."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from oms_app import prompt_hints
from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.light import SIDES
from oms_app.ui import gradio_compat, markup
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import BETWEEN_TWO, CreateValues

TEXTS = ("prompt", "negative_prompt", "oms_prompt", "oms_prompt_left", "oms_prompt_right")


def build() -> gr.HTML:
    return gr.HTML("", js_on_load=markup.CLICK_JS, elem_id="words")


def connect(hints: gr.HTML, fields: FieldSet[CreateValues], service: StudioService) -> None:
    """A click on a word puts it in place of the unknown one; on a direction, sets the light."""

    def check(data: Mapping[Component, Any]) -> str:
        values = fields.read(data)
        try:
            unknown = service.word_suggestions(values.model, *_texts(values)) if values.model else {}
        except StudioError:
            unknown = {}  # Generate says what is wrong with the model
        return _html(unknown, values)

    def take(data: Mapping[Component, Any], event: gr.EventData) -> Updates:
        clicked, values = gradio_compat.event_data(event), fields.read(data)
        words, side = str(clicked.get("words", "")), str(clicked.get("side", ""))
        by = "" if side else str(clicked.get("by", ""))
        texts = {
            name: (getattr(values, name), prompt_hints.replaced(getattr(values, name), words, by)) for name in TEXTS
        }
        updates: Updates = {fields[name]: after for name, (before, after) in texts.items() if words and after != before}
        if side in SIDES:
            updates |= {fields["light"]: side, fields["oms_on"]: True}
        return updates or {hints: gr.skip()}

    inputs = set(fields.components)
    outputs = [*(fields[name] for name in TEXTS), fields["light"], fields["oms_on"], hints]
    changes = [fields[name].change for name in (*TEXTS, "model", "oms_mode", "oms_on")]
    gr.on(changes, check, inputs, hints, trigger_mode="always_last", **QUICK)
    hints.click(take, inputs, outputs, **QUICK)


def _texts(values: CreateValues) -> list[str]:
    """Those that Generate would use."""
    texts = [values.prompt, values.negative_prompt]
    if values.oms_on and values.oms_mode == BETWEEN_TWO:
        return [*texts, values.oms_prompt_left, values.oms_prompt_right]
    return [*texts, values.oms_prompt] if values.oms_on else texts


def _html(unknown: Mapping[str, tuple[str, ...]], values: CreateValues) -> str:
    lines = []
    for text in _texts(values):
        if wish := prompt_hints.light_wish(text):
            words, side = wish
            lines.append(f"“{escape(markup.own(words))}”: {_chip(f'set the light to {side}', words=words, side=side)}")
        lines += [escape(said) for said in prompt_hints.unread_syntax(text)]
    wished = " ".join(wish[0].lower() for text in _texts(values) if (wish := prompt_hints.light_wish(text)))
    for word, known in unknown.items():
        if word in wished.split():
            continue
        chips = " ".join(_chip(one, own=False, words=word, by=one) for one in known)
        name, to = escape(str(values.model)), ": " if chips else ""
        lines.append(f'{name} does not know <b translate="no">{escape(word)}</b>{to}{chips}')
    if not lines:
        return ""
    items = "".join(f"<li>{line}</li>" for line in dict.fromkeys(lines))
    return f'<div role="status" aria-label="Hints on the words"><ul class="oms-words">{items}</ul></div>'


def _chip(label: str, *, own: bool = True, **data: str) -> str:
    """own: the label is ours, else a word of the model's."""
    attributes = " ".join(f'data-{name}="{escape(value, quote=True)}"' for name, value in data.items())
    kept = "" if own else ' translate="no"'
    return f'<button type="button" {attributes}{kept}>{escape(label)}</button>'
