"""The names that tools give to the modules of a LoRA: prefixes, text encoders, and modules without an original name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_lora_formats import AB, LORA, TEXT, TEXT_2, UNET, Factors, check, open_base, peft, plain, written
from tiny import make_unet

from oms_app.models.ldm_names import unet_names
from oms_app.models.lora import fuse_loras


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("stem_of", ["text_encoders.{}.transformer", "{}"], ids=["ComfyUI", "OneTrainer"])
def test_text_encoders_by_the_name_of_their_clip(
    stem_of: str, family: str, lumen: Path, sdxl: Path, tmp_path: Path
) -> None:
    pipeline, seed = open_base(family, lumen, sdxl), [0]
    tensors: Factors = {}
    changes = {}
    for i, module in enumerate(TEXT + (TEXT_2 if family == "sdxl" else [])):
        encoder = "clip_l" if module[0] == "text_encoder" else "clip_g"
        stem = peft(module, family).replace(module[0], stem_of.format(encoder), 1)
        weight = getattr(pipeline, module[0]).get_submodule(module[1]).weight.detach()
        factors, changes[module] = plain(weight, i, seed)
        tensors |= written(LORA, factors, stem)
    save_file(tensors, tmp_path / "a.safetensors")
    check(pipeline, changes, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "names",
    [
        {"down": ".lora_A.my-style_v1.weight", "up": ".lora_B.my-style_v1.weight"},
        {"stem": "unet._orig_mod.{}"},
        {"stem": "base_model.model._orig_mod.unet.{}"},
        {"stem": "unet.module.{}"},
    ],
    ids=lambda names: next(iter(names.values())),
)
def test_what_tools_write_into_names(names: dict[str, str], lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    """An adapter's name with a hyphen; wrappers of torch.compile and of distributed training."""
    pipeline, module = open_base("sd", lumen, sdxl), UNET[0]
    factors, delta = plain(pipeline.unet.get_submodule(module[1]).weight.detach(), 1, [0])
    stem = names.get("stem", "unet.{}").format(module[1])
    save_file(written(AB | names, factors, stem), tmp_path / "a.safetensors")
    check(pipeline, {module: delta}, tmp_path / "a.safetensors")


def test_a_base_with_modules_that_have_no_original_name(lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    """A latent consistency model's embedding of the guidance scale has one, a projection of the prompt has none."""
    pipeline, module = open_base("sd", lumen, sdxl), ("unet", "time_embedding.cond_proj")
    pipeline.unet = make_unet(time_cond_proj_dim=8, encoder_hid_dim=32, encoder_hid_dim_type="text_proj")
    factors, delta = plain(pipeline.unet.get_submodule(module[1]).weight.detach(), 1, [0])
    save_file(written(LORA, factors, "lora_unet_time_embed_cond_proj"), tmp_path / "a.safetensors")
    check(pipeline, {module: delta}, tmp_path / "a.safetensors")


@pytest.mark.parametrize("root", ["unet.", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_original_names_with_any_prefix(family: str, root: str, lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    """OneTrainer writes them after `unet.`."""
    pipeline = open_base(family, lumen, sdxl)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    target = pipeline.unet.get_submodule(name)
    old = target.weight.detach().clone()
    stem = root + unet_names(pipeline.unet)[name]
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    save_file(
        {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.0)},
        tmp_path / "a.safetensors",
    )
    fuse_loras(pipeline, [(tmp_path / "a.safetensors", 1.0)])
    torch.testing.assert_close(target.weight, old + up @ down / 2)
