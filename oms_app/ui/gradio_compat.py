"""Workarounds for the pinned version of Gradio, 6.31. Each says what Gradio does and when the workaround can go.

When the pin in requirements.txt changes, check each condition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.context import get_blocks_context

VERSION = "6.31"


def limit_progress_outputs(demo: gr.Blocks, part: gr.HTML) -> None:
    """Directs the progress of events that name no component for it to `part` alone.

    Gradio 6.31 sends progress to all outputs of an event, even if it is hidden, and with every message the browser goes
    through all components that ever received progress and copies their contents: more than forty, and half of what the
    page's scripts did during a generation. Remove when `show_progress="hidden"` sends no progress to the outputs.
    """
    for event in demo.fns.values():
        if not event.show_progress_on:
            event.show_progress_on = [part]


def separate_event(
    state: gr.State, handler: Callable[[Any], Mapping[Any, Any]], outputs: Sequence[Any], **settings: Any
) -> None:
    """When an event sets the state to a new object, `handler` gets that object, in an event with these outputs.

    For updates that come last in a stream. Gradio 6.31 builds every output of a streaming event anew with each message,
    changed or not, which for images takes longer than a denoising step of a small model. Remove when a message builds
    only the outputs that it contains. Objects are compared by `hash`, so each must be a new one that hashes by
    identity; the State keeps the latest, so it should hold no pictures.
    """
    state.change(handler, state, list(outputs), **settings)


def event_data(event: gr.EventData) -> dict[str, Any]:
    """What a component's script sent with `trigger(name, data)`.

    Gradio 6.31 has no public name for it. Remove when `gr.EventData` has one.
    """
    data: dict[str, Any] = event._data
    return data


def describe_parameters(descriptions: Mapping[str, str]) -> None:
    """Says in the API's documentation what the arguments of the endpoint mean that was added last.

    Gradio 6.31 has descriptions of arguments for MCP only, and labels them "1st", "2nd" …. Remove when `gr.api` takes
    descriptions.
    """
    blocks = get_blocks_context()
    assert blocks is not None
    endpoint = list(blocks.fns.values())[-1]
    for component, (name, text) in zip(endpoint.inputs, descriptions.items(), strict=True):
        component._api_info = component._api_info | {"additional_description": text}
        component.label = name


def browser_state(key: str) -> gr.BrowserState:
    """A value in the browser's localStorage that survives a restart of the server.

    Without a secret Gradio 6.31 draws one at each start and so loses what was stored. It is not a secret: localStorage
    belongs to this page's origin. Remove when the secret may be left out.
    """
    return gr.BrowserState({}, storage_key=key, secret="oms-studio")
