"""What a tab of the page is, and what tabs share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gradio as gr

from oms_app.ui.events import QUICK, Component, Updates


class Tab(ABC):
    """One tab. A new tab is a subclass and an entry in `demo.make_tabs`.

    id, title: of the tab. refreshes_on_load: `Page` refreshes its lists of models when the page opens; else the tab
    does so itself, together with what it restores then.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    refreshes_on_load: ClassVar[bool] = True

    @abstractmethod
    def build(self) -> None:
        """Creates the components inside the current `gr.Tab`."""

    @abstractmethod
    def connect(self, page: Page) -> None:
        """Adds the events, after all tabs are built. All are private: the public endpoints are in api.py."""

    @property
    def lists(self) -> Sequence[Component]:
        """The components that `refresh` updates: they follow the models on this machine."""
        return ()

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        """Updates of `lists` after models were added or removed. chosen: their values now; those that are gone are
        deselected."""
        return {}


class Page:
    """The tabs and the Blocks around them. Built inside the current Blocks."""

    def __init__(self, demo: gr.Blocks, tabs: Sequence[Tab]) -> None:
        self.demo = demo
        self._tabs = tabs
        self._items: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="tabs") as self._bar:
            for tab in tabs:
                with gr.Tab(tab.title, id=tab.id) as self._items[tab.id]:
                    tab.build()
        for tab in tabs:
            tab.connect(self)
        # A page is laid out when the app starts: models that were added since then appear when it opens.
        on_load = [tab for tab in tabs if tab.refreshes_on_load]
        lists = [component for tab in on_load for component in tab.lists]
        demo.load(lambda data: _refresh(on_load, data), _choices(lists), lists, **QUICK)

    def item(self, tab: Tab) -> gr.Tab:
        """Its `gr.Tab`, for the event of opening it."""
        return self._items[tab.id]

    def open(self, tab: Tab) -> Updates:
        """The update that opens a tab; `bar` must be among the event's outputs."""
        return {self._bar: gr.update(selected=tab.id)}

    @property
    def bar(self) -> gr.Tabs:
        return self._bar

    @property
    def lists(self) -> list[Component]:
        """The lists of models of all tabs."""
        return [component for tab in self._tabs for component in tab.lists]

    @property
    def choices(self) -> set[Component]:
        """Those of `lists` with a value that `refresh` reads: inputs of the event."""
        return _choices(self.lists)

    def refresh(self, chosen: Mapping[Component, Any]) -> Updates:
        """Updates of `lists`. chosen: the values of `choices`."""
        return _refresh(self._tabs, chosen)


def _choices(lists: Sequence[Component]) -> set[Component]:
    return {component for component in lists if isinstance(component, gr.Dropdown | gr.CheckboxGroup)}


def _refresh(tabs: Sequence[Tab], chosen: Mapping[Component, Any]) -> Updates:
    return {component: update for tab in tabs for component, update in tab.refresh(chosen).items()}
