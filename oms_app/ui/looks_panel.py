"""Looks in Create: cards that fill in the fields when they are clicked, and "Save as a look"."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from oms_app.errors import StudioError
from oms_app.looks import DIALS, Look, LookLibrary
from oms_app.pictures import saved_picture
from oms_app.ui import gradio_compat, markup
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import BETWEEN_TWO, CreateValues
from oms_app.ui.roles import require_owner


@dataclass(frozen=True)
class LookValues:
    """The fields of a look to be saved, besides those of Create. prefix, suffix: words around the prompt."""

    title: str
    prefix: str
    suffix: str


class LooksPanel:
    def __init__(self, shelf: LookLibrary) -> None:
        self._shelf = shelf

    def build(self) -> None:
        """Creates the components inside the current column."""
        gr.HTML(markup.heading("Looks: presets of light and colour"))
        self._cards = gr.HTML(cards(self._shelf.looks()), js_on_load=markup.CLICK_JS, elem_id="looks")
        self._words = gr.State(("", ""))  # that the last look put around the prompt
        if self._shelf.can_save:
            self._build_saving()

    def _build_saving(self) -> None:
        with gr.Accordion("Save the settings as a look", open=False, elem_id="look-save"):
            title = gr.Textbox(label="Name", placeholder="my night", max_lines=1, elem_id="look-title")
            with gr.Row(elem_id="look-words"):
                prefix, suffix = (
                    gr.Textbox(label=label, placeholder="none", max_lines=1, min_width=90, elem_id=elem_id)
                    for label, elem_id in (("Words before", "look-prefix"), ("Words after", "look-suffix"))
                )
            gr.HTML(
                markup.legend(
                    "A look stores these words, which are put around any prompt, and the light that is set. "
                    "The last OMS picture becomes its card."
                )
            )
            self._save = gr.Button("Save as a look", size="sm", elem_id="look-keep")
            self._status = gr.HTML("", elem_id="look-status")
        self._saved = FieldSet(LookValues, {"title": title, "prefix": prefix, "suffix": suffix})

    def connect(self, demo: gr.Blocks, fields: FieldSet[CreateValues], status: gr.HTML, picture: gr.State) -> None:
        """fields: those of Create. status: where it says that a look is set. picture: the file of the last OMS
        picture, or None."""
        words = [self._saved["prefix"], self._saved["suffix"]] if self._shelf.can_save else []

        def apply(data: Mapping[Component, Any], event: gr.EventData) -> Updates:
            try:
                look = self._shelf.find(str(gradio_compat.event_data(event)["look"]))
            except StudioError as error:
                return {status: markup.alert(str(error))}
            values = fields.read(data)
            return {
                **fields.changes(values, with_look(values, look, data[self._words])),
                self._words: (look.prefix, look.suffix),
                status: markup.note(f"The look {look.title} is set. Change any setting, then press Generate."),
                **dict(zip(words, (look.prefix, look.suffix), strict=False)),
            }

        inputs = {*fields.components, self._words}
        self._cards.click(apply, inputs, [*fields.components, *words, self._words, status], **QUICK)
        # Looks that were saved since the page was laid out.
        demo.load(lambda: cards(self._shelf.looks()), None, self._cards, **QUICK)
        if self._shelf.can_save:
            self._connect_saving(fields, picture)

    def _connect_saving(self, fields: FieldSet[CreateValues], picture: gr.State) -> None:
        def save(data: Mapping[Component, Any]) -> Updates:
            try:
                require_owner("looks")
                new = self._saved.read(data)
                settings = look_settings(fields.read(data), new)
                file = data[picture]
                card = saved_picture(file) if file and file.is_file() else None
                look = self._shelf.save(new.title, card, **settings)
            except StudioError as error:
                return {self._status: markup.alert(str(error))}
            return {
                self._cards: cards(self._shelf.looks()),
                self._status: markup.note(f"Saved: {look.title} is now among the looks."),
                self._saved["title"]: "",
            }

        inputs = {*fields.components, *self._saved.components, picture}
        self._save.click(save, inputs, [self._cards, self._status, self._saved["title"]], **QUICK)


def cards(looks: Sequence[tuple[Look, Path | None]]) -> str:
    """One button for each look. The pictures are inside the page: they are small."""
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


def with_look(values: CreateValues, look: Look, words: tuple[str, str]) -> CreateValues:
    """The fields of Create with a look. words: those that the look before put around the prompt."""
    # The look's words may also be in a prompt that the browser remembers from an earlier visit.
    subject = unwrap(unwrap(values.prompt, *words), look.prefix, look.suffix)
    return replace(values.with_oms(look.variant()), prompt=look.wrap(subject))


def look_settings(values: CreateValues, new: LookValues) -> dict[str, Any]:
    """The fields of `Look` from those of the page. Raises StudioError if One More Step is off."""
    if not values.oms_on:
        raise StudioError("One More Step is off: switch it on, since a look stores its settings")
    prefix, suffix = new.prefix.strip(), new.suffix.strip()
    settings: dict[str, Any] = {"prefix": prefix, "suffix": suffix, "oms_guidance_scale": values.oms_guidance_scale}
    settings |= {name: value for name, value in values.light_settings().items() if name in DIALS}
    if sample := unwrap(values.prompt, prefix, suffix)[:200].strip():
        settings["sample"] = sample
    if values.oms_mode == BETWEEN_TWO:
        right = values.oms_prompt_right.strip() or None
        return settings | {
            "oms_prompt": values.oms_prompt_left.strip() or None,
            "oms_prompt_b": right,
            "mix": values.oms_mix,
        }
    return settings | {"oms_prompt": values.oms_prompt.strip() or None}


def unwrap(prompt: str, prefix: str, suffix: str) -> str:
    """The prompt without the words that a look put around it, if all of them are still there."""
    padded = f" {' '.join(prompt.split())} " if prefix or suffix else f" {prompt} "
    if prefix and suffix and not (padded.startswith(f" {prefix} ") and padded.endswith(f" {suffix} ")):
        return prompt.strip()
    return padded.removeprefix(f" {prefix} " if prefix else "").removesuffix(f" {suffix} " if suffix else "").strip()
