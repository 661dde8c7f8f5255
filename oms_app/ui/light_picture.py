"""Where the light is, as a painting or any picture: both become the short text of `light.layout_text`."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image, ImageFilter

from oms_app.light import GREY, MAX_PIXELS, is_layout, layout_picture, layout_text
from oms_app.ui import markup
from oms_app.ui.events import QUICK, Component
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues
from oms_app.ui.light_values import PAINTING, PICTURE
from oms_app.ui.live_previews import data_url

CANVAS = 256  # pixels a side
BRUSHES = ["#ffffff", "#000000", "#ffb060", "#3060ff"]  # light, shadow, warm, cool
SHOWN = 64  # pixels of the picture that shows what counts


class LightPicture:
    """The canvas, the upload, and what counts of them."""

    def build(self, found: dict[str, Component]) -> None:
        """Creates the components inside the current column, hidden until they are chosen."""
        with gr.Column(visible=False, elem_id="light-painting") as self._painting:
            self._canvas = gr.ImageEditor(
                {"background": Image.new("RGB", (CANVAS, CANVAS), GREY), "layers": [], "composite": None},
                type="pil",
                label="Paint the light",
                canvas_size=(CANVAS, CANVAS),
                fixed_canvas=True,
                height=CANVAS + 90,
                sources=(),
                transforms=(),
                layers=False,
                buttons=[],
                brush=gr.Brush(default_size=48, colors=list(BRUSHES), default_color=BRUSHES[0], color_mode="fixed"),
                eraser=gr.Eraser(default_size=48),
                elem_id="light-canvas",
            )
            self._blur = gr.Slider(
                0, 50, value=10, step=5, label="Blur", elem_id="light-blur",
                info="In percent of the width: how softly the strokes run into each other.",
            )  # fmt: skip
        with gr.Column(visible=False, elem_id="light-picture") as self._picture:
            self._upload = gr.Image(
                label="A picture whose light is taken", type="pil", sources=["upload", "clipboard"], height=180,
                elem_id="light-upload", buttons=[],
            )  # fmt: skip
        self._counts = gr.HTML("", elem_id="light-counts")
        for name in (PAINTING, PICTURE):
            found[name] = gr.Textbox("", visible="hidden", show_label=False, elem_id=f"light-of-{name}")

    def connect(self, demo: gr.Blocks, fields: FieldSet[CreateValues]) -> None:
        gr.on(
            [self._canvas.input, self._canvas.clear, self._blur.change],
            painted,
            [self._canvas, self._blur],
            fields[PAINTING],
            trigger_mode="always_last",
            **QUICK,
        )
        gr.on([self._upload.upload, self._upload.clear], _light_of, self._upload, fields[PICTURE], **QUICK)
        gr.on(
            [fields[name].change for name in ("light", PAINTING, PICTURE)],
            self._show,
            [fields[name] for name in ("light", PAINTING, PICTURE)],
            [self._painting, self._picture, self._counts],
            **QUICK,
        )

    def _show(self, light: Any, painting: Any, picture: Any) -> list[Any]:
        text = {PAINTING: painting, PICTURE: picture}.get(light if isinstance(light, str) else "")
        # A canvas that is removed from the page comes back empty.
        away: Any = "hidden" if painting else False
        return [
            gr.update(visible=True if light == PAINTING else away),
            gr.update(visible=light == PICTURE),
            counts(text),
        ]


def painted(canvas: Any, blur: Any) -> str:
    """The light of what was painted on the canvas; "" if nothing was.

    canvas: what `gr.ImageEditor` sends. blur: the radius, in percent of the width.
    """
    found = canvas.get("layers") if isinstance(canvas, dict) else None
    found = found if isinstance(found, list) else []
    layers = [layer.convert("RGBA") for layer in found if isinstance(layer, Image.Image) and _fits(layer)]
    layers = [layer for layer in layers if layer.getchannel("A").getbbox()]
    if not layers:
        return ""
    picture = Image.new("RGBA", layers[0].size, (*GREY, 255))
    for layer in layers:
        picture.alpha_composite(layer.resize(picture.size))
    share = min(max(float(blur), 0.0), 50.0) / 100 if isinstance(blur, int | float) else 0.0
    small = picture.convert("RGB").resize((CANVAS, CANVAS))
    return layout_text(small.filter(ImageFilter.GaussianBlur(share * CANVAS)))


def _light_of(picture: Any) -> str:
    return layout_text(picture) if isinstance(picture, Image.Image) and _fits(picture) else ""


def counts(text: Any) -> str:
    """What counts of a painting or a picture: its light as a small picture. text: None if neither is chosen."""
    if text is None:
        return ""
    if not is_layout(text):
        return markup.legend("Nothing is painted or chosen yet, so the light stays as the prompt says.")
    image = data_url(layout_picture(text), SHOWN)
    return (
        f'<div class="oms-counts"><img alt="The light that counts" src="{image}">'
        f"{markup.legend('This is what counts of it: the light of 4 × 4 parts, without details.')}</div>"
    )


def _fits(picture: Image.Image) -> bool:
    return 0 < picture.width * picture.height <= MAX_PIXELS
