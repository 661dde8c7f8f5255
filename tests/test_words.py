"""Hints on words: known words near unknown ones, wishes for a light, syntax that is not read; and in a real browser."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, PROMPT, browser, tab

from oms_app import GenerateRequest, Studio, prompt_hints
from oms_app.models.text import unknown_words
from oms_app.paths import EMBEDDED_FOLDER
from oms_app.ui import vocabulary

__all__ = ["browser", "tab"]  # fixtures of this module too
VOCABULARY = frozenset(json.loads((EMBEDDED_FOLDER / "vocabulary.json").read_text(encoding="utf-8"))["words"])


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("warm", "sunset"),
        ("mountian", "mountain"),
        ("moonless", "dark"),
        ("夜晚的山", "mountains"),
        ("shadow", "shadows"),
    ],
)
def test_a_known_word_is_near(word: str, known: str) -> None:
    assert known in prompt_hints.nearest(word, VOCABULARY)


def test_only_known_words_are_offered() -> None:
    for word in (*prompt_hints.MEANINGS, "wombat", "café", "🐈"):
        assert set(prompt_hints.nearest(word, VOCABULARY)) <= VOCABULARY
    for word in prompt_hints.MEANINGS:
        assert word in VOCABULARY or prompt_hints.nearest(word, VOCABULARY), word


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("hills, light from the left", ("light from the left", "left")),
        ("a sea lit from above", ("lit from above", "top")),
        ("Sunlight coming from the right side", ("Sunlight coming from the right side", "right")),
        ("a road from the left", None),
        ("a light house", None),
    ],
)
def test_a_light_from_a_side_is_understood(text: str, wish: tuple[str, str] | None) -> None:
    assert prompt_hints.light_wish(text) == wish


def test_syntax_that_is_not_read_is_named() -> None:
    prompt = "(hills:1.3) BREAK sea, ((snow)), [fog], {sun|moonlit} __kind__ <lora:foo:0.7>"
    said = prompt_hints.unread_syntax(prompt)
    assert [one.split()[0] for one in said] == ["<lora:…>", "weights", "brackets", "choices", "BREAK"]
    assert prompt_hints.unread_syntax("hills (with snow), at 10:30, and the sea") == ()
    left = prompt_hints.without_syntax(prompt)
    assert unknown_words(VOCABULARY, left) == () and {"hills", "sea", "snow", "fog", "sun"} <= set(
        re.findall(r"\w+", left)
    )


def test_a_result_names_the_syntax_that_was_not_read(studio: Studio) -> None:
    request = GenerateRequest(prompt="(night:1.3) <lora:a:1>", seed=1, num_inference_steps=1)
    notes = studio.generate(request).notes
    assert any("<lora:…> is not read" in note for note in notes) and any("(word:1.3)" in note for note in notes)
    assert not any("does not know" in note for note in notes), notes


def test_words_are_replaced_whole_and_left_out_with_their_comma() -> None:
    assert prompt_hints.replaced("Warm hills, warmer", "warm", "sunset") == "sunset hills, warmer"
    assert prompt_hints.replaced("hills, light from the left, snow", "light from the left", "") == "hills, snow"


@pytest.mark.browser
def test_unknown_words_are_listed_while_typing_and_a_click_takes_a_known_one(tab: Page) -> None:
    words, prompt = tab.locator("#words"), tab.locator(PROMPT)
    placeholder = prompt.get_attribute("placeholder")
    assert placeholder and unknown_words(VOCABULARY, placeholder.removeprefix("such as: ")) == ()
    prompt.fill("sunlight mountains")
    expect(words).to_contain_text("does not know sunlight", timeout=PATIENCE)
    words.get_by_role("button", name="sunny").click()
    expect(prompt).to_have_value("sunny mountains")
    expect(words.get_by_role("button")).to_have_count(0)
    prompt.fill("夜晚的山")
    expect(words).to_contain_text("夜晚的山")
    expect(words.get_by_role("button", name="night")).to_be_visible()
    prompt.fill("hills, light from the left")
    words.get_by_role("button", name="set the light to left").click()
    expect(prompt).to_have_value("hills")
    known, oms_prompt = tab.locator("#vocabulary"), tab.locator("#oms-prompt").get_by_role("textbox")
    known.get_by_text("Known words").click()
    known.get_by_role("button", name="snow", exact=True).click()
    expect(prompt).to_have_value("hills snow")
    expect(tab.locator("#words li")).to_have_count(0)
    oms_prompt.fill("dark")
    known.get_by_role("button", name="blue", exact=True).click()
    expect(oms_prompt).to_have_value("dark blue")
    known.get_by_role("button", name="turquoise", exact=True).click(trial=True)  # nothing lies over it
    shown = set(known.get_by_role("button").all_inner_texts())
    assert shown == VOCABULARY - vocabulary.GROUPS["little"], "all but the little words"
    expect(tab.locator("#light-pad").get_by_label("Left")).to_be_checked()
    prompt.fill("(hills:1.3)")
    expect(words).to_contain_text("are not read")
