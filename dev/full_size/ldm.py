"""A diffusers pipeline's weights under the names of Stable Diffusion's original single files."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
EDGES = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
XL_EDGES = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}


def unet_name(name: str, layers: int, attention_up: set[int]) -> str:
    """layers: per block. attention_up: up blocks that have attention, whose upsampler then comes third."""
    for ours, theirs in (EDGES | XL_EDGES).items():
        if name.startswith(ours + "."):
            name = theirs + name[len(ours) :]
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        way, i, kind, j, rest = match.groups()
        place = (layers + 1) * int(i) + int(j) + (1 if way == "down" else 0)
        name = f"{'input' if way == 'down' else 'output'}_blocks.{place}.{int(kind == 'attentions')}.{rest}"
    elif match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        name = f"input_blocks.{(layers + 1) * (int(match[1]) + 1)}.0.op.{match[2]}"
    elif match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", name):
        i = int(match[1])
        name = f"output_blocks.{(layers + 1) * i + layers}.{1 + int(i in attention_up)}.conv.{match[2]}"
    if re.match(r"(input|output|middle)_blocks?\.(\d+\.)?\d+\.", name):
        for ours, theirs in RESNET.items():
            name = re.sub(rf"((?:input|output)_blocks\.\d+\.0|middle_block\.[02])\.{ours}\.", rf"\1.{theirs}.", name)
    return "model.diffusion_model." + name


def vae_name(name: str, blocks: int) -> str:
    def up(match: re.Match[str]) -> str:
        return f"decoder.up.{blocks - 1 - int(match[1])}"

    name = re.sub(r"decoder\.up_blocks\.(\d+)", up, name)
    name = re.sub(r"encoder\.down_blocks\.(\d+)", r"encoder.down.\1", name)
    name = re.sub(r"\.resnets\.(\d+)", r".block.\1", name) if "mid_block" not in name else name
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    for ours, theirs in VAE_ATTENTION.items():
        name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
    return "first_stage_model." + name


def open_clip_text(text_encoder: Any, prefix: str, unread: int) -> dict[str, Tensor]:
    """OpenCLIP's names: queries, keys and values in one matrix. unread: layers after the last one that is read, of
    which SD 2.x has one."""
    state = {name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}
    width = text_encoder.config.hidden_size
    made = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T if "text_projection.weight" in state else torch.eye(width),
    }
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    names["self_attn.out_proj"] = "attn.out_proj"
    count = text_encoder.config.num_hidden_layers
    for n in range(count + unread):
        own = f"encoder.layers.{min(n, count - 1)}."
        block = f"transformer.resblocks.{n}."
        for kind in ("weight", "bias"):
            parts = [state[f"{own}self_attn.{p}_proj.{kind}"] for p in "qkv"]
            made[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
            for ours, theirs in names.items():
                made[f"{block}{theirs}.{kind}"] = state[f"{own}{ours}.{kind}"]
    return {prefix + name: value for name, value in made.items()}


def clip_text(text_encoder: Any, prefix: str) -> dict[str, Tensor]:
    named = {name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}
    return {f"{prefix}text_model.{name}": value for name, value in named.items()}


def to_single_file(pipeline: Any, family: str) -> dict[str, Tensor]:
    """All tensors of a pipeline as a checkpoint of `family`, "sd15", "sd21" or "sdxl"."""
    config = pipeline.unet.config
    attention_up = {i for i, kind in enumerate(config.up_block_types) if "CrossAttn" in kind}
    blocks = len(pipeline.vae.config.block_out_channels)
    tensors = {
        unet_name(name, config.layers_per_block, attention_up): value
        for name, value in pipeline.unet.state_dict().items()
    }
    tensors |= {vae_name(name, blocks): value for name, value in pipeline.vae.state_dict().items()}
    if family == "sd15":
        tensors |= clip_text(pipeline.text_encoder, "cond_stage_model.transformer.")
    elif family == "sd21":
        tensors |= open_clip_text(pipeline.text_encoder, "cond_stage_model.model.", unread=1)
    else:
        tensors |= clip_text(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
        tensors |= open_clip_text(pipeline.text_encoder_2, "conditioner.embedders.1.model.", unread=0)
    return {name: value.contiguous().clone() for name, value in tensors.items()}
