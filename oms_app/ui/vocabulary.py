"""The words that a small model knows, beside the prompt: a click writes one where the cursor was (vocabulary.js)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.ui.events import QUICK
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues

JS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
# Words by what they are about. "little" ones are not shown; those in no group are scenes and shapes.
GROUPS = {
    name: frozenset(words)
    for name, words in json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")).items()
}
TITLES = (("light", "Light"), ("colour", "Colour"), ("weather", "Weather"))
OTHERS = "Scenes and shapes"


def build() -> gr.HTML:
    """Creates the words inside the column of the prompt; nothing is shown for a model that reads any word."""
    return gr.HTML("", js_on_load=JS, elem_id="vocabulary")


def connect(demo: gr.Blocks, words: gr.HTML, fields: FieldSet[CreateValues], service: StudioService) -> None:
    def known(model: Any) -> str:
        try:
            return disclosure(service.vocabulary(str(model))) if model else ""
        except StudioError:
            return ""  # Generate says what is wrong with the model

    gr.on([demo.load, fields["model"].change], known, fields["model"], words, **QUICK)


def disclosure(words: Iterable[str]) -> str:
    """The words in groups, as buttons; "" without words."""
    left = set(words) - GROUPS["little"]
    if not left:
        return ""
    found = []
    for name, title in TITLES:
        found.append((title, left & GROUPS[name]))
        left -= GROUPS[name]
    found.append((OTHERS, left))
    groups = "".join(f"<h2>{title}</h2><p>{_chips(group)}</p>" for title, group in found if group)
    return f"<details><summary>Known words</summary><div>{groups}</div></details>"


def _chips(words: Iterable[str]) -> str:
    return " ".join(f'<button type="button" translate="no">{escape(word)}</button>' for word in sorted(words))
