"""The page's texts in another language: English texts and templates of translations/*.json, found in what is shown.

The source is written in English, and the English text is the key. A key with {places} stands for every text that fits
it: a lower-case place is kept as it is, such as a path or what a visitor wrote; one of a single letter is a number;
`{word}` is one word; an UPPER-CASE place is a text that is translated too, and the key fits only if it can be; {FIELD}
is a text that is a key itself. What stands between Unicode's isolates (markup.own) is kept. Texts without a translation
stay English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from html import escape, unescape
from pathlib import Path
from types import MappingProxyType
from typing import Any

FOLDER = Path(__file__).parent / "translations"
PLACE = re.compile(r"\{(\w+)\}")
MAX_TEXT = 600  # characters of a text that templates are tried on
MAX_DEPTH = 5  # texts inside texts
_TAG = re.compile(r"(</?[a-zA-Z][^<>]*>)")
_SPOKEN = re.compile(r"""((?<=\s)(?:title|aria-label|alt|placeholder)=)("[^"]*"|'[^']*')""")
_EDGES = re.compile(r"^([\s·]*)(.*?)([\s·]*)$", re.DOTALL)
_SENTENCES = re.compile(r"(?<=[.!?]) (?=[A-Z0-9])")
_LETTER = re.compile(r"[A-Za-z]")
_WORDS = re.compile("[A-Za-z\ue000-\uf8ff]")
_KEPT = re.compile("\u2068[^\u2069]*\u2069")
_STAND_IN = 0xE000  # the first of the characters that stand for what is kept: of Unicode's private use area
# Between a Chinese character and a Latin one there is a space; \0 marks the ends of what was filled in.
_SPACE = re.compile(r"(?<=[\u4e00-\u9fff])\0(?=[A-Za-z0-9#])|(?<=[A-Za-z0-9%])\0(?=[\u4e00-\u9fff])")
_FULL_WIDTH = ("，", "。", "；", "：", "）", "”", "、")
_NUMBER = r"[-+−]?\d+(?:[.,]\d+)*"
# What is read or heard of a component: these properties, and the value of these kinds of components.
_PROPERTIES = ("label", "info", "placeholder", "alt_text")
_OF_VALUE = ("button", "downloadbutton")


@dataclass(frozen=True)
class _Template:
    pattern: re.Pattern[str]
    translated: str
    literal: int  # characters outside of places: the more, the surer
    longest: str  # of the parts outside of places: a text without it is not tried

    @classmethod
    def of(cls, english: str, translated: str) -> _Template:
        pattern, literal, end = "", 0, 0
        for place in PLACE.finditer(english):
            name, before = place[1], english[end : place.start()]
            kind = _NUMBER if len(name) == 1 else r"\S+" if name.lower() == "word" else ".*?"
            pattern += re.escape(before) + f"(?P<{name}>{kind})"
            literal, end = literal + len(before), place.end()
        rest = english[end:]
        longest = max(re.split(r"\{\w+\}", english), key=len)
        return cls(re.compile(pattern + re.escape(rest), re.DOTALL), translated, literal + len(rest), longest)


class Translation:
    """One language. code: as in `<html lang>`. gradio: Gradio's own texts that its translation lacks."""

    def __init__(self, code: str, texts: Mapping[str, str], gradio: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.code, self.texts, self.gradio = code, texts, gradio
        self._exact = {key: value for key, value in texts.items() if not PLACE.search(key)}
        self._inside = {key.casefold(): value for key, value in self._exact.items()}
        templates = [_Template.of(key, value) for key, value in texts.items() if PLACE.search(key)]
        self._templates = sorted(templates, key=lambda one: -one.literal)
        self._cached = lru_cache(maxsize=4096)(self._find)

    def text(self, english: str) -> str:
        """A text without markup."""
        before, middle, after = _edges(english)
        return f"{before}{self._known(middle)}{after}"

    def markup(self, html: str) -> str:
        """HTML: what stands between its tags, and in the attributes that are shown or spoken. An element with
        translate="no", which holds no other element, stays as it is."""
        parts, kept = _TAG.split(html), False
        for i, part in enumerate(parts):
            if i % 2:
                kept = 'translate="no"' in part
                parts[i] = part if kept or "=" not in part else _SPOKEN.sub(self._attribute, part)
            elif part.strip() and not kept:
                parts[i] = self._within(unescape(part), lambda text: escape(text, quote=False))
        return "".join(parts)

    def shown(self, kind: str, value: Any) -> Any:
        """The value of a component, or its update. kind: Gradio's name of the component, such as "html"."""
        if isinstance(value, str):
            return self.markup(value) if kind == "html" else self.text(value) if kind in _OF_VALUE else value
        return self.properties(kind, value) if isinstance(value, dict) and value.get("__type__") == "update" else value

    def properties(self, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The properties of a component, with those translated that are read or heard."""
        found = dict(given)
        for name in _PROPERTIES:
            if isinstance(found.get(name), str):
                found[name] = self.text(found[name])
        if isinstance(found.get("value"), str):
            found["value"] = self.shown(kind, found["value"])
        if isinstance(found.get("choices"), list | tuple):
            found["choices"] = [self._choice(one) for one in found["choices"]]
        return found

    def _choice(self, choice: Any) -> Any:
        name, value = choice if isinstance(choice, list | tuple) and len(choice) == 2 else (choice, choice)
        return (self.text(name), value) if isinstance(name, str) else choice

    def _within(self, text: str, quoted: Callable[[str], str]) -> str:
        before, middle, after = _edges(text)
        known = self._known(middle)
        return quoted(f"{'' if known.startswith(_FULL_WIDTH) else before}{known}{after}")

    def _attribute(self, found: re.Match[str]) -> str:
        return f'{found[1]}"{self._within(unescape(found[2][1:-1]), escape)}"'

    def _known(self, text: str) -> str:
        if len(text) > MAX_TEXT:  # a prompt, or one of our own longer explanations
            return self._exact.get(text, text)
        kept = dict(enumerate(_KEPT.findall(text), _STAND_IN))
        stand_ins = map(chr, kept)
        known = self._cached(" ".join(_KEPT.sub(lambda _: next(stand_ins), text).split()), 0)
        return known.translate(kept) if known else text

    def _find(self, text: str, depth: int) -> str | None:
        """None if it has no translation."""
        if not _LETTER.search(text):
            return text
        lower = text[:1].lower() + text[1:]  # messages begin with a capital letter only when they are shown
        found = self._exact.get(text) or self._exact.get(lower)
        if found is None and depth:
            found = self._inside.get(text.casefold())
        if found is not None or depth > MAX_DEPTH:
            return found
        for template in self._templates:
            for form in (text, lower) if lower != text else (text,):
                match = template.pattern.fullmatch(form) if template.longest in form else None
                if match and (filled := self._filled(template, match, depth)) is not None:
                    return filled
        return self._in_parts(text, depth)

    def _filled(self, template: _Template, match: re.Match[str], depth: int) -> str | None:
        values = match.groupdict()
        for name, value in values.items():
            if name.isupper() and value:
                before, middle, after = _edges(value)
                exact = self._inside.get(middle.casefold())
                found = exact if name == "FIELD" else self._find(middle, depth + 1)
                if found is None or not _WORDS.search(middle):
                    return None
                values[name] = f"{before}{found}{after}"
        filled = PLACE.sub(lambda place: f"\0{values[place[1]]}\0", template.translated)
        return _SPACE.sub(" ", filled).replace("\0", "")

    def _in_parts(self, text: str, depth: int) -> str | None:
        """Parts between dots, those that are known; sentences, or parts between commas, all or none."""
        if " · " in text:
            parts = text.split(" · ")
            known = [self._find(part, depth + 1) or part for part in parts]
            return None if known == parts else " · ".join(known)
        for parts, between in ((_SENTENCES.split(text), ""), (text.split(", "), "，")):
            found = [self._find(part, depth + 1) for part in parts] if len(parts) > 1 else [None]
            if None not in found:
                return between.join(one for one in found if one is not None)
        if text.endswith("."):
            found_before = self._find(text[:-1], depth + 1)
            return None if found_before is None else f"{found_before}。"
        return None


def _edges(text: str) -> tuple[str, str, str]:
    """White space and dots before and after a text, and the text."""
    found = _EDGES.match(text)
    assert found is not None
    return found[1], found[2], found[3]


def _read(path: Path) -> Translation:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Translation(content["language"], content["texts"], content["gradio"])


@lru_cache(maxsize=1)
def translations() -> Mapping[str, Translation]:
    """All languages but English, by the first part of their code: "zh"."""
    return MappingProxyType({path.stem: _read(path) for path in sorted(FOLDER.glob("*.json"))})
