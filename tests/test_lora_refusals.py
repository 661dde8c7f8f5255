"""What cannot be applied as a LoRA is refused by name, and what does not fit says what it was made for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_lora_formats import Factors, open_base

from oms_app import StudioError
from oms_app.models import user_models
from oms_app.models.catalog import Catalog
from oms_app.models.lora import fuse_loras
from oms_app.models.lora_formats import read_lora

STEM = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"

PAIR = {f"{STEM}.lora_down.weight": torch.zeros(2, 32), f"{STEM}.lora_up.weight": torch.zeros(32, 2)}

REFUSED: dict[str, tuple[Factors, str]] = {
    "OFT": ({f"{STEM}.oft_blocks": torch.zeros(4, 8, 8), f"{STEM}.alpha": torch.ones(())}, "is an OFT or BOFT"),
    "IA3": ({f"{STEM}.weight": torch.zeros(32), f"{STEM}.on_input": torch.ones(())}, "is an (IA)³"),
    "GLoRA": ({f"{STEM}.{n}.weight": torch.zeros(2, 2) for n in ("a1", "a2", "b1", "b2")}, "is a GLoRA"),
    "embeddings": (PAIR | {"bundle_emb.me.clip_l": torch.zeros(2, 32)}, "brings textual-inversion embeddings"),
    "biases": (PAIR | {f"{STEM}.bias_values": torch.zeros(2)}, "changes biases in a way that is not supported"),
    "tokens": (PAIR | {"text_encoder.lora_embedding_A": torch.zeros(2, 2)}, "changes token embeddings"),
    "unknown": (PAIR | {f"{STEM}.magic": torch.zeros(2)}, f"unknown tensors ({STEM}.magic)"),
    "half": ({f"{STEM}.lora_down.weight": torch.zeros(2, 32)}, f"is incomplete: {STEM} has only down"),
    "two": (
        {f"unet.x.lora_{f}.{a}.weight": torch.zeros(2, 2) for f in "AB" for a in ("one", "two")},
        "contains two adapters for unet.x",
    ),
    "Flux": ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": torch.zeros(2, 2)}, "was made for Flux"),
    "SD3": ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, 2)}, "was made for Flux, SD3"),
    "Wan": ({"diffusion_model.blocks.0.cross_attn.k.lora_A.weight": torch.zeros(2, 2)}, "was made for a diffusion tr"),
    "Qwen": ({"transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, 2)}, "was made for a diffusion transf"),
    "motion": (
        {"down_blocks.0.motion_modules.0.proj_in.processor.to_q_lora.down.weight": torch.zeros(2, 2)},
        "is a motion LoRA of AnimateDiff",
    ),
    "lora_diffusion": ({"unet:0:up": torch.zeros(2, 2), "unet:0:down": torch.zeros(2, 2)}, "format of lora_diffusion"),
    "integers": (
        PAIR | {f"{STEM}.lora_up.weight": torch.zeros(32, 2, dtype=torch.uint8)},
        "has quantised weights (the integer type U8)",
    ),
    "alphas alone": ({f"{STEM}.alpha": torch.ones(())}, "contains no weights"),
    "metadata": (PAIR, "metadata that are not JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_applied_is_refused_by_name_when_it_is_added(
    case: str, presets: Path, tmp_path: Path, own_home: Path
) -> None:
    tensors, said = REFUSED[case]
    path = tmp_path / "style.safetensors"
    save_file(tensors, path, {"lora_adapter_metadata": "{"} if case == "metadata" else None)
    catalog = Catalog(presets, home=own_home)
    for call in (lambda: read_lora(path), lambda: user_models.add(catalog, str(path))):
        with pytest.raises(StudioError) as refused:
            call()
        assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not catalog.own


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clip_g", "is not a LoRA, but a textual-inversion embedding"),
        ("768.0.linear.0.weight", "is not a LoRA, but a hypernetwork"),
        ("control_model.input_blocks.0.0.weight", "is not a LoRA, but a ControlNet"),
        ("first_stage_model.decoder.conv_in.weight", "is not a LoRA, but only a VAE"),
    ],
)
def test_what_is_no_lora_is_named(name: str, said: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(StudioError, match=said):
        read_lora(tmp_path / "a.safetensors")


def test_what_does_not_fit_says_what_it_was_made_for(lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    path = tmp_path / "xl.safetensors"

    def refusal(tensors: Factors, metadata: dict[str, str] | None = None) -> str:
        save_file(tensors, path, metadata)
        with pytest.raises(StudioError) as refused:
            fuse_loras(open_base("sd", lumen, sdxl), [(path, 1.0)])
        return str(refused.value)

    stem = STEM.replace("attn1_to_q", "attn2_to_k")
    for width, family in ((768, "Stable Diffusion 1.x"), (1024, "Stable Diffusion 2.x"), (2048, "SDXL")):
        wide = {f"{stem}.lora_down.weight": torch.zeros(2, width), f"{stem}.lora_up.weight": torch.zeros(32, 2)}
        said = refusal(wide)
        assert f"(32, {width}), not (32, 32)" in said and f"made for {family}" in said and str(tmp_path) not in said
    both = {"lora_te2_text_model_encoder_layers_0_mlp_fc1": 0, "lora_te1_text_model_encoder_layers_0_mlp_fc1": 1}
    halves = {f"{n}.lora_{f}.weight": torch.zeros(2, 2) for n in both for f in ("down", "up")}
    assert "only its text-encoder part fits; it was made for SDXL" in refusal(halves)
    nowhere = {f"{STEM}_9.lora_{f}.weight": torch.zeros(2, 2) for f in ("down", "up")}
    assert "made for SDXL" in refusal(nowhere, {"ss_base_model_version": "sdxl_base_v1-0"})
