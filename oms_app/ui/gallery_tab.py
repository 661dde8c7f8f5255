"""Gallery: all saved pictures, to be found, opened in Create, compared, marked as favourites and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.fields import VARIANT_FIELDS
from oms_app.light import LIGHTS
from oms_app.ui import gradio_compat, history_view, markup, reopen
from oms_app.ui.create_tab import CreateTab
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.history_strip import where
from oms_app.ui.result_view import picture_panel
from oms_app.ui.roles import require_owner
from oms_app.ui.tab import Page, Tab

if TYPE_CHECKING:
    from oms_app.output.history import Found, History, Query

ANY = ""  # of a filter
# Values of `Query.tag` by what the list shows.
LIGHT_CHOICES = (
    ("any light", ANY),
    ("without One More Step", "raw"),
    *((VARIANT_FIELDS[name].label.partition(" (")[0], name) for name in ("prompt", "luminance", "tint", "warmth")),
    *((f"Light: {one}", f"light={one}") for one in LIGHTS),
    ("Light of a picture", "light=picture"),
    (VARIANT_FIELDS["spread"].label, "spread"),
)
PER_PAGE = 48


@dataclass(frozen=True)
class GalleryValues:
    """What is looked for. model, look: ids. light: of LIGHT_CHOICES."""

    words: str
    model: str | None
    look: str | None
    light: str | None
    favourites: bool


@dataclass(frozen=True)
class GalleryState:
    """first: number of the first picture that is shown. picked: names of at most two pictures to compare. deleted:
    names that belong together, the last ones at the end."""

    first: int = 0
    picked: tuple[str, ...] = ()
    deleted: tuple[tuple[str, ...], ...] = ()


class GalleryTab(Tab):
    id, title = "gallery", "Gallery"

    def __init__(self, service: StudioService, create: CreateTab) -> None:
        self._service, self._create = service, create

    def build(self) -> None:
        found: dict[str, Component] = {}
        with gr.Row(elem_id="gallery-filters"):
            found["words"] = gr.Textbox(
                label="Search the prompts", placeholder="all words, in any order", max_lines=1, elem_id="gallery-words",
                scale=3, min_width=200,
            )  # fmt: skip
            for name, label, choices in (
                ("model", "Model", [("any model", ANY)]),
                ("look", "Look", [("any look", ANY)]),
                ("light", "Light", list(LIGHT_CHOICES)),
            ):
                found[name] = gr.Dropdown(
                    choices, value=ANY, label=label, filterable=False, min_width=130, elem_id=f"gallery-{name}"
                )
            found["favourites"] = gr.Checkbox(False, label="Favourites", min_width=100, elem_id="gallery-favourites")
        with gr.Row(elem_id="gallery-state"):
            self._count = gr.HTML("", elem_id="gallery-count")
            self._undo = gr.Button("Undo delete", size="sm", visible=False, scale=0, min_width=130, elem_id="undelete")
        with gr.Column(visible=False, elem_id="gallery-compare") as self._compare:
            with gr.Row(elem_id="gallery-pair"):
                self._sides = [
                    picture_panel(f"gallery-{one.lower()}", one, f"The picture at the {one.lower()}")
                    for one in ("Left", "Right")
                ]
            self._differences = gr.HTML("", elem_id="gallery-differences")
            self._close = gr.Button("Close", size="sm", elem_id="gallery-close")
        self._cards = gr.HTML("", js_on_load=markup.CLICK_JS, elem_id="gallery-cards")
        with gr.Row(elem_id="gallery-pages"):
            self._newer = gr.Button("Newer", size="sm", interactive=False, elem_id="gallery-newer")
            self._older = gr.Button("Older", size="sm", interactive=False, elem_id="gallery-older")
        self._state = gr.State(GalleryState())
        self.fields = FieldSet(GalleryValues, found)

    # Events

    def connect(self, page: Page) -> None:
        self._page = page
        inputs = {*self.fields.components, self._state}
        lists = [self.fields[name] for name in ("model", "look")]
        outputs = [self._cards, self._count, self._undo, self._newer, self._older, self._state]
        comparing = [self._compare, *self._sides, self._differences]
        page.item(self).select(self._open, inputs, [*outputs, *lists], **QUICK)
        gr.on(
            [component.change for component in self.fields.components],
            self._find,
            inputs,
            outputs,
            trigger_mode="always_last",
            **QUICK,
        )
        self._newer.click(self._show_newer, inputs, outputs, **QUICK)
        self._older.click(self._show_older, inputs, outputs, **QUICK)
        self._undo.click(self._bring_back, inputs, outputs, **QUICK)
        self._close.click(self._stop_comparing, inputs, [*outputs, *comparing], **QUICK)
        self._cards.click(
            self._act,
            {*inputs, *self._create.fields.components},
            [*outputs, *comparing, *self._create.outputs, page.bar],
            **QUICK,
        )

    def _open(self, data: Mapping[Component, Any], session: gr.Request) -> Updates:
        """The newest pictures, and the models and looks to choose from."""
        try:
            models = self._service.history(session.session_hash).models()
        except StudioError:  # `_show` says why
            models = []
        titles = {info.id: info.title for info in self._service.models()}
        choices = {
            "model": [("any model", ANY), *((titles.get(one, one), one) for one in models)],
            "look": [("any look", ANY), *((look.title, look.id) for look, _ in self._service.looks.looks())],
        }
        lists = {self.fields[name]: gr.update(choices=offered) for name, offered in choices.items()}
        return {**lists, **self._show(data, data[self._state], session)}

    def _find(self, data: Mapping[Component, Any], session: gr.Request) -> Updates:
        """After a change of what is looked for."""
        return self._show(data, replace(data[self._state], first=0), session)

    def _show_newer(self, data: Mapping[Component, Any], session: gr.Request) -> Updates:
        state: GalleryState = data[self._state]
        return self._show(data, replace(state, first=max(0, state.first - PER_PAGE)), session)

    def _show_older(self, data: Mapping[Component, Any], session: gr.Request) -> Updates:
        state: GalleryState = data[self._state]
        return self._show(data, replace(state, first=state.first + PER_PAGE), session)

    def _bring_back(self, data: Mapping[Component, Any], session: gr.Request) -> Updates:
        state: GalleryState = data[self._state]
        if not state.deleted:
            return {self._undo: gr.update(visible=False)}
        *others, last = state.deleted
        try:
            require_owner("saved pictures")
            self._service.history(session.session_hash).undelete(last)
        except StudioError as error:
            return {self._count: markup.alert(str(error))}
        return self._show(data, replace(state, deleted=tuple(others)), session)

    def _stop_comparing(self, data: Mapping[Component, Any], session: gr.Request) -> Updates:
        state: GalleryState = replace(data[self._state], picked=())
        return {**self._show(data, state, session), self._compare: gr.update(visible=False)}

    def _act(self, data: Mapping[Component, Any], event: gr.EventData, session: gr.Request) -> Updates:
        """A button of a card."""
        clicked = gradio_compat.event_data(event)
        action, name = str(clicked.get("do")), str(clicked.get("name"))
        history, state = self._service.history(session.session_hash), data[self._state]
        try:
            if action == "open":
                return self._reopen(history, name, data)
            if action == "favourite":
                history.mark(name, clicked.get("pressed") != "true")
            elif action == "delete":
                require_owner("saved pictures")
                state = replace(state, deleted=(*state.deleted, history.delete(name)))
                state = replace(state, picked=tuple(one for one in state.picked if one != name))
            elif action == "pick":
                history.path(name)
                kept = tuple(one for one in state.picked if one != name)
                state = replace(state, picked=kept if name in state.picked else (*kept[-1:], name))
                return {**self._show(data, state, session), **self._side_by_side(history, state.picked)}
        except StudioError as error:
            return {self._count: markup.alert(str(error))}
        return self._show(data, state, session)

    def _reopen(self, history: History, name: str, data: Mapping[Component, Any]) -> Updates:
        values = self._create.fields.read(data)
        shown, after = reopen.opened(history, name, values, self._service)
        return {
            **self._create.show_result(shown, self._create.fields.changes(values, after)),
            **self._page.open(self._create),
        }

    def _side_by_side(self, history: History, picked: Sequence[str]) -> Updates:
        """The pictures to compare, with the settings that differ; of one picture all settings."""
        found = [history_view.settings(history.settings(one)) for one in picked]
        files: list[Any] = [history.path(one) for one in picked]
        return {
            self._compare: gr.update(visible=bool(picked)),
            **dict(zip(self._sides, [*files, None, None], strict=False)),
            self._differences: history_view.differences(*found)
            if len(found) == 2
            else markup.definitions(found[0].items()) + markup.legend("Choose a second picture to compare with.")
            if found
            else "",
        }

    # Showing what is found

    def _show(self, data: Mapping[Component, Any], state: GalleryState, session: gr.Request) -> Updates:
        history = self._service.history(session.session_hash)
        try:
            query = self._query(self.fields.read(data))
            found = history.find(query, state.first, PER_PAGE)
            if state.first and not found.pictures:  # the last page became empty
                state = replace(state, first=max(0, state.first - PER_PAGE))
                found = history.find(query, state.first, PER_PAGE)
            thumbnails = history.thumbnails([one.name for one in found.pictures])
        except StudioError as error:
            return {self._count: markup.alert(str(error))}
        return {
            self._cards: history_view.cards(found.pictures, thumbnails, state.picked),
            self._count: markup.legend(f"{_counted(found, state.first)} {where(self._service, session.session_hash)}"),
            self._undo: gr.update(visible=bool(state.deleted)),
            self._newer: gr.update(interactive=state.first > 0),
            self._older: gr.update(interactive=state.first + PER_PAGE < found.total),
            self._state: state,
        }

    def _query(self, values: GalleryValues) -> Query:
        return self._service.query(
            values.look or "",
            words=(values.words or "")[:500],
            model=str(values.model or ""),
            tag=str(values.light or ""),
            favourites=bool(values.favourites),
        )


def _counted(found: Found, first: int) -> str:
    if not found.total:
        return "No pictures."
    shown = f"{first + 1} to {first + len(found.pictures)} of {markup.count(found.total)}."
    unread = f"{found.unread:,} more files are being read."
    return f"{shown} {unread}" if found.unread else shown
