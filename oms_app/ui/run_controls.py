"""The button that starts, Stop, and the status with progress and place in the queue, as every tab has them."""

from __future__ import annotations

import gradio as gr

from oms_app.ui import markup
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.jobs import StopFlags


class RunControls:
    """start, stop: the buttons. flags: what Stop sets, one for each open page. status: messages and progress. queue:
    Gradio shows the place in the queue in it.

    elem_id: of the start button. prefix: of the other element ids. The keys Ctrl+Enter and Esc press these buttons
    (keys.js) if their tab is open.
    """

    def __init__(self, label: str, elem_id: str, prefix: str = "") -> None:
        self._label, self._elem_id, self._prefix = label, elem_id, prefix
        self.flags = StopFlags()

    def build_buttons(self) -> None:
        """Creates the buttons inside the current row."""
        self.start = gr.Button(
            self._label, variant="primary", elem_id=self._elem_id, elem_classes="oms-start", scale=3, min_width=120
        )
        self._starts = [self.start]
        self.stop = gr.Button(
            "Stop", elem_id=f"{self._prefix}stop", elem_classes="oms-stop", interactive=False, scale=1, min_width=70
        )
        self.stop.click(self._request_stop, None, self.stop, **QUICK)

    def build_start(self, label: str, elem_id: str) -> gr.Button:
        """Creates a button inside the current row that starts something else, with the same Stop and status: of the
        two, one runs at a time."""
        start = gr.Button(label, size="sm", elem_id=elem_id, min_width=90)
        self._starts.append(start)
        return start

    def build_status(self, hint: str = "") -> None:
        """Creates the status inside the current column. hint: HTML that it shows first, above the keys."""
        with gr.Column(elem_classes="oms-status-place", min_width=0):
            self.status = gr.HTML(hint + markup.KEYS, elem_id=f"{self._prefix}status")
            self.queue = gr.HTML("", elem_id=f"{self._prefix}waiting", elem_classes="oms-queue")

    @property
    def outputs(self) -> list[Component]:
        """The components that `busy` and `idle` update."""
        return [self.status, *self._starts, self.stop]

    def busy(self) -> Updates:
        """While a request waits or runs."""
        return {self.status: markup.progress(None), **self._allow(start=False)}

    def idle(self) -> Updates:
        """Start can be pressed again."""
        return self._allow(start=True)

    def _request_stop(self, session: gr.Request) -> Updates:
        self.flags.of(session.session_hash).set()
        return {self.stop: gr.update(interactive=False)}

    def _allow(self, *, start: bool) -> Updates:
        starts = {one: gr.update(interactive=start) for one in self._starts}
        return {**starts, self.stop: gr.update(interactive=not start)}
