"""Prompt encoders: from text to the embeddings for a UNet or an OMS module.

A published OMS module only *names* its encoder. If it names the base's own, both share one encoder, and so one
cached embedding (same `key`).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from oms_app.models.failures import library_errors
from oms_app.models.folders import load_part, load_tokenizer
from oms_app.models.lora_formats import lora_files
from oms_app.models.reading import read_json, stamp_of

VARIATION_SELECTORS = frozenset(chr(code) for code in range(0xFE00, 0xFE10))  # select how an emoji is displayed
T5_LENGTH = 77  # tokens, as for CLIP; T5 itself supports more


@dataclass(frozen=True)
class Embedding:
    """The embedding of one text. hidden: (1, L, D). pooled: (1, P) for SDXL, else None."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.hidden.nbytes + (0 if self.pooled is None else self.pooled.nbytes)


class TextEncoder:
    """A CLIP or T5 text encoder with its tokenizer. `key` tells encoders apart in caches.

    waits: between two texts the model is in the host's memory. Embeddings are cached, so it is seldom wanted, and an
    encoder as large as half a UNet would crowd the device.
    """

    def __init__(
        self, key: str, tokenizer: Any, model: torch.nn.Module, device: torch.device, *, waits: bool = False
    ) -> None:
        self.key = key
        self.tokenizer = tokenizer
        self.model = model
        self.device = device
        self.waits = waits

    @property
    def max_tokens(self) -> int:
        return int(self.tokenizer.model_max_length)

    @torch.no_grad()
    def run(self, texts: Sequence[str], **settings: Any) -> Any:
        """The model's own output for texts padded to L = max_tokens."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt"
        )
        masked = isinstance(self.model, T5EncoderModel) or getattr(self.model.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if masked else None
        with self.at_hand(), library_errors("the text encoder cannot read the prompt", "restore its config.json"):
            return self.model(tokens.input_ids.to(self.device), attention_mask=mask, **settings)

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Inside, a model that waits in main memory is on its device."""
        waiting = self.waits and next(self.model.parameters()).device.type != self.device.type
        if waiting:
            self.model.to(self.device)
        try:
            yield
        finally:
            if waiting:
                self.model.to("cpu")

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, L, D): the last hidden state, as in StableDiffusionPipeline.encode_prompt."""
        hidden: torch.Tensor = self.run(texts)[0]
        return hidden

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text in a pass of its own, as in the stock pipelines: in half precision a batch rounds differently."""
        with self.at_hand():
            return [Embedding(self.encode([text])) for text in texts]

    def beyond(self, text: str) -> str:
        """The end of the text that does not fit into max_tokens, "" if all of it fits."""
        tokens = self.tokenizer(text, truncation=False, verbose=False, return_offsets_mapping=True)
        if len(tokens.input_ids) <= self.max_tokens:
            return ""
        start, _ = tokens.offset_mapping[self.max_tokens - 1]  # the last position is the end-of-text token
        return text[start:].strip()


class SdxlTextEncoder(TextEncoder):
    """SDXL's two encoders: the penultimate hidden states of both side by side, and the second one's pooled output.

    zero_empty: the empty text is all zeros, as in the stock pipeline for an absent negative prompt.
    """

    def __init__(self, key: str, first: TextEncoder, second: TextEncoder, *, zero_empty: bool) -> None:
        super().__init__(key, first.tokenizer, first.model, first.device, waits=first.waits)
        self.first, self.second = first, second
        self.zero_empty = zero_empty

    def for_modules(self) -> SdxlTextEncoder:
        """The same networks for an OMS module: the empty text is encoded like any other, and cached separately."""
        return SdxlTextEncoder(f"{self.key}, for modules", self.first, self.second, zero_empty=False)

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        with self.first.at_hand(), self.second.at_hand():
            return [self._embed(text) for text in texts]

    def _embed(self, text: str) -> Embedding:
        outputs = [encoder.run([text], output_hidden_states=True) for encoder in (self.first, self.second)]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled: torch.Tensor = outputs[-1][0]  # of the last encoder, which has a projection
        keep = 0.0 if self.zero_empty and not text else 1.0
        return Embedding(hidden * keep, pooled * keep)

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, L, D1 + D2)."""
        return torch.cat([embedding.hidden for embedding in self.embed(texts)])


def load_encoder(folder: Path, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """The encoder of a pipeline folder, text_encoder/ and tokenizer/, or of a module's, the same with its kind before;
    or one in a folder by itself, as T5's are.

    A config of the type t5 gives T5's encoder, every other one CLIP's; if the folder is SDXL's, both of its
    encoders, as a module reads them. safetensors only, nothing from the network. Raises StudioError if a part cannot
    be read.
    """
    prefix = next((p for p in ("oms_", "singdiffusion_") if (folder / f"{p}text_encoder").is_dir()), "")
    alone = (folder / "config.json").is_file() and not (folder / f"{prefix}text_encoder").is_dir()
    part, words = (folder, folder) if alone else (folder / f"{prefix}text_encoder", folder / f"{prefix}tokenizer")
    key = encoder_key(folder)
    with library_errors(f"the text encoder at {folder} cannot be read", "restore it"):
        first = _load_encoder(key, part, words, CLIPTextModel, device, dtype)
        if prefix or alone or not (folder / "text_encoder_2").is_dir():
            return first
        part, words = folder / "text_encoder_2", folder / "tokenizer_2"
        second = _load_encoder(key, part, words, CLIPTextModelWithProjection, device, dtype)
    return SdxlTextEncoder(key, first, second, zero_empty=False).for_modules()


def encoder_key(source: Path, adapters: Sequence[tuple[Path, float]] = ()) -> str:
    """The cache key of the text encoder in a folder or file: it identifies the files that it is read from."""
    stamp = stamp_of(source, *(file for path, _ in adapters for file in lora_files(path)))
    return f"{source} {tuple(adapters)} {hashlib.sha256(repr(stamp).encode()).hexdigest()[:16]}"


def _load_encoder(
    key: str, part: Path, words: Path, network: Any, device: torch.device, dtype: torch.dtype
) -> TextEncoder:
    t5 = read_json(part / "config.json").get("model_type") == "t5"
    model = load_part(T5EncoderModel if t5 else network, part, dtype)
    tokenizer = load_tokenizer(words, model.config, T5Tokenizer if t5 else CLIPTokenizer)
    if t5:
        tokenizer.model_max_length = min(tokenizer.model_max_length, T5_LENGTH)
    return TextEncoder(key, tokenizer, model.eval(), device, waits=device.type != "cpu")


def unknown_words(vocabulary: frozenset[str], *texts: str) -> tuple[str, ...]:
    """Words of the texts that are not in the vocabulary, each once, in order. An empty vocabulary has every word."""
    if not vocabulary:
        return ()
    words = [word for text in texts for word in _words(text)]
    return tuple(dict.fromkeys(word for word in words if word not in vocabulary))


def _words(text: str) -> list[str]:
    """Runs of letters and their marks, of any script, in lower case; emoji and other symbols singly."""
    found, word = [], ""
    for letter in [*unicodedata.normalize("NFC", text.lower()), " "]:
        kind = unicodedata.category(letter)
        if kind[0] in "LM" and letter not in VARIATION_SELECTORS:
            word += letter
            continue
        found += [word] if word else []
        found += [letter] if kind == "So" else []
        word = ""
    return found
