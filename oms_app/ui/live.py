"""What the pictures are becoming, laid over their panels while they are painted.

It lies over the last picture rather than in its place: nothing jumps, no file is written for it, and after Stop the
last picture is there again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from oms_app.schema import Progress
from oms_app.ui.light import as_data

SIDE = 256  # pixels, at most


def build(name: str) -> gr.HTML:
    """An empty pane, to be placed in the panel that it covers."""
    return gr.HTML("", elem_id=f"{name}-live", elem_classes=["oms-live"])


def look(panes: Mapping[str, Any], news: Progress | None) -> dict[Any, Any]:
    """panes: by variant. The previews of the news in their panes; None lets what is in them fade away."""
    if news is None:
        return {pane: gr.update(elem_classes=["oms-live", "oms-fading"]) for pane in panes.values()}
    first = {preview.variant: preview.image for preview in news.previews if preview.index == 0}
    return {
        pane: gr.update(
            value=f'<img decoding="sync" alt="" src="{as_data(first[name], SIDE)}">', elem_classes=["oms-live"]
        )
        for name, pane in panes.items()
        if name in first
    }
