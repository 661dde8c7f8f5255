"""Low-rank adapters (Hu et al. 2021), in PEFT's key format and in kohya's, melted into a base model's weights.

A base with adapters is a model of its own in the store, so an adapter can never reach another request's pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from oms_app.errors import StudioError, one_line

Adapters = tuple[tuple[Path, float], ...]  # files, and how strongly each is applied
NAME = "lora"
DOWN = (
    ".lora_down.weight",
    ".lora_A.weight",
    ".lora.down.weight",
    "_lora.down.weight",
    ".lora_linear_layer.down.weight",
)


def fuse_loras(pipeline: Any, adapters: Sequence[tuple[Path, float]]) -> None:
    """W ← W + scale · (α/r) B A for every adapter, in the UNet and in the text encoder, in place.

    Raises StudioError where a file cannot be read, is no LoRA, or does not fit this pipeline.
    """
    for path, scale in adapters:
        tensors = read(path)
        try:
            pipeline.load_lora_weights(tensors, adapter_name=NAME)
            parts = [part for part, names in pipeline.get_list_adapters().items() if NAME in names]
            layers = [m for part in parts for m in getattr(pipeline, part).modules() if isinstance(m, BaseTunerLayer)]
            if parts:
                pipeline.fuse_lora(components=parts, lora_scale=scale)
            pipeline.unload_lora_weights()
        except (ValueError, RuntimeError, KeyError, TypeError, IndexError) as error:
            raise StudioError(
                f"the LoRA {path} does not fit this base model ({one_line(error)}): take another"
            ) from error
        asked = sum(name.endswith(DOWN) for name in tensors)
        if len(layers) != asked:  # what fits nowhere is passed over in silence by the libraries
            raise StudioError(
                f"the LoRA {path} does not fit this base model ({len(layers)} of its {asked} parts have a place "
                "there): take another"
            )


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA file. Raises StudioError for anything else, and for values that are not finite."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudioError(
            f"the LoRA {path} cannot be read as safetensors ({one_line(error)}): fetch it again"
        ) from error
    if not any("lora" in name for name in tensors):
        raise StudioError(f"{path} is no LoRA: none of its tensors is called so")
    if any(not torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise StudioError(f"the LoRA {path} holds values that are not finite: fetch it again")
    return tensors
