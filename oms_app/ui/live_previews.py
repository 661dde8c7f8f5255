"""Previews over the panels while pictures are generated.

They lie over the last pictures instead of replacing them: nothing moves, no file is written, and after Stop the last
pictures are visible again.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import gradio as gr
from PIL import Image

from oms_app.schema import Progress
from oms_app.ui.events import Component, Updates

SIDE = 256  # pixels, at most


def build(name: str) -> gr.HTML:
    """An empty overlay, to be created in the panel that it covers."""
    return gr.HTML("", elem_id=f"{name}-live", elem_classes=["oms-live"])


def updates(overlays: Mapping[str, Component], event: Progress | None) -> Updates:
    """overlays: by variant. Shows the previews of the event; None fades the overlays out."""
    if event is None:
        return {overlay: gr.update(elem_classes=["oms-live", "oms-fading"]) for overlay in overlays.values()}
    first = {preview.variant: preview.image for preview in event.previews if preview.index == 0}
    updates: Updates = {}
    for name, overlay in overlays.items():
        if name in first:
            updates |= shown(overlay, first[name])
    return updates


def shown(overlay: Component, image: Image.Image) -> Updates:
    """Shows a preview in an overlay."""
    picture = f'<img decoding="sync" alt="" src="{data_url(image, SIDE)}">'
    return {overlay: gr.update(value=picture, elem_classes=["oms-live"])}


def data_url(image: Image.Image, side: int, *, optimize: bool = False) -> str:
    """A picture of at most `side` pixels inside the page, as PNG: no second request, and no file for others to find.

    optimize: smaller, but slower to make.
    """
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=optimize)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
