"""The instant preview: while a control of OMS moves, the light that it will bring is shown, without any painting."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr
from PIL import Image
from pydantic import ValidationError

from oms_app.errors import StudioError
from oms_app.schema import GenerateRequest, ImageResult, Variant
from oms_app.ui import readout
from oms_app.ui.form import explain, to_preview
from oms_app.ui.painting import QUICK
from oms_app.ui.work import Engine, available_models

logger = logging.getLogger(__name__)
# The fields that the light depends on.
FIELDS = (
    "prompt", "oms_on", "oms_mode", "oms_prompt", "oms_prompt_left", "oms_prompt_right", "oms_mix",
    "oms_guidance_scale", "model", "width", "height", "seed", "random_seed",
)  # fmt: skip
SIDE = 192  # pixels, at most: it is shown half as large


def hint() -> str:
    """What stands there until a word is written."""
    return _box("", "Write a prompt: the light that OMS will bring is shown here at once, before any painting.")


def shown(image: ImageResult) -> str:
    """The light with its figures."""
    stats = image.stats
    alt = f"Preview of the light: mean L* {stats.lightness:.0f}, colour cast {readout.cast(stats)}"
    picture = f'<img decoding="sync" alt="{alt}" src="{as_data(image.image, SIDE)}">'
    figures = f"mean L* <b>{stats.lightness:.0f}</b>, colour cast <b>{readout.cast(stats)}</b>"
    return _box(picture, figures)


def failed(message: str) -> str:
    return _box("", f'<span role="status" class="oms-light-alert">{escape(message)}</span>')


def as_data(image: Image.Image, side: int) -> str:
    """A picture inside the page, as a small PNG: it needs no second request, and is no file for anyone to find."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def connect(c: dict[str, Any], studio: Engine) -> None:
    """Every change of a control shows its light in c["light"].

    While one preview is on its way the page keeps back the others, and then asks for the latest alone. A preview that
    finds the device busy leaves the picture as it is; the end of the painting (a new summary) asks again.
    """

    def see(data: dict[Any, Any]) -> Any:
        values = {name: data[c[name]] for name in FIELDS}
        if not values["oms_on"]:
            return gr.skip()
        try:
            request = to_preview(values)
            if request is None:
                return hint()
            found = studio.preview(request)
        except StudioError as error:
            return failed(str(error))
        except Exception as error:  # the edge of the program: the log gets the traceback, the person a plain line
            logger.exception("a preview failed")
            return failed(f"The preview broke ({type(error).__name__}: {error}). Painting may still work.")
        return shown(found[0]) if found else gr.skip()

    gr.on(
        [*(c[name].change for name in FIELDS), c["summary"].change],
        see,
        {c[name] for name in FIELDS},
        c["light"],
        trigger_mode="always_last",
        **QUICK,
    )


def endpoint(studio: Engine, file: Callable[[ImageResult], dict[str, Any]]) -> None:
    """The public endpoint /preview. file: a picture as Gradio hands it out."""

    def preview(
        prompt: str,
        oms_prompt: str | None = None,
        oms_prompt_b: str | None = None,
        oms_mix: float = 0.0,
        oms_guidance_scale: float = 1.0,
        model: str = "lumen",
        width: int | None = None,
        height: int | None = None,
        seed: int = 0,
    ) -> dict:
        """Shows the light that OMS will bring, without painting: its x0 prediction, decoded.

        Answers {"seed", "mean", "lightness", "image"}; the image is a PNG file. An error where a request has the
        device. Left out or null: the model's own default; for oms_prompt the main prompt.
        """
        known = {info.id for info in available_models(studio, "base")}
        if model not in known:
            raise gr.Error(f"unknown model {model!r}: choose one of {', '.join(sorted(known))}", print_exception=False)
        settings = {"prompt": oms_prompt, "prompt_b": oms_prompt_b, "mix": oms_mix}
        try:
            oms = Variant.model_validate(
                {"name": "oms", "correction": "oms", "guidance_scale": oms_guidance_scale, **settings}
            )
            found = studio.preview(
                GenerateRequest(prompt=prompt, variants=(oms,), model=model, width=width, height=height, seed=seed)
            )
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except ValidationError as error:
            raise gr.Error(explain(error), print_exception=False) from error
        if found is None:
            raise gr.Error("the device is busy with a request: ask again in a while", print_exception=False)
        (light,) = found
        return {
            "seed": light.seed,
            "mean": light.stats.mean,
            "lightness": light.stats.lightness,
            "image": file(light),
        }

    gr.api(preview, api_name="preview")


def _box(picture: str, text: str) -> str:
    return (
        f'<div class="oms-light"><div class="oms-light-frame">{picture}</div>'
        f'<div><p class="oms-light-title">The light OMS will bring</p><p>{text}</p></div></div>'
    )
