"""Saved pictures as HTML: cards, the strip under the pictures of Create, and settings that differ between two."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from oms_app.fields import CORRECTION_FIELD, LORA_FIELDS, REQUEST_FIELDS, VARIANT_FIELDS
from oms_app.ui import markup

if TYPE_CHECKING:
    from oms_app.output.history import SavedPicture
    from oms_app.output.png import Restored

EMPTY = '<p class="oms-legend">{}</p>'
ACTIONS = (("favourite", "☆", "Favourite"), ("pick", "⇄", "Compare"), ("delete", "✕", "Delete"))
USUAL = ("raw", "oms", "dial")  # names of variants that stand in titles as words


def strip(pictures: Sequence[SavedPicture], thumbnails: Mapping[str, bytes], current: str, where: str) -> str:
    """A row of small pictures; a click opens one. current: the name of the one that is shown. where: they are kept."""
    if not pictures:
        return ""
    buttons = "".join(
        f'<button type="button" data-name="{_quoted(one.name)}" title="{_title(one)}" aria-label="Open: {_title(one)}"'
        f"{' aria-current=true' if one.name == current else ''}>{_picture(thumbnails.get(one.name))}</button>"
        for one in pictures
    )
    return (
        f'<div class="oms-recent" role="group" aria-label="Recent pictures" data-current="{_quoted(current)}">'
        f'{buttons}</div><p class="oms-legend">{escape(where)}</p>'
    )


def cards(pictures: Sequence[SavedPicture], thumbnails: Mapping[str, bytes], picked: Sequence[str]) -> str:
    """A click on a picture opens it; below it are the buttons of ACTIONS."""
    if not pictures:
        return EMPTY.format("No picture is found.")
    signs = " ".join(f'<b aria-hidden="true">{sign}</b> <span>{label}</span>' for _, sign, label in ACTIONS)
    found = "".join(_card(one, thumbnails.get(one.name), picked) for one in pictures)
    return f'<ul class="oms-kept">{found}</ul><p class="oms-legend oms-signs">{signs}</p>'


def _card(one: SavedPicture, thumbnail: bytes | None, picked: Sequence[str]) -> str:
    title, name = _title(one), _quoted(one.name)
    pressed = {"favourite": one.favourite, "pick": one.name in picked}
    buttons = "".join(
        f'<button type="button" data-do="{action}" data-name="{name}" aria-label="{label}: {title}" title="{label}"'
        f"{_pressed(pressed.get(action))}>{'★' if action == 'favourite' and one.favourite else sign}</button>"
        for action, sign, label in ACTIONS
    )
    return (
        f'<li><button type="button" class="oms-open" data-do="open" data-name="{name}" title="{title}" '
        f'aria-label="Open in Create: {title}">{_picture(thumbnail)}</button>'
        f'<span class="oms-caption" translate="no">{escape(one.prompt[:80])}</span>'
        f'<span class="oms-caption oms-soft">{_time(one)}</span>'
        f'<div class="oms-do">{buttons}</div></li>'
    )


def settings(restored: Restored) -> dict[str, str]:
    """What made a picture, by the labels of the fields. Settings that were left at nothing are left out."""
    request, variant = restored.request, restored.chosen
    shown: dict[str, Any] = {REQUEST_FIELDS[name].label: getattr(request, name) for name in REQUEST_FIELDS}
    del shown[REQUEST_FIELDS["count"].label]
    shown[REQUEST_FIELDS["seed"].label] = restored.seed
    shown[LORA_FIELDS["id"].label] = ", ".join(f"{one.id} × {one.scale:g}" for one in request.loras)
    shown[CORRECTION_FIELD.label] = variant.spec.title
    if variant.is_corrected:
        read = {field.name for field in variant.spec.options}
        shown |= {one.label: getattr(variant, name, None) for name, one in VARIANT_FIELDS.items() if name in read}
    return {label: _in_words(value) for label, value in shown.items() if value not in (None, "", False)}


def differences(left: Mapping[str, str], right: Mapping[str, str]) -> str:
    """A table of the settings that differ, from `settings` of two pictures."""
    labels = [label for label in dict.fromkeys([*left, *right]) if left.get(label) != right.get(label)]
    if not labels:
        return EMPTY.format("All settings are equal.")
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(left.get(label, "–"))}</td>'
        f"<td>{escape(right.get(label, '–'))}</td></tr>"
        for label in labels
    )
    heads = "".join(f'<th scope="col">{one}</th>' for one in ("Setting", "Left", "Right"))
    return f'<table class="oms-differences"><caption>Settings that differ</caption><tr>{heads}</tr>{rows}</table>'


def _title(one: SavedPicture) -> str:
    prompt, model = markup.own(one.prompt[:120]), markup.own(one.model)
    variant = one.variant if one.variant in USUAL else markup.own(one.variant)  # others are ids, or names of a caller's
    return _quoted(" · ".join((prompt, variant, f"seed {one.seed}", model, _time(one))))


def _time(one: SavedPicture) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(one.time))


def _picture(thumbnail: bytes | None) -> str:
    if thumbnail is None:
        return '<span class="oms-blank"></span>'
    return f'<img alt="" src="data:image/webp;base64,{base64.b64encode(thumbnail).decode()}">'


def _pressed(value: bool | None) -> str:
    return "" if value is None else f' aria-pressed="{str(value).lower()}"'


def _quoted(text: str) -> str:
    return escape(text, quote=True)


def _in_words(value: Any) -> str:
    return "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
