"""CLIP's tokenizer: built from its published merges, or read from a folder and checked for completeness."""

from __future__ import annotations

import gzip
import json
from re import fullmatch
from typing import Any

from transformers import CLIPTokenizer

from oms_app.errors import StudioError

CLIP_TOKENS = 49_408
PADDING = "<|padding|>"
SAMPLES = 64  # words of the vocabulary that are tested
T5_SPARE = 128  # T5's embedding is rounded up to a multiple of it


def clip_tokenizer(*, zero_padded: bool = False) -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer of 49,408 tokens, from the merges that open_clip ships.

    zero_padded: pads a prompt with id 0, as OpenCLIP does, rather than with the end-of-text token. That id is also the
    letter "!"; as the padding token, it would be removed from every text, so the padding has its own name.
    """
    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().splitlines()[1 : CLIP_TOKENS - 2 * 256 - 2 + 1]]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return _built(vocab, merges, 77, vocab["!"] if zero_padded else None)


def whole_tokenizer(tokenizer: Any, tokens: int, where: str, positions: int | None = None) -> Any:
    """The tokenizer, if it is whole. If "!" is its padding, one that reads "!" as a letter, as in training.

    tokens: of its text encoder's vocabulary. positions: the longest text that the encoder reads, in tokens; the
    tokenizer's own limit is lowered to it. Raises StudioError for a tokenizer without its vocabulary or merges, because
    transformers would build an empty one from the rest, and all prompts would be equal; and for one with ids that the
    encoder has no embedding for.
    """
    if positions is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= tokens:
        raise StudioError(
            f"{where} has tokens up to the id {highest:,}, but its text encoder only {tokens:,}: "
            "take both from one model"
        )
    t5 = type(tokenizer).__name__.startswith("T5")
    if len(tokenizer) < tokens - (T5_SPARE if t5 else 0):
        raise StudioError(
            f"{where} is incomplete: it has {len(tokenizer):,} tokens, its text encoder {tokens:,}; restore its files"
        )
    marked = r"▁([A-Za-z]+)" if t5 else r"([A-Za-z]+)</w>"  # how tokens are written that are whole words
    whole = sorted(
        (found[1], ids) for token, ids in tokenizer.get_vocab().items() if (found := fullmatch(marked, token))
    )
    sample = whole[:: max(1, len(whole) // SAMPLES)]
    read = tokenizer([word for word, _ in sample], add_special_tokens=False).input_ids if sample else []
    if sample and sum(ids == [wanted] for ids, (_, wanted) in zip(read, sample, strict=True)) < 0.9 * len(sample):
        raise StudioError(f"{where} is incomplete: it splits known words, so merges are missing; restore its files")
    return _read_as_a_letter(tokenizer) if not t5 and tokenizer.pad_token == "!" else tokenizer


def _read_as_a_letter(tokenizer: Any) -> CLIPTokenizer:
    """The same with a padding token of its own, so that "!" is not cut out of texts. Added tokens keep their ids."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    built = _built(tokenizer.get_vocab(), merges, tokenizer.model_max_length, model["vocab"]["!"])
    added = [token for token in tokenizer.added_tokens_decoder.values() if str(token) not in model["vocab"]]
    built.add_tokens(added)  # they are in the vocabulary: they take their ids from it, and are no longer split
    return built


def _built(vocab: dict[str, int], merges: list[Any], length: int, padding: int | None) -> CLIPTokenizer:
    if padding is None:
        return CLIPTokenizer(vocab=vocab, merges=merges, pad_token="<|endoftext|>", model_max_length=length)
    return CLIPTokenizer(vocab=vocab | {PADDING: padding}, merges=merges, pad_token=PADDING, model_max_length=length)
