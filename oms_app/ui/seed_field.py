"""The seed, "New seed" and "Reuse", as every tab has them. -1 draws a seed for each picture, as in A1111."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from oms_app.fields import MAX_SEED, REQUEST_FIELDS, RequestField
from oms_app.ui import controls
from oms_app.ui.events import QUICK, Component, Updates

RANDOM = -1
SEED: RequestField = replace(REQUEST_FIELDS["seed"], low=RANDOM, help="Same seed, same picture. -1 draws one.")


def is_random(seed: float | None) -> bool:
    return seed == RANDOM


class SeedField:
    """number: the seed. prefix: of the element ids."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def build(self, value: int = RANDOM) -> None:
        """Creates the number and "Reuse" inside the current column."""
        with gr.Row(elem_classes="oms-seed"):
            self.number = controls.number(
                SEED, value=value, precision=0, elem_id=f"{self._prefix}seed", scale=3, min_width=120
            )
            self._reuse = gr.Button(
                "Reuse the last seed", size="sm", visible=False, elem_id=f"{self._prefix}reuse", scale=2, min_width=90
            )
        self._last = gr.State()  # the seed of the pictures that are shown

    def build_new(self) -> None:
        """Creates "New seed" inside the current row."""
        self._new = gr.Button(
            "New seed", elem_id=f"{self._prefix}new-seed", elem_classes="oms-new-seed", scale=1, min_width=112
        )

    def connect(self) -> None:
        # In the browser, since a click on Generate may follow at once.
        self._new.click(None, None, self.number, js=f"() => Math.floor(Math.random() * {MAX_SEED})", **QUICK)
        self._reuse.click(lambda seed: seed, self._last, self.number, **QUICK)

    @property
    def outputs(self) -> list[Component]:
        """The components that `used` updates."""
        return [self._reuse, self._last]

    def used(self, seed: int) -> Updates:
        """Offers the seed of the pictures that are shown for reuse."""
        return {self._last: seed, self._reuse: gr.update(value=f"Reuse seed {seed}", visible=True)}
