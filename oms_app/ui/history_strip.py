"""The recent pictures under those of Create: a click opens one, and a reload brings back the one that was shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.ui import gradio_compat, history_view, markup, reopen
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues
from oms_app.ui.result_view import ResultView, ShownResult

COUNT = 12
# The browser's own mark, by which a visitor of a shared page finds their pictures again; and the picture that this
# tab of the browser showed last, "*" for the newest one. A first visit shows the example instead.
WHO = """() => {
  const key = 'oms-studio-visitor';
  let token = localStorage.getItem(key);
  const returns = token !== null;
  if (!token) localStorage.setItem(key, token = Array.from(crypto.getRandomValues(new Uint8Array(16)),
    byte => byte.toString(16).padStart(2, '0')).join(''));
  return [token, sessionStorage.getItem('oms-studio-shown') || (returns ? '*' : '')];
}"""
REMEMBER = """html => {
  const found = new DOMParser().parseFromString(html || '', 'text/html').querySelector('[data-current]');
  if (found) sessionStorage.setItem('oms-studio-shown', found.dataset.current);
}"""


class HistoryStrip:
    def __init__(self, service: StudioService) -> None:
        self._service = service

    def build(self) -> None:
        """Creates the strip inside the current column."""
        self._strip = gr.HTML("", js_on_load=markup.CLICK_JS, elem_id="history-strip")
        self._opened = gr.State(("", ""))  # the picture that was opened here, and the newest one at that time
        self._who, self._last = (gr.Textbox(visible=False) for _ in range(2))

    def connect(
        self,
        demo: gr.Blocks,
        fields: FieldSet[CreateValues],
        view: ResultView,
        show: Callable[[ShownResult, Updates], Updates],
        status: Component,
        outputs: list[Component],
    ) -> None:
        """show: updates that show a picture, and the fields that come with it; they are among the outputs."""

        def update(opened: tuple[str, str], session: gr.Request) -> str:
            return self._html(session.session_hash, *opened)[0]

        def load(token: str, name: str, session: gr.Request) -> Updates:
            self._service.visitors.identify(session.session_hash, token)
            return self._last_shown(session.session_hash, name, view)

        def open_picture(data: Mapping[Component, Any], event: gr.EventData, session: gr.Request) -> Updates:
            name = str(gradio_compat.event_data(event).get("name"))
            history, values = self._service.history(session.session_hash), fields.read(data)
            try:
                shown, after = reopen.opened(history, name, values, self._service)
            except StudioError as error:
                return {status: markup.alert(str(error))}
            return {**show(shown, fields.changes(values, after)), **self._mark(session.session_hash, name)}

        demo.load(load, [self._who, self._last], [*view.outputs, self._strip, self._opened], js=WHO, **QUICK)
        view.summary.change(update, self._opened, self._strip, **QUICK)
        self._strip.click(open_picture, set(fields.components), [*outputs, self._strip, self._opened], **QUICK)
        self._strip.change(None, self._strip, None, js=REMEMBER, **QUICK)

    def _last_shown(self, session: str | None, name: str, view: ResultView) -> Updates:
        """The picture of that name, else the newest one; only the strip without a name or a picture."""
        history = self._service.history(session)
        try:
            newest = [one.name for one in history.find(count=1).pictures] if name else []
            for one in (name, *newest):
                try:
                    shown = reopen.shown(history, one, self._service)
                except StudioError:  # it was deleted
                    continue
                return {**view.show(shown), **self._mark(session, one)}
        except StudioError as error:
            return {self._strip: markup.alert(str(error))}
        return {self._strip: self._html(session, "", None)[0]}

    def _mark(self, session: str | None, name: str) -> Updates:
        """A picture of the history is shown."""
        html, newest = self._html(session, name, None)
        return {self._strip: html, self._opened: (name, newest)}

    def _html(self, session: str | None, opened: str, before: str | None) -> tuple[str, str]:
        """The strip, and the name of the newest picture. opened: the picture that is shown, unless one came since
        `before` was the newest."""
        history = self._service.history(session)
        try:
            pictures = history.find(count=COUNT).pictures
            thumbnails = history.thumbnails([one.name for one in pictures])
        except StudioError as error:
            return markup.alert(str(error)), ""
        newest = pictures[0].name if pictures else ""
        current = opened if before in (None, newest) else newest
        return history_view.strip(pictures, thumbnails, current, where(self._service, session)), newest


def where(service: StudioService, session: str | None) -> str:
    """Where the pictures are, in words."""
    if service.visitors.private:
        return "Only you see these pictures. Each is deleted after an hour; download those you want to keep."
    return f"Saved in {service.history(session).folder}"
