"""Live drafts: while a light control moves, the picture follows in few steps, and in all of them once it rests.

Drafts lie over the finished picture and are not saved; Generate takes the last one from the cache and saves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.schema import ImageResult
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues
from oms_app.ui.live_previews import data_url
from oms_app.ui.result_view import ResultView

# The controls that drafts follow.
FIELDS = (
    "oms_prompt", "oms_prompt_left", "oms_prompt_right", "oms_mix", "oms_guidance_scale", "luminance_on", "luminance",
    "tint_on", "tint", "tint_strength", "warmth", "light", "light_strength", "light_angle", "spread",
)  # fmt: skip
SIDE = 512  # pixels, at most
# The draft lies over the OMS picture, in the viewer too (viewer.js); it goes when another picture is shown.
MARK = """(...values) => {
  document.querySelector('#pictures').classList.add('oms-updating');
  return values;
}"""
SHOW = """() => {
  const pictures = document.querySelector('#pictures');
  pictures.classList.remove('oms-updating');
  pictures.classList.toggle('oms-draft', Boolean(document.querySelector('#draft img')));
}"""
CLEAR = "() => document.querySelector('#pictures').classList.remove('oms-updating', 'oms-draft')"


def build_switch(service: StudioService) -> gr.Checkbox:
    """Off where visitors share the device."""
    return gr.Checkbox(
        not service.visitors.private, label="Live", info=None, container=False, elem_id="live", min_width=60
    )


def connect(switch: gr.Checkbox, fields: FieldSet[CreateValues], service: StudioService, view: ResultView) -> None:
    """Drafts are made if the prompt and seed are those of the pair that is shown."""
    draft = view.draft

    def make(data: Mapping[Component, Any], *, whole: bool) -> ImageResult | None:
        values = fields.read(data)
        if not data[switch] or not values.oms_on:
            return None
        if data[view.shown] != (values.prompt, values.seed):
            return None
        try:
            request = values.to_request()
            corrected = tuple(one for one in request.variants if one.is_corrected)[:1]
            result = service.draft(request.model_copy(update={"variants": corrected, "count": 1}), whole=whole)
        except StudioError:
            return None  # the OMS preview says why
        return result.images[0] if result else None

    def update(data: Mapping[Component, Any]) -> Any:
        image = make(data, whole=False)
        return _picture(image, "draft") if image else ""

    def finish(data: Mapping[Component, Any]) -> Updates:
        image = make(data, whole=True)
        if image is None:
            return {draft: gr.skip()}
        return {
            draft: _picture(image, "not saved: press Generate"),
            **view.show_figures(image),
        }

    inputs = {*fields.components, switch, view.shown}
    drafted = gr.on(
        [fields[name].input for name in FIELDS], update, inputs, draft, trigger_mode="always_last", js=MARK, **QUICK
    )
    drafted.failure(None, None, None, js=CLEAR, **QUICK)  # the page says why
    shown = drafted.then(None, None, None, js=SHOW, **QUICK)
    shown.then(finish, inputs, [draft, view.oms_figures], **QUICK).then(None, None, None, js=SHOW, **QUICK)
    view.summary.change(None, None, None, js=CLEAR, **QUICK)


def _picture(image: ImageResult, said: str) -> str:
    alt = f"{said}: mean L* {image.stats.lightness:.0f}"
    return f'<img decoding="sync" alt="{alt}" src="{data_url(image.image, SIDE)}"><span>{said}</span>'
