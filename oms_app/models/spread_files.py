"""Reads and writes the spread head beside an OMS module in the published layout: the folder oms_spread.

config.json has the sizes of `SpreadConfig`, model.safetensors the weights in float16. Both are untrusted input.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save

from oms_app.errors import StudioError
from oms_app.models.catalog import SPREAD_FOLDER
from oms_app.models.reading import read_header, read_json
from oms_app.models.tensor_files import read_tensors
from oms_app.paths import atomic_write
from oms_app.prestep.spread import SpreadConfig, SpreadHead

REMEDY = "restore it, or train it again with train oms --spread"


class _Config(BaseModel):
    """SpreadConfig within bounds. Its largest head has 60 million values."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text_width: Annotated[int, Field(ge=1, le=8192)]
    channels: Annotated[int, Field(ge=1, le=64)]
    modes: Annotated[int, Field(ge=1, le=4)]
    components: Annotated[int, Field(ge=1, le=16)]
    width: Annotated[int, Field(ge=1, le=1024)]
    temperature: Annotated[float, Field(gt=0, le=4, allow_inf_nan=False)]


def write(module: Path, head: SpreadHead) -> None:
    """Writes a head into the folder of its OMS module, in place of an earlier one. Raises OSError."""
    tensors = {name: value.detach().half().contiguous().cpu() for name, value in head.state_dict().items()}
    atomic_write(module / SPREAD_FOLDER / "model.safetensors", save(tensors))
    atomic_write(module / SPREAD_FOLDER / "config.json", json.dumps(asdict(head.config), indent=2) + "\n")


def read(module: Path, *, text_width: int, channels: int) -> SpreadHead | None:
    """The head of the OMS module in a folder, in float32 on the CPU; None if it has none.

    text_width, channels: the module's own. Raises StudioError if the head is not valid, or of another module's sizes.
    """
    folder = module / SPREAD_FOLDER
    if not folder.is_dir():
        return None
    try:
        config = SpreadConfig(**_Config.model_validate(read_json(folder / "config.json")).model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise StudioError(f"{folder}/config.json is not valid ({name}: {first['msg']}): {REMEDY}") from error
    if (config.text_width, config.channels) != (text_width, channels):
        raise StudioError(
            f"{folder} is of a module with {config.channels} latent channels and texts of width {config.text_width}, "
            f"not {channels} and {text_width}: {REMEDY}"
        )
    path = folder / "model.safetensors"
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in SpreadHead(config).state_dict().items()}
    if {name: one.shape for name, one in read_header(path).tensors.items()} != wanted:
        raise StudioError(f"{path} contains other tensors than its config.json says: {REMEDY}")
    tensors = read_tensors([path], torch.float32)
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise StudioError(f"{path}: {name} contains values that are not finite; {REMEDY}")
    head = SpreadHead(config)
    head.load_state_dict(tensors)
    return head.eval().requires_grad_(False)
