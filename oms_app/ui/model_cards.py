"""The catalogue and the memory use of the Models tab, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from oms_app.models.catalog import ModelInfo
from oms_app.schema import Transfer
from oms_app.ui import markup

# A heading and an explanation for each kind of model.
KINDS = {
    "base": ("Base models", "They generate the pictures. One More Step works with every model of a latent domain."),
    "oms": ("One More Step modules", "They correct the starting noise; one for each latent domain."),
    "lora": ("LoRAs", "Small additions to a model: a style, a subject, fewer steps. Select them in Create."),
    "text": ("Text encoders", "Some modules need them to read prompts."),
    "singdiffusion": ("Other corrections", "For the tab Compare."),
    "signal_leak": ("Other corrections", "For the tab Compare."),
}
COUNTS = (
    ("models", "Models in memory", "Base models, modules and text encoders that are loaded now"),
    ("hits", "Cache hits", "How often a model was in memory when it was needed"),
    ("misses", "Loads", "How often a model was loaded from disk"),
    ("evictions", "Unloaded", "How often a model was unloaded to make room for another"),
)
MB, GB = 10**6, 10**9


def to_fetch(infos: Mapping[str, ModelInfo], model: str, *, whole: bool) -> list[str]:
    """Ids to download for a model of the catalogue: itself, and if `whole` all that it needs."""
    if model not in infos:
        return []
    wanted = [model, *(infos[model].needs if whole else ())]
    return [one for one in dict.fromkeys(wanted) if one in infos and not infos[one].available and not infos[one].own]


def catalogue(infos: Sequence[ModelInfo], local: bool, *, busy: bool = False) -> str:
    """The models as cards, by kind. local: with buttons. busy: they are disabled, a download is running."""
    by_id = {info.id: info for info in infos}
    sections: dict[str, list[str]] = {}
    for kind, (title, about) in KINDS.items():
        of_kind = sorted((info for info in infos if info.kind == kind), key=lambda info: not info.available)
        cards = [_card(info, by_id, local, busy) for info in of_kind]
        if cards:
            sections.setdefault(markup.heading(title) + markup.legend(about), []).extend(cards)
    return "".join(
        f'<section>{head}<div class="oms-cards">{"".join(cards)}</div></section>' for head, cards in sections.items()
    )


def _card(info: ModelInfo, by_id: Mapping[str, ModelInfo], local: bool, busy: bool) -> str:
    state = "Available" if info.available else "Files missing" if info.own else "Not downloaded"
    facts = [("Size", size(info.size) if info.size else "included"), ("Licence", info.licence)]
    if info.kind not in ("lora", "text"):
        facts.append(("Latent domain", info.domain or "measured at first use"))
    rows = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    texts = "".join(f"<p>{escape(text)}</p>" for text in (info.description, info.note) if text)
    missing = [by_id[one] for one in to_fetch(by_id, info.id, whole=True) if one != info.id]
    if info.needs:
        names = " · ".join(escape(by_id[one].title) for one in info.needs if one in by_id)
        names = names if missing else f"{names} (available)"
        texts += f"<p>One More Step needs: {names}.</p>" if info.kind == "base" else f"<p>Needs: {names}.</p>"
    buttons = _buttons(info, missing, busy) if local else ""
    css = "oms-card" if info.available else "oms-card oms-absent"
    return (
        f'<article class="{css}" data-model="{escape(info.id, quote=True)}">'
        f'<header><h3>{escape(info.title)}</h3><span class="oms-state">{state}</span></header>'
        f"{texts}<dl>{rows}</dl>{buttons}</article>"
    )


def _buttons(info: ModelInfo, missing: Sequence[ModelInfo], busy: bool) -> str:
    """missing: what it needs and is not downloaded."""
    offered: list[tuple[str, str]] = []
    whole = sum(one.size or 0 for one in missing)
    if not info.available and not info.own:
        offered.append(("fetch", " · ".join(("Download", size(info.size or 0)))))
        whole += info.size or 0
    if missing and (info.available or offered):
        what = "One More Step" if info.kind == "base" else "what it needs"
        label = f"With {what}" if offered else f"Download {what}"
        offered.append(("fetch-all", f"{label} · {size(whole)}"))
    if info.own:
        offered.append(("forget", "Remove from the list"))
    title = escape(info.title, quote=True)
    disabled = " disabled" if busy else ""
    buttons = "".join(
        f'<button type="button" data-action="{action}" data-id="{escape(info.id, quote=True)}" '
        f'aria-label="{label}: {title}"{disabled}>{label}</button>'
        for action, label in offered
    )
    return f'<div class="oms-actions">{buttons}</div>' if buttons else ""


def statistics(counts: Mapping[str, Any] | None) -> str:
    """The memory use of loaded models, see `store.Statistics`; dashes at the same height for None."""
    shown = counts or {}
    cells = "".join(
        f'<div title="{tip}"><dt>{name}</dt><dd>{shown.get(key, "–")}</dd></div>' for key, name, tip in COUNTS
    )
    used, budget = int(shown.get("bytes_used", 0)), int(shown.get("budget", 0))
    text = f"{size(used)} of {size(budget)} for models" if counts else "not read yet"
    bar = f'<progress aria-label="Memory used by models" value="{min(used, budget)}" max="{max(budget, 1)}"></progress>'
    return f'<div class="oms-status oms-statistics"><dl>{cells}</dl><span>{text}</span>{bar}</div>'


def size(count: int) -> str:
    """Bytes in GB; in MB below a tenth of one."""
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / MB:.0f} MB"


def transfer(title: str, event: Transfer | None, seconds_left: float | None) -> str:
    """The progress of a download. event: None before the first. seconds_left: None if it is not known yet."""
    if event is None:
        return markup.status(f"Contacting the hub for {title} …")
    text = f"Downloading {title}: {size(event.done)} of {size(event.total)}{markup.left(seconds_left)}"
    return markup.status(f"{text}. Keep this page open.", event.done, event.total)
