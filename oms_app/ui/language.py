"""The language of a visitor: the one that the page's address asks for (?lang=zh), else the browser's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from oms_app.ui.translation import Translation, translations

ENGLISH = "en"
MAX_HEADER = 1_000  # characters of an Accept-Language header; longer ones are not a browser's
PARAMETER = "lang"


def translation_for(headers: Mapping[str, str], query: Mapping[str, str]) -> Translation | None:
    """Of a request's headers, by lower-case names, and its query; None for English."""
    asked = str(query.get(PARAMETER, ""))[:MAX_HEADER]
    return translations().get(language_of(asked or headers.get("accept-language", "")))


def translation_of(request: Any) -> Translation | None:
    """Of a request of Gradio or Starlette; None for English, or without a request."""
    headers, query = getattr(request, "headers", None), getattr(request, "query_params", None)
    return translation_for(headers, query or {}) if headers is not None else None


def language_of(accepted: str) -> str:
    """The first language of an Accept-Language header that the page has, such as "zh"; English if there is none.

    Only the first part of a code counts: a reader of zh-HK reads the page in simplified Chinese rather than in English.
    """
    found: list[tuple[float, str]] = []
    for entry in accepted[:MAX_HEADER].split(","):
        code, *parameters = entry.strip().lower().split(";")
        language = code.strip().partition("-")[0]
        weight = _weight(parameters)
        if weight > 0 and (language == ENGLISH or language in translations()):
            found.append((weight, language))
    return max(found, key=lambda one: one[0])[1] if found else ENGLISH


def _weight(parameters: list[str]) -> float:
    """q of an entry, 1 if it has none; 0 if it is malformed."""
    for one in parameters:
        name, _, value = one.strip().partition("=")
        if name == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if math.isfinite(weight) and 0 <= weight <= 1 else 0.0
    return 1.0
