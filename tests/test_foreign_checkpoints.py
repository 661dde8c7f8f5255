"""Single files of other models, and other files under the name of a safetensors file: named by what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_checkpoints import refusal, saved

# One or two tensors of files as they are published, and what they are.
FOREIGN: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "Flux": ({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (9, 3)}, "is Flux"),
    "Flux transformer": ({"double_blocks.0.img_attn.qkv.weight": (9, 3), "img_in.weight": (3, 3)}, "is Flux"),
    "SD3": ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (9, 3)}, "is Stable Diffusion 3"),
    "ControlNet": ({"control_model.input_blocks.0.0.weight": (3, 4, 3, 3)}, "is a ControlNet"),
    "ControlNet, diffusers": ({"controlnet_cond_embedding.conv_in.weight": (3, 3)}, "is a ControlNet"),
    "ControlLoRA": ({"lora_controlnet": (0,), "input_blocks.0.0.up": (1, 1)}, "is a ControlLoRA"),
    "embedding": ({"emb_params": (4, 768)}, "is a textual-inversion embedding"),
    "SDXL embedding": ({"clip_g": (4, 1280), "clip_l": (4, 768)}, "is a textual-inversion embedding"),
    "embedding by its word": ({"<my-style>": (768,)}, "is a textual-inversion embedding"),
    "embedding by any word": ({"mystyle": (1024,)}, "is a textual-inversion embedding"),
    "a few matrices": ({"layers.0.weight": (16, 64)}, "is a file that contains no UNet"),
    "ControlNet-LLLite": ({"lllite_unet_middle_block_1.down.0.weight": (3, 3)}, "is a ControlNet-LLLite"),
    "HiDream": ({"double_stream_blocks.0.block.attn1.to_q.weight": (3, 3)}, "is HiDream"),
    "Wan": ({"patch_embedding.weight": (3, 3), "blocks.0.self_attn.q.weight": (3, 3)}, "is Wan or a relative"),
    "OpenCLIP's vision": ({"visual.transformer.resblocks.0.ln_1.weight": (3,)}, "is a CLIP vision model"),
    "Qwen": ({"model.layers.0.self_attn.q_proj.weight": (3, 3)}, "is only a language model"),
    "TAESD": ({"decoder.layers.2.conv.0.weight": (64, 64, 3, 3)}, "is only TAESD"),
    "EMA": (
        {"model_ema.diffusion_modelinput_blocks00weight": (3,), "first_stage_model.encoder.conv_in.weight": (3,)},
        "is only the averaged (EMA) weights of a checkpoint",
    ),
    "VAE": ({"first_stage_model.encoder.conv_in.weight": (3, 3, 3, 3)}, "is only a VAE"),
    "VAE, diffusers": ({"decoder.up_blocks.0.resnets.0.conv1.weight": (3, 3, 3, 3)}, "is only a VAE"),
    "UNet": ({"diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "is only a UNet"),
    "UNet, diffusers": ({"down_blocks.0.resnets.0.conv1.weight": (3, 3, 3, 3)}, "is only a UNet, in the diffusers"),
    "CLIP": ({"text_model.encoder.layers.0.self_attn.k_proj.weight": (3, 3)}, "is only a CLIP text encoder"),
    "T5": ({"encoder.block.0.layer.0.SelfAttention.q.weight": (3, 3)}, "is only a T5 text encoder"),
    "IP-Adapter": ({"image_proj.proj.weight": (3, 3)}, "is an IP-Adapter"),
    "T2I adapter": ({"adapter.body.0.in_conv.weight": (3, 3)}, "is a T2I adapter"),
    "AnimateDiff": ({"down_blocks.0.motion_modules.0.proj_out.weight": (3, 3)}, "is an AnimateDiff motion module"),
    "SVD": ({"model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight": (3,)}, "Stable Video Diffusion"),
    "Cascade": ({"clip_txt_mapper.weight": (3, 3)}, "is Stable Cascade"),
    "pipeline": (
        {"unet.conv_in.weight": (320, 4, 3, 3), "vae.decoder.conv_in.weight": (1,)},
        "a pipeline of diffusers",
    ),
    "hypernetwork": ({"768.0.linear.0.weight": (3, 3)}, "is a hypernetwork"),
    "IP-Adapter with LoRAs": (
        {"ip_adapter.1.to_k_ip.weight": (3, 3), "ip_adapter.0.to_q_lora.down.weight": (2, 2)},
        "is an IP-Adapter",
    ),
    "upscaler": ({"model.0.weight": (64, 3, 3, 3)}, "is an upscaler"),
    "nonsense": ({"a.b": (1, 1, 1)}, "a file that contains no UNet in Stable Diffusion's layout"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_other_models_are_named(case: str, tmp_path: Path) -> None:
    shapes, title = FOREIGN[case]
    path = saved(tmp_path, {name: torch.zeros(shape) for name, shape in shapes.items()})
    said = refusal(path)
    assert title in said and "OMS Studio runs Stable Diffusion 1.x, 2.x and SDXL" in said
    assert "download it again" not in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4\n", "is Git LFS's pointer to a file"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"PK\x03\x04" + b"\0" * 30, "is a pickle under the name of a safetensors file"),
        (b"GGUF" + b"\0" * 30, "is a GGUF file under the name of a safetensors file"),
        (b"", "cannot be read as safetensors"),
    ],
)
def test_what_is_under_the_name_of_a_safetensors_file(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert said in refusal(path)
