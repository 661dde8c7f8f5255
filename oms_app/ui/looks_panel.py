"""Looks on the Create tab: cards that fill in the fields when clicked, and "Save as a look"."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

import gradio as gr
from PIL import Image

from oms_app.errors import StudioError
from oms_app.ui import readout
from oms_app.ui.form import BETWEEN_TWO, ONE_PROMPT
from oms_app.ui.painting import QUICK

Components = dict[str, Any]
# The fields of Create that a look fills in, or is made of.
OMS_FIELDS = (
    "prompt", "oms_on", "oms_mode", "oms_prompt", "oms_prompt_left", "oms_prompt_right", "oms_mix",
    "oms_guidance_scale",
)  # fmt: skip


class Shelf(Protocol):
    """What the page needs of `oms_app.looks.Shelf`."""

    @property
    def can_save(self) -> bool: ...

    def looks(self) -> Sequence[tuple[Any, Path | None]]: ...

    def find(self, look_id: str) -> Any: ...

    def save(self, title: str, picture: Image.Image | None = None, **settings: object) -> Any: ...


CLICK_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-look]');
  if (button) trigger('click', {look: button.dataset.look});
});
"""


def cards(looks: Sequence[tuple[Any, Path | None]]) -> str:
    """One button for each look. The pictures travel inside the page: they are small."""
    buttons = []
    for look, picture in looks:
        data = base64.b64encode(picture.read_bytes()).decode() if picture else ""
        kind = "png" if picture and picture.suffix == ".png" else "jpeg"
        image = f'<img alt="" src="data:image/{kind};base64,{data}">' if data else "<span class='oms-blank'></span>"
        tip = escape(f"{look.title}: {look.description}" if look.description else look.title, quote=True)
        buttons.append(
            f'<button type="button" data-look="{escape(look.id, quote=True)}" aria-label="Look: {tip}" title="{tip}">'
            f"{image}<span class='oms-caption'>{escape(look.title)}</span></button>"
        )
    return f'<div class="oms-looks" role="group" aria-label="Looks">{"".join(buttons)}</div>'


def build(c: Components, shelf: Shelf) -> None:
    """Lays out the cards inside the current column, and adds what they need to the components of Create."""
    gr.HTML('<h2 class="oms-heading">Looks: light and colour at a click</h2>')
    c["looks"] = gr.HTML(cards(shelf.looks()), js_on_load=CLICK_JS, elem_id="looks")
    c["look_words"] = gr.State(("", ""))  # those that the look last clicked put around the prompt
    if not shelf.can_save:
        return
    with gr.Accordion("Keep the settings as a look", open=False, elem_id="look-save"):
        c["look_title"] = gr.Textbox(label="Name", placeholder="my night", max_lines=1, elem_id="look-title")
        with gr.Row(elem_id="look-words"):
            c["look_prefix"] = gr.Textbox(
                label="Words before", placeholder="none", max_lines=1, min_width=90, elem_id="look-prefix"
            )
            c["look_suffix"] = gr.Textbox(
                label="Words after", placeholder="none", max_lines=1, min_width=90, elem_id="look-suffix"
            )
        gr.HTML(
            '<p class="oms-legend">A look keeps these words, which go around any prompt, and One More Step as it is '
            "set below. The last picture with OMS becomes its card.</p>"
        )
        c["look_keep"] = gr.Button("Save as a look", size="sm", elem_id="look-keep")
        c["look_status"] = gr.HTML("", elem_id="look-status")


def connect(c: Components, shelf: Shelf, demo: gr.Blocks) -> None:
    """Wires the cards to the fields of Create. Every event is private."""
    words = [c[name] for name in ("look_prefix", "look_suffix") if name in c]
    filled = [c[name] for name in OMS_FIELDS]

    def use(event: gr.EventData, prompt: str, before: tuple[str, str]) -> dict[Any, Any]:
        try:
            look = shelf.find(str(event._data["look"]))
        except StudioError as error:
            return {c["status"]: readout.alert(str(error))}
        # Its own words may stand there from a visit before, which the browser remembers and this page does not.
        made = look.wrap(unwrap(unwrap(prompt, *before), look.prefix, look.suffix))
        return {
            **{c[name]: value for name, value in oms_fields(look).items()},
            c["prompt"]: made,
            c["look_words"]: (look.prefix, look.suffix),
            c["status"]: readout.note(f"The look {look.title} is set: change what you like, then press Generate."),
            **dict(zip(words, (look.prefix, look.suffix), strict=False)),
        }

    c["looks"].click(use, [c["prompt"], c["look_words"]], [*filled, *words, c["look_words"], c["status"]], **QUICK)
    # Looks that were saved since the page was built, by this visitor or at another time.
    demo.load(lambda: cards(shelf.looks()), None, c["looks"], **QUICK)
    if shelf.can_save:
        names = (*OMS_FIELDS, "look_title", "look_prefix", "look_suffix", "oms_image")
        kept = {name: c[name] for name in names}
        c["look_keep"].click(
            _keeping(c, shelf, kept), set(kept.values()), [c["looks"], c["look_status"], c["look_title"]], **QUICK
        )


def _keeping(c: Components, shelf: Shelf, kept: Mapping[str, Any]) -> Callable[[dict[Any, Any]], dict[Any, Any]]:
    def keep(data: dict[Any, Any]) -> dict[Any, Any]:
        values = {name: data[component] for name, component in kept.items()}
        try:
            if not values["oms_on"]:
                raise StudioError("One More Step is off: a look is made of its settings, so switch it on first")
            look = shelf.save(values["look_title"] or "", values["oms_image"], **look_settings(values))
        except StudioError as error:
            return {c["look_status"]: readout.alert(str(error))}
        return {
            c["looks"]: cards(shelf.looks()),
            c["look_status"]: readout.note(f"Saved: {look.title} is among the looks now."),
            c["look_title"]: "",
        }

    return keep


def look_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a look, from those of Create and the two fields of words."""
    prefix, suffix = ((values[name] or "").strip() for name in ("look_prefix", "look_suffix"))
    settings: dict[str, Any] = {
        "prefix": prefix,
        "suffix": suffix,
        "oms_guidance_scale": values["oms_guidance_scale"],
    }
    if sample := unwrap(values["prompt"] or "", prefix, suffix)[:200].strip():
        settings["sample"] = sample
    if values["oms_mode"] == BETWEEN_TWO:
        right = (values["oms_prompt_right"] or "").strip() or None
        settings |= {"oms_prompt_b": right, "mix": values["oms_mix"]}
        settings["oms_prompt"] = (values["oms_prompt_left"] or "").strip() or None
    else:
        settings["oms_prompt"] = (values["oms_prompt"] or "").strip() or None
    return settings


def oms_fields(look: Any) -> dict[str, Any]:
    """What a look puts into the fields of One More Step."""
    fields = {"oms_on": True, "oms_guidance_scale": look.oms_guidance_scale}
    if look.oms_prompt_b is None:
        return fields | {"oms_mode": ONE_PROMPT, "oms_prompt": look.oms_prompt or ""}
    ends = {"oms_prompt_left": look.oms_prompt or "", "oms_prompt_right": look.oms_prompt_b}
    return fields | {"oms_mode": BETWEEN_TWO, "oms_mix": look.mix} | ends


def unwrap(prompt: str, prefix: str, suffix: str) -> str:
    """The artist's own words: the prompt without those that a look put around it, where they still stand there."""
    own = f" {' '.join(prompt.split())} " if prefix or suffix else f" {prompt} "
    if prefix and suffix and not (own.startswith(f" {prefix} ") and own.endswith(f" {suffix} ")):
        return prompt.strip()
    return own.removeprefix(f" {prefix} " if prefix else "").removesuffix(f" {suffix} " if suffix else "").strip()
