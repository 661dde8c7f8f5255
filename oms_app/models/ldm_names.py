"""Names of modules in Stable Diffusion's original layout, for the modules of diffusers and transformers models.

They follow from a model's structure. Single-file checkpoints and LoRAs for SDXL use them.
"""

from __future__ import annotations

from typing import Any

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OPEN_CLIP_EDGES = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def unet_names(unet: Any) -> dict[str, str]:
    """Module of a UNet2DConditionModel that has weights → its original name, if it has one."""
    roots = {"add_embedding": "add_embedding"} | _UNET  # that of a text has no original, and keeps its name
    resnets: dict[str, str] = {}
    place = 1
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            resnets[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{place}.0"
            roots[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{place}.1"
            place += 1
        if getattr(block, "downsamplers", None):
            roots[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{place}.0.op"
            place += 1
    resnets |= {f"mid_block.resnets.{j}": f"middle_block.{2 * j}" for j in range(2)}
    roots["mid_block.attentions.0"] = "middle_block.1"
    place = 0
    for i, block in enumerate(unet.up_blocks):
        attends = bool(getattr(block, "attentions", None))
        for j in range(len(block.resnets)):
            resnets[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{place}.0"
            roots[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{place}.1"
            place += 1
        roots[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{place - 1}.{1 + int(attends)}.conv"
    roots |= {f"{o}.{ours}": f"{t}.{theirs}" for o, t in resnets.items() for ours, theirs in _RESNET.items()}
    return _renamed(unet, roots)


def vae_names(vae: Any) -> dict[str, str]:
    """Module of an AutoencoderKL that has weights → its original name."""
    roots = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    levels = len(vae.config.block_out_channels)
    for half in ("encoder", "decoder"):
        roots |= {f"{half}.{name}": f"{half}.{name}" for name in ("conv_in", "conv_out")}
        roots[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        roots |= {f"{half}.mid_block.attentions.0.{o}": f"{half}.mid.attn_1.{t}" for o, t in _VAE_ATTENTION.items()}
        resnets = {f"{half}.mid_block.resnets.{j}": f"{half}.mid.block_{j + 1}" for j in range(2)}
        for i in range(levels):
            way, level = ("down", i) if half == "encoder" else ("up", levels - 1 - i)
            roots[f"{half}.{way}_blocks.{i}.{way}samplers.0.conv"] = f"{half}.{way}.{level}.{way}sample.conv"
            layers = len(getattr(getattr(vae, half), f"{way}_blocks")[i].resnets)
            resnets |= {
                f"{half}.{way}_blocks.{i}.resnets.{j}": f"{half}.{way}.{level}.block.{j}" for j in range(layers)
            }
        for ours, theirs in resnets.items():
            roots |= {f"{ours}.{name}": f"{theirs}.{name}" for name in ("norm1", "conv1", "norm2", "conv2")}
            roots[f"{ours}.conv_shortcut"] = f"{theirs}.nin_shortcut"
    return _renamed(vae, roots)


def clip_name(module: str) -> str:
    """A module of a transformers CLIP text model under the name that CLIP's original files and LoRAs use."""
    return module if module == "text_projection" else f"text_model.{module.removeprefix('text_model.')}"


def open_clip_name(layer: int, module: str) -> str | None:
    """The name that OpenCLIP gives a module of `encoder.layers.<layer>`; None for queries, keys and values, which it
    keeps in one matrix, `attn.in_proj`."""
    theirs = _OPEN_CLIP.get(module)
    return f"transformer.resblocks.{layer}.{theirs}" if theirs else None


def _renamed(model: Any, roots: dict[str, str]) -> dict[str, str]:
    """Every module with weights, by the longest root that its name begins with; without those that have none, which
    only diffusers' own layouts have."""
    made = {}
    for name, module in model.named_modules():
        if not list(module.parameters(recurse=False)):
            continue
        root = name
        while root and root not in roots:
            root = root.rpartition(".")[0]
        if root:
            made[name] = roots[root] + name[len(root) :]
    return made
