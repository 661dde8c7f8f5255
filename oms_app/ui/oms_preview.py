"""The OMS preview: while a control of OMS changes, the light and colour that it adds, without a generation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.schema import ImageResult
from oms_app.ui import readout
from oms_app.ui.events import QUICK, Component
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues
from oms_app.ui.live_previews import data_url

logger = logging.getLogger(__name__)
# The fields that the preview depends on.
FIELDS = (
    "prompt", "oms_on", "oms_mode", "oms_prompt", "oms_prompt_left", "oms_prompt_right", "oms_mix",
    "oms_guidance_scale", "model", "width", "height", "seed", "luminance_on", "luminance", "tint_on",
    "tint", "tint_strength", "warmth", "light", "light_strength", "light_angle", "painting", "picture", "spread",
)  # fmt: skip
SIDE = 192  # pixels, at most: twice the size that it is shown at
HINT = "Write a prompt to preview the light and colour that OMS adds, before you generate."
FIRST = "The light that OMS adds appears here at once when you move a control."


def build() -> gr.HTML:
    return gr.HTML(_box("", FIRST), elem_id="light")


def connect(preview: gr.HTML, fields: FieldSet[CreateValues], service: StudioService, also: Component) -> None:
    """Updates the preview after every change of a control. also: a component whose change updates it too.

    While one preview is computed, the page postpones the others and then requests only the latest. If the device is
    busy, the preview does not change; `also`, which changes after a generation, requests it again.
    """

    def update(data: Mapping[Component, Any]) -> Any:
        values = fields.read(data)
        if not values.oms_on:
            return gr.skip()
        try:
            request = values.to_preview()
            if request is None:
                return _box("", HINT)
            found = service.preview(request)
        except StudioError as error:
            return _failed(str(error))
        except Exception as error:
            logger.exception("a preview failed")
            return _failed(f"The preview failed ({type(error).__name__}: {error}). Generate may still work.")
        return _preview(found[0]) if found else gr.skip()

    gr.on(
        [*(fields[name].change for name in FIELDS), also.change],
        update,
        set(fields.components),
        preview,
        trigger_mode="always_last",
        **QUICK,
    )


def _preview(image: ImageResult) -> str:
    """The picture with its figures."""
    stats = image.stats
    alt = f"OMS preview: mean L* {stats.lightness:.0f}, colour cast {readout.cast(stats)}"
    picture = f'<img decoding="sync" alt="{alt}" src="{data_url(image.image, SIDE)}">'
    return _box(picture, f"mean L* <b>{stats.lightness:.0f}</b>, colour cast <b>{readout.cast(stats)}</b>")


def _failed(message: str) -> str:
    text = message[:1].upper() + message[1:]
    return _box("", f'<span role="status" class="oms-preview-alert">{escape(text)}</span>')


def _box(picture: str, text: str) -> str:
    return (
        f'<div class="oms-preview"><div class="oms-preview-frame">{picture}</div>'
        f'<div><p class="oms-preview-title">OMS preview</p><p>{text}</p></div></div>'
    )
