"""Folders that cannot be used: incomplete or foreign parts, other models, quantised weights, other formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_folders import UNET, edit
from tiny import make_unet

from oms_app import StudioError
from oms_app.models.catalog import Catalog
from oms_app.models.folders import load_folder
from oms_app.models.loading import load_base, load_module
from oms_app.models.text import load_encoder
from oms_app.models.user_models import add


def lose_vocabulary(base: Path) -> None:
    path = base / "tokenizer/tokenizer.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"model": {"type": "BPE", "vocab": {}, "merges": []}}))


def lose_merges(base: Path) -> None:
    path = base / "tokenizer/tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["merges"] = told["model"]["merges"][:3]
    path.write_text(json.dumps(told))


def lose_tensor(base: Path) -> None:
    tensors = load_file(base / UNET)
    tensors.pop("conv_out.bias")
    save_file(tensors, base / UNET, {"format": "pt"})


def foreign_tensor(base: Path) -> None:
    save_file(load_file(base / UNET) | {"extra.weight": torch.zeros(1)}, base / UNET, {"format": "pt"})


def misshapen_tensor(base: Path) -> None:
    save_file(load_file(base / UNET) | {"conv_out.bias": torch.zeros(7)}, base / UNET, {"format": "pt"})


def lose_text_tensor(base: Path) -> None:
    path = base / "text_encoder/model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if "final_layer_norm.weight" in name))
    save_file(tensors, path, {"format": "pt"})


def inpainting(base: Path) -> None:
    make_unet().from_config(dict(make_unet().config) | {"in_channels": 9}).save_pretrained(base / "unet")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no vocabulary": (lambda b: (b / "tokenizer/tokenizer.json").unlink(), "neither tokenizer.json nor vocab.json"),
    "an empty vocabulary": (lose_vocabulary, "is incomplete: it has"),
    "no merges": (lose_merges, "it splits known words, so merges are missing"),
    "no tokenizer": (lambda b: shutil.rmtree(b / "tokenizer"), "is incomplete: the folder tokenizer is missing"),
    "no vae": (lambda b: shutil.rmtree(b / "vae"), "is incomplete: the folder vae is missing"),
    "a tensor less": (lose_tensor, "unet has missing tensors (conv_out.bias)"),
    "a text tensor less": (lose_text_tensor, "text_encoder has missing tensors (final_layer_norm.weight)"),
    "a tensor more": (foreign_tensor, "unet has unknown tensors (extra.weight)"),
    "another shape": (misshapen_tensor, "conv_out.bias"),
    "inpainting": (inpainting, "is an inpainting or editing model (9 latent channels in, not 4)"),
    "another VAE": (
        lambda b: edit(b / "model_index.json", vae=["diffusers", "AsymmetricAutoencoderKL"]),
        "its vae is a AsymmetricAutoencoderKL, not a AutoencoderKL",
    ),
    "no unet named": (
        lambda b: (b / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}'),
        "its model_index.json does not list unet",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_lacks_something_is_named(case: str, base: Path) -> None:
    spoil, said = SPOILT[case]
    spoil(base)
    with pytest.raises(StudioError) as refused:
        load_folder(base, torch.float32)
    assert said in str(refused.value) and "\n" not in str(refused.value)


# The layouts of other models as they are published: the index, and the folders beside it.
OTHERS: dict[str, tuple[str, dict[str, tuple[str, str]], str]] = {
    "SD3": (
        "StableDiffusion3Pipeline",
        {
            "transformer": ("diffusers", "SD3Transformer2DModel"),
            "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
            "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
            "text_encoder_3": ("transformers", "T5EncoderModel"),
            "vae": ("diffusers", "AutoencoderKL"),
        },
        "is a StableDiffusion3Pipeline (Stable Diffusion 3)",
    ),
    "FLUX": (
        "FluxPipeline",
        {
            "transformer": ("diffusers", "FluxTransformer2DModel"),
            "text_encoder": ("transformers", "CLIPTextModel"),
            "text_encoder_2": ("transformers", "T5EncoderModel"),
            "vae": ("diffusers", "AutoencoderKL"),
        },
        "is a FluxPipeline (Flux)",
    ),
    "refiner": ("StableDiffusionXLImg2ImgPipeline", {"unet": ("diffusers", "UNet2DConditionModel")}, "SDXL refiner"),
    "inpainting": ("StableDiffusionInpaintPipeline", {"unet": ("diffusers", "UNet2DConditionModel")}, "an inpainting"),
    "an OMS module": ("OMSPipeline", {}, "an OMS module, which is chosen beside a base model"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_models_are_named_with_what_is_supported(
    case: str, presets: Path, own_home: Path, tmp_path: Path
) -> None:
    name, parts, said = OTHERS[case]
    folder = tmp_path / case
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": "0.30.0"}
    for part, (library, kind) in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps({"_class_name": kind}))
        index[part] = [library, kind]
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(StudioError) as refused:
        Catalog(presets, home=own_home).find(str(folder), "base")
    assert said in str(refused.value) and "OMS Studio runs Stable Diffusion 1.x, 2.x and SDXL" in str(refused.value)


def test_a_controlnets_folder_is_named(presets: Path, own_home: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    with pytest.raises(StudioError, match=r"is only a ControlNet, without a model_index.json; OMS Studio runs"):
        Catalog(presets, home=own_home).find(str(tmp_path), "base")


def test_an_encoders_folder_is_checked_too(base: Path) -> None:
    cpu = torch.device("cpu")
    load_encoder(base, cpu, torch.float32)
    lose_vocabulary(base)
    with pytest.raises(StudioError, match="tokenizer is incomplete"):
        load_encoder(base, cpu, torch.float32)


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("unet", {"num_class_embeds": 4}, "its UNet needs a class beside the prompt"),
        ("unet", {"class_embed_type": "projection"}, "its UNet needs a class beside the prompt"),
        ("unet", {"out_channels": 8}, "its UNet has 8 channels out, not 4"),
        ("unet", {"cross_attention_dim": 48}, "prompt embeddings of width 48, its text encoder gives 32"),
        ("unet", {"addition_embed_type": "text_time"}, "its UNet is of another model (addition_embed_type text_time"),
        ("unet", {"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type image_proj"),
        ("unet", {"dual_cross_attention": True}, "its UNet reads two prompts"),
        ("vae", {"latent_channels": 16}, "its VAE has 16 latent channels, its UNet 4"),
        ("vae", {"scaling_factor": 0}, "no valid scale of its latents"),
        ("vae", {"scaling_factor": "0.18215"}, "no valid scale of its latents"),
        ("vae", {"latents_mean": [0.0], "latents_std": [1.0]}, "no valid scale of its latents"),
        ("text_encoder", {"vocab_size": 999}, "has tensors of another shape (('embeddings.token_embedding.weight'"),
        ("", {"tokenizer": ["transformers", "T5Tokenizer"]}, "its tokenizer is a T5Tokenizer, not a CLIPTokenizer"),
        ("", {"_class_name": None}, "model_index.json names no pipeline"),
        ("", {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "but has a text_encoder_2"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(part: str, changes: dict[str, Any], said: str, base: Path) -> None:
    """Otherwise the pictures would fail, in the middle of a request."""
    if "text_encoder_2" in changes:
        shutil.copytree(base / "text_encoder", base / "text_encoder_2")
    edit(base / part / "config.json" if part else base / "model_index.json", **changes)
    with pytest.raises(StudioError) as refused:
        load_folder(base, torch.float32)
    assert said in str(refused.value)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_quantised_weights_without_a_word_of_it_in_the_config(part: str, base: Path) -> None:
    """They would be cast to other numbers."""
    path = next((base / part).glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name, value in tensors.items() if name.endswith(".weight") and value.ndim >= 2)
    for changes, said in (
        ({name: (tensors[name] * 127).to(torch.int8)}, "the integer type I8"),
        ({name.replace(".weight", ".scale_weight"): torch.ones(())}, "float8 with scales"),
        ({f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(3, dtype=torch.uint8)}, "bitsandbytes NF4 or FP4"),
    ):
        save_file(tensors | changes, path, {"format": "pt"})
        with pytest.raises(StudioError) as refused:
            load_folder(base, torch.float32)
        assert f"{part} has quantised weights ({said}" in str(refused.value)


def test_quantised_weights_of_a_module_and_of_an_encoder_alone(lumen: Path, base: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    module = Path(shutil.copytree(lumen / "oms", tmp_path / "module"))
    calls = {
        base / "text_encoder": lambda: load_encoder(base, cpu, torch.float32),
        module / "oms_module": lambda: load_module(module, cpu, torch.float32),
    }
    for part, load in calls.items():
        load()
        path = next(part.glob("*.safetensors"))
        tensors = load_file(path)
        name = next(name for name, value in tensors.items() if name.endswith(".weight") and value.ndim == 2)
        save_file(tensors | {name: (tensors[name] * 127).to(torch.int8)}, path, {"format": "pt"})
        with pytest.raises(StudioError, match=f"{part.name} has quantised weights \\(the integer type I8"):
            load()


def test_an_encoder_that_fails_is_named(base: Path) -> None:
    edit(base / "text_encoder/config.json", eos_token_id=None)
    encoder = load_encoder(base, torch.device("cpu"), torch.float32)
    with pytest.raises(StudioError, match=r"the text encoder cannot read the prompt \(.*\): restore its config.json"):
        encoder.embed(["sea"])


def test_a_vae_of_nan_is_named(base: Path) -> None:
    path = base / "vae/diffusion_pytorch_model.safetensors"
    save_file({name: value * torch.nan for name, value in load_file(path).items()}, path, {"format": "pt"})
    with pytest.raises(StudioError, match="the latents of the model's VAE are not finite"):
        load_base(base, torch.device("cpu"), torch.float32)


def test_weights_in_other_formats_and_links_to_nothing_are_named(base: Path) -> None:
    path = base / UNET
    kept = path.read_bytes()
    path.unlink()
    for name, said in (
        ("diffusion_flax_model.msgpack", "is a file of Flax weights, which is not read"),
        ("model.onnx", "is an ONNX model, which is not read"),
        ("diffusion_pytorch_model.gguf", "is a GGUF file, which is not read"),
    ):
        (base / "unet" / name).write_bytes(b"x")
        with pytest.raises(StudioError, match=f"{name} {said}"):
            load_folder(base, torch.float32)
        (base / "unet" / name).unlink()
    path.symlink_to("../../blobs/gone")
    with pytest.raises(StudioError, match=r"diffusion_pytorch_model\.safetensors is a link to a file that is gone"):
        load_folder(base, torch.float32)
    path.unlink()
    path.write_bytes(kept)
    for name in ("diffusion_flax_model.msgpack", "model.onnx"):
        (base / "unet" / name).write_bytes(b"x")
    load_folder(base, torch.float32)
    edit(base / "unet/config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(StudioError, match=r"unet has quantised weights \(bitsandbytes\): use a version in float16"):
        load_folder(base, torch.float32)
    (base / "model_index.json").unlink()
    (base / "model_index.json").symlink_to("../../blobs/gone")
    with pytest.raises(StudioError, match=r"model_index\.json is a link to a file that is gone"):
        load_folder(base, torch.float32)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.gguf", "is a GGUF file, which is not read: use a version of the model in .safetensors"),
        ("A.ONNX", "is an ONNX model, which is not read"),
        ("a.safetensors.part", "is an unfinished download"),
        ("a.sft", "is a safetensors file under a short name: rename it to .safetensors"),
        ("a.CKPT", "is a pickle, which can run any code"),
    ],
)
def test_files_in_other_formats_are_named(name: str, said: str, presets: Path, own_home: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    catalog = Catalog(presets, home=own_home)
    for call in (
        lambda: catalog.find(str(path), "base"),
        lambda: catalog.lora(str(path)),
        lambda: add(catalog, str(path)),
    ):
        with pytest.raises(StudioError) as refused:
            call()
        assert f"{name} {said}" in str(refused.value)


def test_a_folder_that_holds_one_checkpoint_names_it(presets: Path, own_home: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "dream.safetensors")
    with pytest.raises(StudioError, match=r"no model_index\.json.*or one of its files, such as dream\.safetensors"):
        Catalog(presets, home=own_home).find(str(tmp_path), "base")
