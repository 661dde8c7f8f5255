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
from oms_app.schema import RAW, Variant, one_more_step, variant_of
from oms_app.ui import gradio_compat, markup
from oms_app.ui.form import CreateValues
from oms_app.ui.live_previews import data_url
from oms_app.ui.result_view import Picture, ShownResult

THUMBNAIL = 88  # pixels
MODEL = EMBEDDED  # the pairs were made by this model at its defaults


@dataclass(frozen=True)
class Example:
    """A prompt and a seed, and how One More Step is set. raw, oms: PNG files of the same size."""

    prompt: str
    seed: int
    variant: Variant
    raw: Path
    oms: Path

    def result(self, service: StudioService) -> ShownResult:
        raw, oms = (_picture(*one, service) for one in ((self.raw, RAW), (self.oms, self.variant)))
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
            values.with_oms(self.variant),
            prompt=self.prompt,
            negative_prompt="",
            loras=[],
            exact=False,
            oms_plain=False,
            seed=self.seed,
            count=1,
        )


def load(folder: Path) -> list[Example]:
    """The pairs that `examples.json` lists; none if the folder is absent. Pairs that lack a picture are left out."""
    listing = folder / "examples.json"
    if not listing.is_file():
        return []
    found = []
    for entry in json.loads(listing.read_text(encoding="utf-8")):
        settings = {"prompt": entry.get("oms_prompt"), "guidance_scale": float(entry.get("oms_guidance_scale", 1.0))}
        settings |= {"luminance": entry.get("luminance")}
        example = Example(
            prompt=entry["prompt"],
            seed=int(entry["seed"]),
            variant=variant_of(one_more_step(settings), settings),
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
        oms, luminance = example.variant.prompt, example.variant.luminance
        label = f"Example: {markup.own(example.prompt)}"
        label = f"{label}, OMS prompt {markup.own(oms)}" if oms else label
        label = escape(label if luminance is None else f"{label}, mean brightness {luminance:g} %", quote=True)
        pictures = "".join(f'<img alt="" src="{_thumbnail(path)}">' for path in (example.raw, example.oms))
        buttons.append(
            f'<button type="button" data-index="{index}" aria-label="{label}" title="{label}">'
            f"<span class='oms-pair'>{pictures}</span>"
            f"<span class='oms-caption' translate=\"no\">{escape(example.prompt)}</span></button>"
        )
    return f'<div class="oms-examples" role="group" aria-label="Examples">{"".join(buttons)}</div>'


def clicked(examples: Sequence[Example], event: gr.EventData) -> Example:
    """The one whose card was clicked."""
    return examples[int(gradio_compat.event_data(event)["index"])]


def _picture(path: Path, variant: Variant, service: StudioService) -> Picture:
    with Image.open(path) as file:
        image = file.convert("RGB")
    return Picture(image, service.measure(image), service.reached(variant, image))


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return data_url(small, THUMBNAIL, optimize=True)
