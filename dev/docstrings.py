"""For mkdocs: the lines `name: meaning` of our docstrings become a list on the site. Named in mkdocs.yml."""

from __future__ import annotations

import re
from typing import Any

import griffe

FIELD = re.compile(r"^(\w+(?:, \w+)*): (?=\S)")


class FieldLists(griffe.Extension):
    """Rewrites docstrings as they are read from the source."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = listed(obj.docstring.value)


def listed(text: str) -> str:
    """The text with a Markdown list item for each line that begins with `name: `, up to the end of its paragraph."""
    lines: list[str] = []
    in_list = False
    for line in text.splitlines():
        field = FIELD.match(line)
        if field and not in_list and lines and lines[-1]:
            lines.append("")  # Markdown begins a list after an empty line only
        in_list = bool(field) or (in_list and bool(line.strip()))
        lines.append(f"- **{field[1]}**: {line[field.end() :]}" if field else line)
    return "\n".join(lines)
