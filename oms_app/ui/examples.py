"""Finished pairs from a folder, shown at once: no model runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import gradio as gr
from PIL import Image

from oms_app.engine.service import StudioService
from oms_app.models.catalog import Defaults
from oms_app.paths import EMBEDDED
from oms_app.schema import OMS
from oms_app.ui import gradio_compat
from oms_app.ui.form import ONE_PROMPT, CreateValues
from oms_app.ui.light_values import with_light
from oms_app.ui.live_previews import data_url
from oms_app.ui.result_view import Picture, ShownResult

THUMBNAIL = 88  # pixels
MODEL = EMBEDDED  # the pairs were made by this model at its defaults


@dataclass(frozen=True)
class Example:
    """oms_prompt None: the main prompt. raw, oms: PNG files of the same size."""

    prompt: str
    oms_prompt: str | None
    oms_guidance_scale: float
    seed: int
    raw: Path
    oms: Path

    def result(self, service: StudioService) -> ShownResult:
        raw, oms = (_picture(path, service) for path in (self.raw, self.oms))
        return ShownResult(self.prompt, self.seed, raw, oms, details=("example",))

    def apply(self, values: CreateValues, defaults: Defaults | None) -> CreateValues:
        """The fields of Create for this pair. defaults: of MODEL, None if it is not on this machine."""
        if defaults is not None:
            values = replace(
                values,
                model=MODEL,
                width=defaults.width,
                height=defaults.height,
                num_inference_steps=defaults.num_inference_steps,
                scheduler=defaults.scheduler,
                guidance_scale=defaults.guidance_scale,
            )
        return replace(
            with_light(values, OMS),
            prompt=self.prompt,
            negative_prompt="",
            loras=[],
            oms_on=True,
            exact=False,
            oms_plain=False,
            oms_mode=ONE_PROMPT,
            oms_prompt=self.oms_prompt or "",
            oms_guidance_scale=self.oms_guidance_scale,
            seed=self.seed,
            random_seed=False,
        )


def load(folder: Path) -> list[Example]:
    """The pairs that `examples.json` lists; none if the folder is absent. Pairs that lack a picture are left out."""
    listing = folder / "examples.json"
    if not listing.is_file():
        return []
    found = []
    for entry in json.loads(listing.read_text(encoding="utf-8")):
        example = Example(
            prompt=entry["prompt"],
            oms_prompt=entry.get("oms_prompt"),
            oms_guidance_scale=float(entry.get("oms_guidance_scale", 1.0)),
            seed=int(entry["seed"]),
            raw=folder / entry["raw"],
            oms=folder / entry["oms"],
        )
        if example.raw.is_file() and example.oms.is_file():
            found.append(example)
    return found


def cards(examples: Sequence[Example]) -> str:
    """One button for each pair, its two pictures side by side. The pictures are inside the page, as small PNGs."""
    buttons = []
    for index, example in enumerate(examples):
        oms_prompt = f", OMS prompt {example.oms_prompt}" if example.oms_prompt else ""
        label = escape(f"Example: {example.prompt}{oms_prompt}", quote=True)
        pictures = "".join(f'<img alt="" src="{_thumbnail(path)}">' for path in (example.raw, example.oms))
        buttons.append(
            f'<button type="button" data-index="{index}" aria-label="{label}" title="{label}">'
            f"<span class='oms-pair'>{pictures}</span>"
            f"<span class='oms-caption'>{escape(example.prompt)}</span></button>"
        )
    return f'<div class="oms-examples" role="group" aria-label="Examples">{"".join(buttons)}</div>'


def clicked(examples: Sequence[Example], event: gr.EventData) -> Example:
    """The one whose card was clicked."""
    return examples[int(gradio_compat.event_data(event)["index"])]


def _picture(path: Path, service: StudioService) -> Picture:
    with Image.open(path) as file:
        image = file.convert("RGB")
    return Picture(image, service.measure(image))


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return data_url(small, THUMBNAIL, optimize=True)
