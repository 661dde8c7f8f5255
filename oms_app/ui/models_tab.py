"""The models: what there is, fetching it, adding one's own, and how full the store of loaded models is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from oms_app.errors import Stopped, StudioError
from oms_app.schema import Transfer
from oms_app.ui import readout
from oms_app.ui.painting import QUICK
from oms_app.ui.work import Library, Stops, watch

logger = logging.getLogger(__name__)
Components = dict[str, Any]
Lists = Callable[[Mapping[Any, Any]], dict[Any, Any]]  # what the other tabs show, from what is chosen there
KINDS = {
    "base": ("Models that paint", "Each brings its own hand. One More Step works with all of one latent domain."),
    "oms": ("One More Step modules", "The network in front of the sampler; one for each latent domain."),
    "lora": ("LoRAs", "Small additions to a model: a style, a subject, speed. Choose them in Create."),
    "text": ("Text encoders", "What some modules read prompts with."),
    "singdiffusion": ("Other remedies", "For the tab Compare."),
    "signal_leak": ("Other remedies", "For the tab Compare."),
}
COUNTS = (
    ("models", "Models loaded", "Base models, modules and text encoders that are in memory now"),
    ("hits", "Found loaded", "How often a model that was asked for was in memory already (hits)"),
    ("misses", "Loads", "How often a model was read from disk (misses)"),
    ("evictions", "Put away", "How often a model had to make room for another (evictions)"),
)
CLICK_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-action]');
  if (button) trigger('click', {id: button.dataset.id, action: button.dataset.action});
});
"""
MB, GB = 10**6, 10**9


def build(studio: Library, local: bool) -> Components:
    """Lays out the view. local: downloads and models of the visitor's own are offered."""
    c: Components = {}
    with gr.Row(elem_id="models-layout", elem_classes="" if local else "oms-alone"):
        with gr.Column(elem_id="models-list", min_width=0):
            c["catalogue"] = gr.HTML(
                catalogue(studio.models(), local), js_on_load=CLICK_JS if local else None, elem_id="catalogue"
            )
        if local:
            with gr.Column(elem_id="models-progress", min_width=0):
                c["status"] = gr.HTML(readout.note(*studio.catalog_warnings()), elem_id="models-status")
                c["stop"] = gr.Button("Stop", elem_id="models-stop", visible=False)
        with gr.Column(elem_id="models-side", min_width=0):
            if local:
                _own(c)
            gr.HTML('<h2 class="oms-heading">In memory</h2>')
            c["statistics"] = gr.HTML(statistics(None), elem_id="statistics")
            c["refresh"] = gr.Button("Refresh", size="sm", elem_id="refresh-statistics")
    c["plan"] = gr.State()
    return c


def _own(c: Components) -> None:
    gr.HTML(
        '<h2 class="oms-heading">Add a model of your own</h2><p class="oms-legend">A Stable Diffusion 1.x, 2.x or XL '
        "checkpoint or a LoRA as .safetensors, or a folder as diffusers or the OMS authors lay it out. What you drop "
        "here is copied into your models folder.</p>"
    )
    c["path"] = gr.Textbox(
        label="Its path on this machine",
        placeholder="/home/me/models/dreamy.safetensors",
        info="It stays where it is.",
        max_lines=1,
        elem_id="own-path",
    )
    c["add"] = gr.Button("Add", elem_id="own-add")
    c["added"] = gr.HTML("", elem_id="own-status")
    c["drop"] = gr.File(label="Or drop a .safetensors file", height=170, elem_id="own-drop")


def connect(
    c: Components, studio: Library, room: gr.Tab, lists: Lists, followers: Sequence[Any], remembered: Sequence[Any] = ()
) -> None:
    """Wires the components to the studio; every event is private.

    followers: the components that `lists` fills; it is given what is chosen in them. remembered: those of them that the
    visitor's browser fills when the page opens (`remember.connect`).
    """
    chosen = {component for component in followers if not isinstance(component, gr.Column)}
    local = "status" in c

    def count() -> str:
        try:
            return statistics(studio.statistics())
        except StudioError as error:
            return readout.alert(str(error))

    def everything(data: Mapping[Any, Any]) -> dict[Any, Any]:
        return {c["catalogue"]: catalogue(studio.models(), local), **lists(data)}

    quick_count: dict[str, Any] = {"fn": count, "inputs": None, "outputs": c["statistics"], **QUICK}
    room.select(**quick_count)
    c["refresh"].click(**quick_count)
    blocks = gr.context.Context.root_block
    assert isinstance(blocks, gr.Blocks)
    # A page is laid out when the app starts; what came since is told when it opens.
    told = [c["catalogue"], *(one for one in followers if one not in remembered)]

    def opened(data: Mapping[Any, Any]) -> dict[Any, Any]:
        return {component: update for component, update in everything(data).items() if component in told}

    blocks.load(opened, chosen, told, **QUICK)
    if local:
        _connect_downloads(c, studio, everything, chosen, followers)
        _connect_own(c, studio, everything, chosen, followers)


def _connect_downloads(
    c: Components, studio: Library, everything: Lists, chosen: set[Any], followers: Sequence[Any]
) -> None:
    stops = Stops()
    status, stop, plan = c["status"], c["stop"], c["plan"]

    def check(data: dict[Any, Any], event: gr.EventData, session: gr.Request) -> dict[Any, Any]:
        """What a button of the catalogue asks for: a model off the list at once, or a plan of what to fetch."""
        action, model = str(event._data.get("action")), str(event._data.get("id"))
        infos = {info.id: info for info in studio.models()}
        if action == "forget":
            try:
                place = studio.forget_model(model)
            except StudioError as error:
                return {plan: None, status: readout.alert(str(error))}
            title = infos[model].title if model in infos else model
            return {
                plan: None,
                status: readout.note(f"{title} is off the list. Its files stay: {place}"),
                **everything(data),
            }
        wanted = to_fetch(infos, model, whole=action == "fetch-all")
        if not wanted:
            return {plan: None, status: readout.note("It is here already."), **everything(data)}
        stops.fresh(session.session_hash)
        return {
            plan: wanted,
            status: waiting(),
            stop: gr.update(visible=True, interactive=True),
            c["catalogue"]: catalogue(list(infos.values()), True, busy=True),
        }

    def fetching(model: str, *flags: threading.Event) -> Callable[[Callable[[Any], None]], None]:
        """The download of one model, to be watched. flags: each stops it."""
        return lambda tell: studio.download(
            model, on_progress=tell, should_stop=lambda: any(flag.is_set() for flag in flags)
        )

    def run(data: dict[Any, Any], session: gr.Request) -> Iterator[dict[Any, Any]]:
        wanted: list[str] | None = data[plan]
        if not wanted:
            return
        stopped = stops.of(session.session_hash)
        titles = {info.id: info.title for info in studio.models()}
        try:
            for place, model in enumerate(wanted, 1):
                if stopped.is_set():
                    raise Stopped("stopped")
                rate, gone = Rate(), threading.Event()
                which = f"{titles[model]} ({place} of {len(wanted)})" if len(wanted) > 1 else titles[model]
                yield {status: transfer(which, None, None)}
                # Once more, with the first news: where the page was still opening, its cards have come without it.
                busy = {c["catalogue"]: catalogue(studio.models(), True, busy=True)}
                for news in watch(fetching(model, stopped, gone), gone):
                    if isinstance(news, Transfer):
                        yield {status: transfer(which, news, rate.left(news)), **busy}
                        busy = {}
            names = " and ".join(titles[model] for model in wanted)
            yield {status: readout.note(f"{names}: here now, in the lists of Create and Compare where it belongs.")}
        except Stopped:
            yield {status: readout.note("Stopped. What has come is kept: the next download goes on from there.")}
        except StudioError as error:
            yield {status: readout.alert(str(error))}
        except Exception as error:  # the edge of the program: the log gets the traceback, the person a plain line
            logger.exception("a download failed")
            what = f"Something broke while downloading ({type(error).__name__}: {error})"
            yield {status: readout.alert(f"{what}. What has come is kept; please try again.")}

    def rest(data: dict[Any, Any]) -> dict[Any, Any]:
        return {plan: None, stop: gr.update(visible=False), **everything(data)}

    def end(session: gr.Request) -> dict[Any, Any]:
        stops.of(session.session_hash).set()
        return {stop: gr.update(interactive=False)}

    checked = c["catalogue"].click(check, chosen, [plan, status, stop, c["catalogue"], *followers], **QUICK)
    ran = checked.then(
        run,
        {plan},
        [status, c["catalogue"]],
        concurrency_id="download",
        concurrency_limit=1,
        show_progress="hidden",
        api_visibility="private",
    )
    ran.then(rest, chosen, [plan, stop, c["catalogue"], *followers], **QUICK)
    stop.click(end, None, stop, **QUICK)


def _connect_own(c: Components, studio: Library, everything: Lists, chosen: set[Any], followers: Sequence[Any]) -> None:
    def take(add: Callable[[], Any], data: dict[Any, Any]) -> dict[Any, Any]:
        try:
            info = add()
        except StudioError as error:
            return {c["added"]: readout.alert(str(error))}
        except Exception as error:  # as in `run`: a file from anywhere may break a library in ways of its own
            logger.exception("a model could not be added")
            return {c["added"]: readout.alert(f"It could not be read ({type(error).__name__}: {error})")}
        where = {"lora": "Create: Picture settings → LoRAs", "oms": "Compare: Their settings → OMS module"}
        place = where.get(info.kind, "Create: Picture settings → Model, and in Compare")
        return {c["added"]: readout.note(f"{info.title} is in the list of {place}."), c["path"]: "", **everything(data)}

    def by_path(data: dict[Any, Any]) -> dict[Any, Any]:
        return take(lambda: studio.add_model(data[c["path"]] or ""), data)

    def by_file(data: dict[Any, Any]) -> dict[Any, Any]:
        file = data[c["drop"]]
        if file is None:
            return {c["drop"]: None}
        return {**take(lambda: studio.keep_model(Path(file)), data), c["drop"]: None}

    outputs = [c["added"], c["path"], c["drop"], c["catalogue"], *followers]
    settings: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_id": "add"}
    for event, handler, field in (
        (c["add"].click, by_path, c["path"]),
        (c["path"].submit, by_path, c["path"]),
        (c["drop"].upload, by_file, c["drop"]),
    ):
        event(lambda: readout.working("Checking"), None, c["added"], **QUICK).then(
            handler, {field, *chosen}, outputs, **settings
        )


def to_fetch(infos: Mapping[str, Any], model: str, *, whole: bool) -> list[str]:
    """Ids of what is to be downloaded for a model of the catalogue: itself, and if `whole` all that it needs."""
    if model not in infos:
        return []
    wanted = [model, *(infos[model].needs if whole else ())]
    return [one for one in dict.fromkeys(wanted) if one in infos and not infos[one].available and not infos[one].own]


def catalogue(infos: Sequence[Any], local: bool, *, busy: bool = False) -> str:
    """The models as cards, by kind. local: with buttons. busy: they cannot be pressed, a download is under way."""
    by_id = {info.id: info for info in infos}
    sections: dict[str, list[str]] = {}
    for kind, (heading, about) in KINDS.items():
        ours = sorted((info for info in infos if info.kind == kind), key=lambda info: not info.available)
        cards = [_card(info, by_id, local, busy) for info in ours]
        if cards:
            head = f'<h2 class="oms-heading">{heading}</h2><p class="oms-legend">{about}</p>'
            sections.setdefault(head, []).extend(cards)
    return "".join(
        f'<section>{head}<div class="oms-cards">{"".join(cards)}</div></section>' for head, cards in sections.items()
    )


def _card(info: Any, by_id: Mapping[str, Any], local: bool, busy: bool) -> str:
    state = "Here" if info.available else "Files are gone" if info.own else "Not here yet"
    facts = [("Size", gigabytes(info.size) if info.size else "comes with the app"), ("Licence", info.licence)]
    if info.kind not in ("lora", "text"):
        facts.append(("Latent domain", info.domain or "measured when used"))
    rows = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    texts = "".join(f"<p>{escape(text)}</p>" for text in (info.description, info.note) if text)
    lacking = [by_id[one] for one in to_fetch(by_id, info.id, whole=True) if one != info.id]
    if info.needs:
        names = ", ".join(escape(by_id[one].title) for one in info.needs if one in by_id)
        what = "One More Step needs" if info.kind == "base" else "Needs"
        texts += f"<p>{what}: {names}{'' if lacking else ' (here)'}.</p>"
    buttons = _buttons(info, lacking, busy) if local else ""
    looks = "oms-card" if info.available else "oms-card oms-absent"
    return (
        f'<article class="{looks}" data-model="{escape(info.id, quote=True)}">'
        f'<header><h3>{escape(info.title)}</h3><span class="oms-state">{state}</span></header>'
        f"{texts}<dl>{rows}</dl>{buttons}</article>"
    )


def _buttons(info: Any, lacking: Sequence[Any], busy: bool) -> str:
    offered: list[tuple[str, str]] = []
    whole = sum(one.size or 0 for one in lacking)
    if not info.available and not info.own:
        offered.append(("fetch", f"Download · {gigabytes(info.size or 0)}"))
        whole += info.size or 0
    if lacking and (info.available or offered):
        what = "One More Step" if info.kind == "base" else "what it needs"
        label = f"With {what}" if offered else f"Download {what}"
        offered.append(("fetch-all", f"{label} · {gigabytes(whole)}"))
    if info.own:
        offered.append(("forget", "Take off the list"))
    title = escape(info.title, quote=True)
    off = " disabled" if busy else ""
    buttons = "".join(
        f'<button type="button" data-action="{action}" data-id="{escape(info.id, quote=True)}" '
        f'aria-label="{label}: {title}"{off}>{label}</button>'
        for action, label in offered
    )
    return f'<div class="oms-actions">{buttons}</div>' if buttons else ""


def statistics(counts: Mapping[str, Any] | None) -> str:
    """The store's figures, see `store.Statistics`; dashes of the same height without them."""
    shown = counts or {}
    cells = "".join(
        f'<div title="{tip}"><dt>{name}</dt><dd>{shown.get(key, "–")}</dd></div>' for key, name, tip in COUNTS
    )
    used, budget = int(shown.get("bytes_used", 0)), int(shown.get("budget", 0))
    text = f"{gigabytes(used)} of the {gigabytes(budget)} set aside for models" if counts else "not read yet"
    bar = f'<progress aria-label="Memory used by models" value="{min(used, budget)}" max="{max(budget, 1)}"></progress>'
    return f'<div class="oms-status oms-statistics"><dl>{cells}</dl><span>{text}</span>{bar}</div>'


def gigabytes(size: int) -> str:
    """In GB; in MB below a tenth of one."""
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / MB:.0f} MB"


def waiting() -> str:
    return readout.working("Waiting for its turn")


def transfer(title: str, news: Transfer | None, left: float | None) -> str:
    """How far a download is. left: seconds to come, None where it is too early to say."""
    if news is None:
        return readout.working(f"Asking the hub for {title}")
    text = f"Downloading {escape(title)}: {gigabytes(news.done)} of {gigabytes(news.total)}"
    if left is not None:
        text += f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"
    bar = f'<progress aria-label="Progress" value="{news.done}" max="{news.total}"></progress>'
    return f'<div class="oms-status"><span>{text}. Keep this page open.</span>{bar}</div>'


class Rate:
    """How fast bytes come since the first news of them."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def left(self, news: Transfer) -> float | None:
        """Seconds until the rest is here; None for the first second."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, news.done)
        passed, came = now - self._first[0], news.done - self._first[1]
        return (news.total - news.done) * passed / came if passed >= 1.0 and came > 0 else None
