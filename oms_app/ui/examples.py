"""Ready-made pairs that are shown at once: pictures from a folder, no model at work."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

THUMBNAIL = 88  # pixels


@dataclass(frozen=True)
class Example:
    """oms_prompt None: the main prompt. raw, oms: PNG files of the same size."""

    prompt: str
    oms_prompt: str | None
    oms_guidance_scale: float
    seed: int
    raw: Path
    oms: Path


def load(folder: Path) -> list[Example]:
    """The pairs that `examples.json` lists; none where the folder is absent. Pairs that lack a picture are left out."""
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


def cards(examples: list[Example]) -> str:
    """One button for each pair, its two pictures side by side. The pictures travel inside the page, as small PNGs."""
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


CLICK_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-index]');
  if (button) trigger('click', {index: Number(button.dataset.index)});
});
"""


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
