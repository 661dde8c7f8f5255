"""Undo, Redo and Reset all for the settings of Create, in the browser alone (undo.js)."""

from __future__ import annotations

import json

import gradio as gr

from oms_app.ui.events import QUICK
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues


class UndoButtons:
    def build(self) -> None:
        """Creates the buttons inside the current column."""
        with gr.Row(elem_id="undo-buttons"):
            self._undo, self._redo, self._reset = (
                gr.Button(label, size="sm", elem_id=elem_id, min_width=70)
                for label, elem_id in (("Undo", "undo"), ("Redo", "redo"), ("Reset all", "reset"))
            )

    def connect(self, demo: gr.Blocks, fields: FieldSet[CreateValues]) -> None:
        components = fields.components
        first = json.dumps([component.value for component in components])
        changes = [demo.load, *(component.change for component in components)]
        gr.on(changes, None, components, None, js="(...values) => { settingsHistory.record(values); }", **QUICK)
        for button, js in (
            (self._undo, "(...values) => settingsHistory.undo(values)"),
            (self._redo, "(...values) => settingsHistory.redo(values)"),
            (self._reset, f"() => ({first})"),
        ):
            button.click(None, components, components, js=js, **QUICK)
