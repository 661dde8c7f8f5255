"""Tokenizers as they are found, and the words of a prompt that are unknown or beyond its end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oms_app import StudioError
from oms_app.models.text import TextEncoder, unknown_words
from oms_app.models.tokenizers import clip_tokenizer, whole_tokenizer


def test_the_exclamation_mark_is_one_token_from_every_source(tmp_path: Path) -> None:
    """SD 2.x and SDXL name "!" as the padding of their tokenizers, and would cut it out of every text."""
    named = clip_tokenizer()
    named.add_special_tokens({"pad_token": "!"})
    named.save_pretrained(tmp_path)
    read = whole_tokenizer(type(named).from_pretrained(tmp_path), 49_408, "here")
    ours = clip_tokenizer(zero_padded=True)
    for text in ("wow!", "a ! b", "!!! night", "plain"):
        got = read(text, padding="max_length", max_length=77).input_ids
        assert got == ours(text, padding="max_length", max_length=77).input_ids
        assert got[-1] == 0
    assert 256 in read("wow!").input_ids


def test_added_tokens_keep_their_ids_where_the_exclamation_mark_is_the_padding(tmp_path: Path) -> None:
    """Textual inversion adds tokens, which would be spelled out letter by letter."""
    named = clip_tokenizer()
    named.add_special_tokens({"pad_token": "!"})
    named.add_tokens(["<my-cat>", "<my-cat>_1"])
    named.save_pretrained(tmp_path)
    read = whole_tokenizer(type(named).from_pretrained(tmp_path), 49_410, "here")
    assert read("a <my-cat> <my-cat>_1!", add_special_tokens=False).input_ids[1:3] == [49_408, 49_409]
    assert read("wow!").input_ids == clip_tokenizer(zero_padded=True)("wow!").input_ids


def test_more_tokens_than_the_encoder_has_are_refused(tmp_path: Path) -> None:
    named = clip_tokenizer()
    named.add_tokens(["<my-cat>"])
    with pytest.raises(StudioError, match=r"tokens up to the id 49,408, but its text encoder only 49,408"):
        whole_tokenizer(named, 49_408, "here")


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("黑色背景", ("黑色背景",)),
        ("ночь solid", ("ночь",)),
        ("café solid, don't", ("café", "don", "t")),
        ("cafe\u0301", ("café",)),
        ("🌙 solid ☀️ 3 × 4!", ("🌙", "☀")),
        ("हिन्दी", ("हिन्दी",)),
    ],
)
def test_words_of_any_script_are_looked_up(text: str, unknown: tuple[str, ...]) -> None:
    assert unknown_words(frozenset({"solid"}), text) == unknown
    assert unknown_words(frozenset(), text) == ()


def test_what_did_not_fit_is_quoted_as_typed() -> None:
    encoder = TextEncoder("x", clip_tokenizer(), torch.nn.Linear(1, 1), torch.device("cpu"))
    assert encoder.beyond("a " * 74 + "Big END, 黑 🌙") == "END, 黑 🌙"
    assert encoder.beyond("a short one") == ""
