"""Lumen's tokenizer and text encoder: CLIP's architecture with a vocabulary of a few hundred words."""

from __future__ import annotations

import json
import string
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

MAX_LENGTH = 32  # tokens, start and end included
WIDTH = 128


def build_tokenizer(vocabulary: tuple[str, ...]) -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's format in which each word of the vocabulary is one token.

    Merges are learned from the vocabulary alone until every word is whole; letters remain, so that any text can be
    told in tokens.
    """
    letters = list(string.ascii_lowercase + string.digits + ",.-'")
    raw = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        show_progress=False,
        end_of_word_suffix="</w>",
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=letters,
    )
    raw.train_from_iterator([*vocabulary, *letters], trainer)
    model = json.loads(raw.to_str())["model"]
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=MAX_LENGTH)


def build_text_encoder(tokenizer: CLIPTokenizer, width: int = WIDTH, layers: int = 3) -> CLIPTextModel:
    """Conditions on last_hidden_state, (B, 32, width), as SD1.5 does."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=width,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def save_text_encoder(text: CLIPTextModel, folder: Path) -> None:
    """Write it in float16, to be computed in float32."""
    text.half().save_pretrained(folder)
    tidy_config(folder)


def tidy_config(folder: Path) -> None:
    """Drop where a part was loaded from, and have a text encoder computed in float32.

    transformers takes the type of its work from the config, so float16 weights would meet a float32 UNet.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    if "dtype" in config:
        config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")
