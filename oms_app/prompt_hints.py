"""Hints on a prompt while it is written: known words near unknown ones, a light from a side, unread syntax."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType

# Words that people write of light and colour, parts of words in Chinese, and what a small vocabulary has for them.
MEANINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "warm": ("sunset", "golden", "orange"), "cool": ("blue", "teal"), "cold": ("blue", "winter"),
        "shadow": ("shadows",), "glow": ("glowing", "luminous"), "darker": ("dark", "night"),
        "brighter": ("bright", "sunny"), "lighter": ("light", "pale"), "moonless": ("dark", "midnight"),
        "neon": ("glowing", "pink", "purple"), "sunlight": ("sunny", "daylight"), "moon": ("moonlit", "moonlight"),
        "ocean": ("sea",), "village": ("houses", "cottage"), "river": ("water", "lake"), "夜": ("night",),
        "晚": ("evening",), "日落": ("sunset",), "日出": ("sunrise",), "黑": ("black", "dark"), "白": ("white",),
        "山": ("mountains",), "海": ("sea",), "湖": ("lake",), "雪": ("snow",), "森林": ("forest",), "树": ("tree",),
        "城": ("city",), "房": ("house",), "花": ("flower",), "雾": ("fog",), "月": ("moonlit",), "太阳": ("sun",),
        "红": ("red",), "蓝": ("blue",), "绿": ("green",), "黄": ("yellow",),
    }
)  # fmt: skip
MOST = 4  # words that are offered for one
SIDES: Mapping[str, str] = MappingProxyType({"above": "top", "below": "bottom"})  # other names of light.SIDES
_LIGHT_FROM = re.compile(
    r"(?:with\s+)?\b(?:sun|moon|side|back)?(?:light(?:ing)?|lit|illuminated)\s+(?:coming\s+)?from\s+(?:the\s+)?"
    r"(left|right|top|bottom|above|below)(?:\s+side)?\b",
    re.IGNORECASE,
)
# Syntax of A1111, without the words that it is about, and what to do instead.
_LORA = (re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>"), "<lora:…> is not read: choose LoRAs in Picture settings")
_WEIGHT = (re.compile(r":\s*\d+(?:\.\d+)?(?=\s*\))"), "weights such as (word:1.3) are not read: the word counts once")
_BRACKETS = (
    re.compile(r"\({2,}|\){2,}|[\[\]]"),
    "brackets such as ((word)) and [word] are not read: the word counts once",
)
_CHOICES = (re.compile(r"[{}|]|\b__\w+__\b"), "choices such as {a|b} are not read: write one prompt")
_JOINED = (re.compile(r"\b(?:BREAK|AND)\b"), "BREAK and AND are not read: write one prompt")
_SYNTAX = (_LORA, _WEIGHT, _BRACKETS, _CHOICES, _JOINED)


def nearest(word: str, vocabulary: frozenset[str]) -> tuple[str, ...]:
    """Known words for an unknown one: by meaning, then by spelling."""
    by_meaning = [known for key, words in MEANINGS.items() for known in words if _means(word, key)]
    by_spelling = difflib.get_close_matches(word, sorted(vocabulary), MOST, cutoff=0.72)
    return tuple(dict.fromkeys(one for one in (*by_meaning, *by_spelling) if one in vocabulary))[:MOST]


def light_wish(text: str) -> tuple[str, str] | None:
    """The words that ask for a light from a side, such as "light from the left", and the side (light.SIDES)."""
    found = _LIGHT_FROM.search(text)
    if found is None:
        return None
    side = found[1].lower()
    return found[0], SIDES.get(side, side)


def unread_syntax(text: str) -> tuple[str, ...]:
    """What is not read in the text, each with what to do instead."""
    return tuple(said for pattern, said in _SYNTAX if pattern.search(text))


def without_syntax(text: str) -> str:
    """The text without what `unread_syntax` names."""
    for pattern, _ in _SYNTAX:
        text = pattern.sub(" ", text)
    return text


def replaced(text: str, words: str, by: str) -> str:
    """The text with other words in place of some, wherever they stand whole; "" leaves them out, with their comma."""
    found = re.sub(rf"(?<!\w){re.escape(words)}(?!\w)", by, text, flags=re.IGNORECASE)
    return re.sub(r"\s*,(?:\s*,)+", ",", re.sub(r"\s{2,}", " ", found)).strip(" ,") if not by else found


def _means(word: str, key: str) -> bool:
    return word == key if key.isascii() else key in word
