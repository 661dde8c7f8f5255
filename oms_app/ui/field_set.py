"""The fields of a tab: components by name, and their values as a dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import gradio as gr

from oms_app.ui.events import Component, Updates

V = TypeVar("V")


class FieldSet(Generic[V]):
    """Components by the names of a dataclass's fields. A field may also hold a mapping of components by name.

    Raises TypeError if the names differ from the dataclass's.
    """

    def __init__(self, values: type[V], components: Mapping[str, Component | Mapping[str, Component]]) -> None:
        names = {field.name for field in dataclasses.fields(values)}  # type: ignore[arg-type]
        if names != set(components):
            raise TypeError(f"{values.__name__} has other fields than components: {names ^ set(components)}")
        self._values = values
        self._components = components

    def __getitem__(self, name: str) -> Component:
        return self._components[name]

    @property
    def components(self) -> list[Component]:
        """All of them, for an event's inputs or outputs."""
        found = []
        for component in self._components.values():
            found += list(component.values()) if isinstance(component, Mapping) else [component]
        return found

    def read(self, data: Mapping[Component, Any]) -> V:
        """The values, from those that an event's handler receives."""

        def value(component: Component | Mapping[str, Component]) -> Any:
            if isinstance(component, Mapping):
                return {name: value(one) for name, one in component.items()}
            if data[component] is None and isinstance(component, gr.Textbox):
                return ""
            return data[component]

        return self._values(**{name: value(component) for name, component in self._components.items()})

    def changes(self, before: V, after: V) -> Updates:
        """Updates of those fields that differ; the others keep what the visitor may be typing in them."""
        return {
            component: getattr(after, name)
            for name, component in self._components.items()
            if getattr(after, name) != getattr(before, name)
        }
