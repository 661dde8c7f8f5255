"""Prompt encoders: text to the embeddings that a UNet or an OMS module reads.

A published OMS module only *names* its encoder. Where it names the base's own, both share one encoder, and so one
cached embedding (same `key`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from oms_app.requests import StudioError


class TextEncoder:
    """A CLIP text encoder with its tokenizer. `key` tells encoders apart in caches."""

    def __init__(self, key: str, tokenizer: Any, model: torch.nn.Module, device: torch.device) -> None:
        self.key = key
        self.tokenizer = tokenizer
        self.model = model
        self.device = device

    @property
    def max_tokens(self) -> int:
        return int(self.tokenizer.model_max_length)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, L, D): the last hidden state, padded to L = max_tokens, as in StableDiffusionPipeline.encode_prompt."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt"
        )
        mask = tokens.attention_mask if getattr(self.model.config, "use_attention_mask", False) else None
        return self.model(tokens.input_ids.to(self.device), attention_mask=mask)[0]

    def beyond(self, text: str) -> str:
        """The end of the text that does not fit into max_tokens, "" where all of it fits."""
        ids = self.tokenizer(text, truncation=False, verbose=False).input_ids
        if len(ids) <= self.max_tokens:
            return ""
        return str(self.tokenizer.decode(ids[self.max_tokens - 1 : -1])).strip()


def load_encoder(folder: Path, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """The encoder of a pipeline folder, text_encoder/ and tokenizer/, or of an OMS module's, the same with oms_ before.

    safetensors only, nothing from the network. Raises StudioError where a part cannot be read.
    """
    prefix = "oms_" if (folder / "oms_text_encoder").is_dir() else ""
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / f"{prefix}tokenizer", local_files_only=True)
        model = CLIPTextModel.from_pretrained(
            folder / f"{prefix}text_encoder", local_files_only=True, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StudioError(f"the text encoder at {folder} cannot be read ({reason}): restore it") from error
    return TextEncoder(str(folder), tokenizer, model.to(device).eval(), device)


def unknown_words(vocabulary: frozenset[str], *texts: str) -> tuple[str, ...]:
    """Words of the texts that the vocabulary lacks, each once, in order. An empty vocabulary knows every word."""
    if not vocabulary:
        return ()
    words = [word for text in texts for word in re.findall(r"[a-z]+", text.lower())]
    return tuple(dict.fromkeys(word for word in words if word not in vocabulary))
