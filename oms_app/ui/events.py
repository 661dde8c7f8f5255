"""Settings that events share."""

from __future__ import annotations

from typing import Any

DEVICE = "device"  # one concurrency id for all events that use the device
# An event that answers at once: outside the queue, no progress shown, not in the API.
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
Component = Any  # a component of Gradio, whose types are not checked
Updates = dict[Component, Any]  # what a handler returns: new values or `gr.update(…)`, by component
