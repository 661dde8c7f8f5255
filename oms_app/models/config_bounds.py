"""Bounds of the numbers in a model's config, checked before anything is built from it.

An absurd number of layers or of words keeps the only engine thread busy for ever, and a zero ends in an error far away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oms_app.errors import StudioError

# Lowest and highest value by name; lists are bounded item by item. The largest published models have half of these.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "addition_embed_type_num_heads": (1, 1024),
    "addition_time_embed_dim": (1, 8192),
    "attention_head_dim": (1, 8192),
    "beta_end": (0, 1),
    "beta_start": (0, 1),
    "block_out_channels": (1, 16_384),
    "cross_attention_dim": (1, 32_768),
    "d_ff": (1, 131_072),
    "d_kv": (1, 4096),
    "d_model": (1, 32_768),
    "hidden_size": (1, 32_768),
    "in_channels": (1, 1024),
    "intermediate_size": (1, 131_072),
    "latent_channels": (1, 1024),
    "layers_per_block": (0, 32),
    "max_position_embeddings": (1, 65_536),
    "mid_block_layers": (0, 32),
    "norm_num_groups": (1, 1024),
    "num_attention_heads": (1, 1024),
    "num_class_embeds": (1, 100_000),
    "num_heads": (1, 1024),
    "num_hidden_layers": (1, 256),
    "num_layers": (1, 256),
    "num_train_timesteps": (1, 100_000),
    "out_channels": (1, 1024),
    "projection_class_embeddings_input_dim": (1, 131_072),
    "projection_dim": (0, 32_768),
    "reverse_transformer_layers_per_block": (0, 128),
    "sample_size": (1, 16_384),
    "scaling_factor": (1e-6, 1e6),
    "time_cond_proj_dim": (1, 32_768),
    "time_embedding_dim": (1, 65_536),
    "transformer_layers_per_block": (0, 128),
    "vocab_size": (1, 2_000_000),
}
MAX_ITEMS = 64  # of a list that is no list of betas
MAX_BETAS = 100_000
MAX_DEPTH = 8
MAX_SPARE_TOKENS = 10_000  # T5 has 100


def check_config(config: Mapping[str, Any], name: str) -> None:
    """name: what has the config, for the message. Raises StudioError, in one line, for a number out of bounds."""
    for key, value in _numbers(config, "", 0, name):
        low, high = BOUNDS.get(key, (-(2**53), 2**53))
        if isinstance(value, str):
            if key in BOUNDS:
                raise StudioError(f"{name}: {key} is {value[:40]!r}, not a number: restore its config.json")
        elif not (math.isfinite(value) and low <= value <= high):
            shown = f"{value:g}" if isinstance(value, float) else f"{value:,}" if abs(value) < 2**63 else "enormous"
            raise StudioError(f"{name}: {key} is {shown}: take {low:g} to {high:g}, or restore its config.json")


def check_part(part: Path) -> None:
    """The config of a folder's part, if it has one that can be read; else loading says what is wrong with it."""
    from oms_app.models.reading import read_json

    for file in (part / "config.json", part / "scheduler_config.json"):
        if file.is_file():
            check_config(read_json(file), str(part))


def check_tokenizer(part: Path) -> None:
    """Raises StudioError for a tokenizer's file that is too large, and for a number of T5's spare tokens (extra_ids)
    that no T5 has: transformers would make them all. Its other numbers are not read."""
    from oms_app.models.reading import MAX_TEXT, read_json

    for name in ("tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "added_tokens.json"):
        if (part / name).is_file() and (part / name).stat().st_size > MAX_TEXT:
            raise StudioError(f"{part / name} is larger than {MAX_TEXT:,} bytes: restore it")
    if (file := part / "tokenizer_config.json").is_file():
        spare = read_json(file).get("extra_ids", 0)
        if not isinstance(spare, int) or not 0 <= spare <= MAX_SPARE_TOKENS:
            raise StudioError(
                f"{file}: extra_ids is {str(spare)[:40]}: take 0 to {MAX_SPARE_TOKENS:,}, or restore the file"
            )


def _numbers(value: Any, key: str, depth: int, name: str) -> Iterator[tuple[str, Any]]:
    """Every number in a config under its name; texts too, since one may stand in a number's place."""
    if depth > MAX_DEPTH:
        raise StudioError(f"{name}: {key} is nested more than {MAX_DEPTH} deep: restore its config.json")
    if isinstance(value, Mapping):
        for inner, one in value.items():
            yield from _numbers(one, str(inner), depth + 1, name)
    elif isinstance(value, list | tuple):
        limit = MAX_BETAS if key == "trained_betas" else MAX_ITEMS
        if len(value) > limit and not all(isinstance(one, str) for one in value):
            raise StudioError(f"{name}: {key} has {len(value):,} items: take at most {limit:,}")
        if len(value) > MAX_ITEMS and key.endswith("_block_types"):
            raise StudioError(f"{name}: {key} has {len(value):,} items: take at most {MAX_ITEMS:,}")
        for one in value:
            if key == "trained_betas" and not (isinstance(one, int | float) and 0 <= one <= 1):
                raise StudioError(f"{name}: trained_betas has {str(one)[:40]!r}: they are numbers from 0 to 1")
            yield from _numbers(one, key, depth + 1, name)
    elif isinstance(value, int | float | str) and not isinstance(value, bool):
        yield key, value
