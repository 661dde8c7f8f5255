"""The seed with Random and "Reuse last seed", as every tab has it."""

from __future__ import annotations

import gradio as gr

from oms_app.fields import REQUEST_FIELDS
from oms_app.ui import controls
from oms_app.ui.events import QUICK, Component, Updates


class SeedField:
    """number: the seed. random: each click draws a new one. prefix: of the element ids."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def build(self) -> None:
        """Creates the components inside the current column."""
        with gr.Row(elem_classes="oms-seed"):
            self.number = controls.number(
                REQUEST_FIELDS["seed"], value=0, info="Same seed, same picture.",
                elem_id=f"{self._prefix}seed", scale=3, min_width=140,
            )  # fmt: skip
            with gr.Column(min_width=120, scale=2, elem_classes="oms-seed-side"):
                self.random = gr.Checkbox(True, label="Random", container=False, elem_id=f"{self._prefix}random")
                self._reuse = gr.Button(
                    "Reuse last seed", size="sm", interactive=False, elem_id=f"{self._prefix}reuse", min_width=100
                )
        self._last = gr.State()  # the seed of the pictures that are shown

    def connect(self) -> None:
        # Typing a seed unchecks Random: in the browser, since a click on Generate may follow at once.
        self.number.input(None, None, self.random, js="() => false", **QUICK)
        self._reuse.click(lambda seed: (seed, False), self._last, [self.number, self.random], **QUICK)

    @property
    def outputs(self) -> list[Component]:
        """The components that `used` updates."""
        return [self.number, self._reuse, self._last]

    def used(self, seed: int) -> Updates:
        """Shows the seed of the pictures that are shown, and offers it for reuse."""
        return {self.number: seed, self._last: seed, self._reuse: gr.update(interactive=True)}
