"""Prompt encoders: text to the embeddings that a UNet or an OMS module reads.

A published OMS module only *names* its encoder. Where it names the base's own, both share one encoder, and so one
cached embedding (same `key`).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from oms_app.errors import StudioError, one_line

CLIP_TOKENS = 49_408
T5_LENGTH = 77  # tokens, as many as CLIP reads; T5 itself would read more, and a module as many more rows


@dataclass(frozen=True)
class Embedding:
    """One text as a model reads it. hidden: (1, L, D). pooled: (1, P) for SDXL, else None."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.hidden.nbytes + (0 if self.pooled is None else self.pooled.nbytes)


class TextEncoder:
    """A CLIP or T5 text encoder with its tokenizer. `key` tells encoders apart in caches.

    waits: between two texts the model lies in the host's memory. Embeddings are cached, so it is seldom wanted, and an
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
        if self.waits:
            self.model.to(self.device)
        try:
            return self.model(tokens.input_ids.to(self.device), attention_mask=mask, **settings)
        finally:
            if self.waits:
                self.model.to("cpu")

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, L, D): the last hidden state, as in StableDiffusionPipeline.encode_prompt."""
        hidden: torch.Tensor = self.run(texts)[0]
        return hidden

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text by itself, for a base model's prompt."""
        return [Embedding(hidden.clone()) for hidden in self.encode(texts).split(1)]

    def beyond(self, text: str) -> str:
        """The end of the text that does not fit into max_tokens, "" where all of it fits."""
        ids = self.tokenizer(text, truncation=False, verbose=False).input_ids
        if len(ids) <= self.max_tokens:
            return ""
        return str(self.tokenizer.decode(ids[self.max_tokens - 1 : -1])).strip()


class SdxlTextEncoder(TextEncoder):
    """SDXL's two encoders: the penultimate hidden states of both side by side, and the second one's pooled output.

    zero_empty: the empty text is all zeros, as the stock pipeline has it for an absent negative prompt.
    """

    def __init__(self, key: str, first: TextEncoder, second: TextEncoder, *, zero_empty: bool) -> None:
        super().__init__(key, first.tokenizer, first.model, first.device, waits=first.waits)
        self.first, self.second = first, second
        self.zero_empty = zero_empty

    def for_modules(self) -> SdxlTextEncoder:
        """The same networks as an OMS module reads them: the empty text is a text like others, and cached apart."""
        return SdxlTextEncoder(f"{self.key}, for modules", self.first, self.second, zero_empty=False)

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        outputs = [encoder.run(texts, output_hidden_states=True) for encoder in (self.first, self.second)]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled: torch.Tensor = outputs[-1][0]  # of the last encoder, which has a projection
        made = []
        for text, h, p in zip(texts, hidden.split(1), pooled.split(1), strict=True):
            keep = 0.0 if self.zero_empty and not text else 1.0
            made.append(Embedding(h * keep, p * keep))
        return made

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, L, D1 + D2)."""
        return torch.cat([embedding.hidden for embedding in self.embed(texts)])


def load_encoder(folder: Path, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """The encoder of a pipeline folder, text_encoder/ and tokenizer/, or of a module's, the same with its kind before;
    or one that lies in a folder by itself, as T5's do.

    A config of the type t5 gives T5's encoder, every other one CLIP's; where the folder is SDXL's, both of its
    encoders, as a module reads them. safetensors only, nothing from the network. Raises StudioError where a part cannot
    be read.
    """
    prefix = next((p for p in ("oms_", "singdiffusion_") if (folder / f"{p}text_encoder").is_dir()), "")
    alone = (folder / "config.json").is_file() and not (folder / f"{prefix}text_encoder").is_dir()
    part, words = (folder, folder) if alone else (folder / f"{prefix}text_encoder", folder / f"{prefix}tokenizer")
    try:
        first = _load_part(str(folder), part, words, CLIPTextModel, device, dtype)
        if prefix or alone or not (folder / "text_encoder_2").is_dir():
            return first
        part, words = folder / "text_encoder_2", folder / "tokenizer_2"
        second = _load_part(str(folder), part, words, CLIPTextModelWithProjection, device, dtype)
    except (OSError, ValueError, AttributeError) as error:
        raise StudioError(f"the text encoder at {folder} cannot be read ({one_line(error)}): restore it") from error
    return SdxlTextEncoder(str(folder), first, second, zero_empty=False).for_modules()


def _load_part(
    key: str, part: Path, words: Path, network: Any, device: torch.device, dtype: torch.dtype
) -> TextEncoder:
    t5 = json.loads((part / "config.json").read_text(encoding="utf-8")).get("model_type") == "t5"
    tokenizer = (T5Tokenizer if t5 else CLIPTokenizer).from_pretrained(words, local_files_only=True)
    half = (part / "model.fp16.safetensors").is_file() and not (part / "model.safetensors").is_file()
    model = (T5EncoderModel if t5 else network).from_pretrained(
        part, local_files_only=True, use_safetensors=True, dtype=dtype, variant="fp16" if half else None
    )
    if t5:
        tokenizer.model_max_length = min(tokenizer.model_max_length, T5_LENGTH)
    return TextEncoder(key, tokenizer, model.eval(), device, waits=device.type != "cpu")


def clip_tokenizer(*, zero_padded: bool = False) -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer of 49,408 tokens, from the merges that open_clip ships.

    zero_padded: fills a prompt up with id 0, as OpenCLIP does, rather than with the end of text. That id is the letter
    "!" too; named as the padding, it would be cut out of every text, so the padding has a name of its own.
    """
    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().splitlines()[1 : CLIP_TOKENS - 2 * 256 - 2 + 1]]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    if zero_padded:
        vocab["<|padding|>"] = 0
    padding = "<|padding|>" if zero_padded else "<|endoftext|>"
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=padding, model_max_length=77)


def unknown_words(vocabulary: frozenset[str], *texts: str) -> tuple[str, ...]:
    """Words of the texts that the vocabulary lacks, each once, in order. An empty vocabulary knows every word."""
    if not vocabulary:
        return ()
    words = [word for text in texts for word in re.findall(r"[a-z]+", text.lower())]
    return tuple(dict.fromkeys(word for word in words if word not in vocabulary))
