"""Prompt, seed and model sent from one of the tabs Create, Explore and Compare to another, which then opens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.model_choice import ModelChoice, ModelGroup
from oms_app.ui.tab import Page, Tab


@dataclass(frozen=True)
class SharedFields:
    """The fields of a tab that others take over."""

    prompt: Component
    seed: Component
    models: ModelChoice | ModelGroup

    @property
    def components(self) -> list[Component]:
        """Inputs and outputs of an event that sends."""
        return [self.prompt, self.seed, *self.models.chosen_with]


class SendingTab(Tab):
    @property
    @abstractmethod
    def shared(self) -> SharedFields:
        """After `build`."""

    def build_sending(self) -> None:
        """Creates the row inside the current column that `connect` fills."""
        self.send_row = gr.Row(elem_classes="oms-send")


def connect(page: Page, tabs: Sequence[SendingTab]) -> None:
    """Adds to each of the tabs a button for each of the others."""
    for source in tabs:
        for target in tabs:
            if target is source:
                continue
            with source.send_row:
                title, elem_id = f"Send to {target.title}", f"{source.id}-to-{target.id}"
                button = gr.Button(title, size="sm", min_width=100, elem_id=elem_id)
            inputs = {*source.shared.components, *target.shared.components}
            button.click(_sender(page, source.shared, target), inputs, [*target.shared.components, page.bar], **QUICK)


def _sender(page: Page, source: SharedFields, target: SendingTab) -> Callable[[Mapping[Component, Any]], Updates]:
    def send(data: Mapping[Component, Any]) -> Updates:
        to = target.shared
        model = source.models.chosen(data)
        return {
            to.prompt: data[source.prompt],
            to.seed: data[source.seed],
            **(to.models.choose(model, data) if model else {}),
            **page.open(target),
        }

    return send
