"""The UNet of the second generation, kept in 8 bits: `python -m dev.lumen2_unet FOLDER` writes dev/lumen2 with it.

    python -m dev.lumen2_unet WORK/start
    nice -n 19 python -m oms_app train lumen --stage unet --from WORK/start --out WORK/lumen --minutes 150

It is a checkpoint to go on from, not weights to ship: float16 would pass the limit of 52 MiB for tracked files. Each
output of a weight has one scale, so the values are off by 0.4 % of the output's largest.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

KEPT = Path(__file__).with_name("lumen2")
PACKED = KEPT / "unet.int8.safetensors"
SCALE = "::scale"


def pack(unet: Path, packed: Path = PACKED) -> None:
    """Writes the weights of a diffusers folder as int8 with a scale for each output, vectors as float16."""
    model = UNet2DConditionModel.from_pretrained(unet)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in model.state_dict().items():
        if weight.ndim < 2:
            tensors[name] = weight.half()
            continue
        scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
        tensors[name + SCALE] = scale
        tensors[name] = (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8)
    save_file(tensors, packed, {"config": json.dumps(dict(model.config), default=str)})


def unpacked(packed: Path = PACKED) -> dict[str, torch.Tensor]:
    """The weights in float32, by name."""
    tensors = load_file(packed)
    state = {}
    for name, value in tensors.items():
        if not name.endswith(SCALE):
            scale = tensors.get(name + SCALE)
            state[name] = value.float() if scale is None else value * scale.view(-1, *[1] * (value.ndim - 1))
    return state


def write(folder: Path) -> None:
    """A copy of dev/lumen2 with the UNet in float16, which `train lumen --from` reads."""
    from oms_app.training.lumen.recipe import RECIPE, build_unet

    shutil.copytree(KEPT, folder, ignore=shutil.ignore_patterns(PACKED.name))
    unet = build_unet(RECIPE)
    unet.load_state_dict(unpacked())
    unet.half().save_pretrained(folder / "unet")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dev.lumen2_unet")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    write(parser.parse_args().folder)
