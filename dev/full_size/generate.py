"""Random models of the true size in the names, layouts and precisions of the published files.

    python -m dev.full_size.generate FOLDER NAME …

writes FOLDER/NAME, with NAME an id of the catalogue (see MODELS), or the single file FOLDER/sd15.safetensors. Shapes
come from stock diffusers and transformers classes; nothing of oms_app makes a weight or a name.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from dev.full_size import ldm, published
from oms_app.models.catalog import MARKER
from oms_app.models.tokenizers import clip_tokenizer

GAIN = 0.7  # of each layer's weights, relative to those that keep the variance of what goes through
SINGLE_FILE = "sd15.safetensors"
# The attention of a VAE as the repositories of 2022 name it.
OLD_VAE_NAMES = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
Shapes = Mapping[str, tuple[int, ...]]
Tensors = dict[str, torch.Tensor]


def random_tensors(shapes: Shapes, dtype: torch.dtype, seed: int) -> Tensors:
    """Weights by the names' rules: scaled by the fan-in, norms about 1, biases small, positions counted."""
    made: Tensors = {}
    pool = _pool()
    for number, (name, shape) in enumerate(shapes.items()):
        if name.endswith("position_ids"):
            made[name] = torch.arange(shape[-1]).view(shape)
            continue
        mean, deviation = 0.0, 0.02
        if len(shape) > 1 and not name.endswith(("token_embedding.weight", "position_embedding.weight")):
            deviation = GAIN / math.sqrt(math.prod(shape[1:]))
        elif len(shape) == 1 and name.endswith("weight"):
            mean, deviation = 1.0, 0.05
        size = math.prod(shape)
        start = (seed * 7_368_787 + number * 1_299_709) % len(pool)
        drawn = pool[start : start + size]
        if len(drawn) < size:
            drawn = torch.cat([drawn, pool.repeat(-(-size // len(pool)))[: size - len(drawn)]])
        made[name] = (drawn * deviation + mean).to(dtype).view(shape)
    return made


@cache
def _pool() -> torch.Tensor:
    """Random numbers, of which each tensor takes a stretch of its own: to draw every weight anew takes minutes."""
    return torch.randn(2**24, generator=torch.Generator().manual_seed(0))


def shapes_of(build: Callable[[], torch.nn.Module]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network, which is built without memory."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


def clip_shapes(config: published.Config) -> dict[str, tuple[int, ...]]:
    """As transformers saved them in 2022: everything but the projection under text_model, positions among them."""
    projects = config["architectures"] == ["CLIPTextModelWithProjection"]
    model = CLIPTextModelWithProjection if projects else CLIPTextModel
    shapes = shapes_of(lambda: model(CLIPTextConfig(**config)))
    named = {
        name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}": shape
        for name, shape in shapes.items()
    }
    return named | {"text_model.embeddings.position_ids": (1, 77)}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def write_tokenizer(folder: Path, padding: str) -> None:
    """CLIP's vocabulary and merges in the files of 2022. padding: "!" is OpenCLIP's, id 0."""
    tokenizer = clip_tokenizer()
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab(), ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = padding
    write_json(folder / "special_tokens_map.json", special)
    more = {"do_lower_case": True, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    write_json(folder / "tokenizer_config.json", special | more)


def write_text_encoder(folder: Path, name: str, seed: int, infix: str, suffix: str = "", *, tiny: bool) -> None:
    """A text encoder of published.TEXTS and its tokenizer. suffix: "_2" for SDXL's second."""
    config = published.text(name, tiny=tiny)
    dtype = torch.float16 if infix else torch.float32
    write_json(folder / f"text_encoder{suffix}/config.json", config)
    path = folder / f"text_encoder{suffix}/model{infix}.safetensors"
    write_tensors(path, random_tensors(clip_shapes(config), dtype, seed))
    write_tokenizer(folder / f"tokenizer{suffix}", "<|endoftext|>" if name == "clip-l" else "!")


def write_base(folder: Path, family: str, seed: int, infix: str = ".fp16", *, tiny: bool) -> None:
    """Index, scheduler, UNet and VAE of a base. The VAE of SD 1.5 has its old names, that of LCM the same weights."""
    dtype = torch.float16 if infix else torch.float32
    write_json(folder / "model_index.json", published.model_index(family))
    write_json(folder / "scheduler/scheduler_config.json", published.SCHEDULERS[family])
    config, vae_config = published.unet(family, tiny=tiny), published.vae(family, tiny=tiny)
    write_json(folder / "unet/config.json", config)
    write_json(folder / "vae/config.json", vae_config)
    name = f"diffusion_pytorch_model{infix}.safetensors"
    shapes = shapes_of(lambda: UNet2DConditionModel.from_config(config))
    write_tensors(folder / "unet" / name, random_tensors(shapes, dtype, seed))
    # SD 1.5, 2.1 and LCM share one latent domain, and so one encoder: drawn from one seed, rounded to float16.
    vae_seed = 200 if family == "sdxl" else 100
    vae = random_tensors(shapes_of(lambda: AutoencoderKL.from_config(vae_config)), torch.float16, vae_seed)
    if family == "sd15":
        for new, old in OLD_VAE_NAMES.items():
            vae = {key.replace(new, old): tensor for key, tensor in vae.items()}
    write_tensors(folder / "vae" / name, {key: tensor.to(dtype) for key, tensor in vae.items()})


def write_safety_checker(folder: Path, seed: int, *, tiny: bool) -> None:
    """One whose thresholds no picture reaches, so that no picture is blackened."""
    config = published.safety_checker(tiny=tiny)
    write_json(folder / "safety_checker/config.json", config)
    write_json(folder / "feature_extractor/preprocessor_config.json", published.PREPROCESSOR)
    shapes = shapes_of(lambda: StableDiffusionSafetyChecker(CLIPConfig(**config)))
    once, twice = "vision_model.", "vision_model.vision_model."
    named = {
        twice + name.removeprefix(once) if name.startswith(once) and not name.startswith(twice) else name: shape
        for name, shape in shapes.items()
    }
    tensors = random_tensors(named, torch.float16, seed)
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        tensors[name] = torch.full_like(tensors[name], 0.9)
    write_tensors(folder / "safety_checker/model.fp16.safetensors", tensors)


def sd15(folder: Path, *, tiny: bool) -> None:
    write_base(folder, "sd15", 1, tiny=tiny)
    write_text_encoder(folder, "clip-l", 2, ".fp16", tiny=tiny)
    write_safety_checker(folder, 3, tiny=tiny)


def sd21(folder: Path, *, tiny: bool) -> None:
    write_base(folder, "sd21", 4, tiny=tiny)
    write_text_encoder(folder, "vit-h", 5, ".fp16", tiny=tiny)


def sdxl(folder: Path, *, tiny: bool) -> None:
    write_base(folder, "sdxl", 6, tiny=tiny)
    write_text_encoder(folder, "clip-l", 7, ".fp16", tiny=tiny)
    write_text_encoder(folder, "bigg", 8, ".fp16", "_2", tiny=tiny)


def lcm(folder: Path, *, tiny: bool) -> None:
    """In float32 and without the safety checker that its index names, as the catalogue downloads it."""
    write_base(folder, "lcm", 9, "", tiny=tiny)
    write_text_encoder(folder, "clip-l", 10, "", tiny=tiny)


def openclip(folder: Path, *, tiny: bool) -> None:
    write_text_encoder(folder, "vit-h", 5, ".fp16", tiny=tiny)  # the weights of sd21's


def oms_b(folder: Path, *, tiny: bool) -> None:
    """The module, and the configs that name its text encoder without holding it."""
    config = published.unet("oms-b", tiny=tiny)
    stock = {key: value for key, value in config.items() if not key.startswith("_")}
    shapes = shapes_of(lambda: UNet2DConditionModel(**stock))
    timeless = {name: shape for name, shape in shapes.items() if "time_" not in name}
    write_json(folder / "oms_module/config.json", config)
    path = folder / "oms_module/diffusion_pytorch_model.fp16.safetensors"
    write_tensors(path, random_tensors(timeless, torch.float16, 11))
    write_json(folder / "model_index.json", {"_class_name": "OMSPipeline", "_diffusers_version": "0.23.0"})
    for part in ("text_encoder", "tokenizer"):
        named = {"_name_or_path": "stabilityai/stable-diffusion-2-1", "subfolder": part}
        write_json(folder / f"oms_{part}/config.json", named)


def single_file(path: Path, *, tiny: bool) -> None:
    """The weights of the folder sd15 beside it in one file, with the training state that such files carry."""
    folder = path.parent / "sd15"
    config = published.unet("sd15", tiny=tiny)
    attends = {i for i, kind in enumerate(config["up_block_types"]) if "CrossAttn" in kind}
    stored = {
        part: load_file(folder / part / f"{stem}.fp16.safetensors")
        for part, stem in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"))
    }
    tensors = {ldm.unet_name(key, config["layers_per_block"], attends): value for key, value in stored["unet"].items()}
    for key, value in stored["vae"].items():
        for new, old in OLD_VAE_NAMES.items():
            key = key.replace(old, new)
        name = ldm.vae_name(key, 4)
        tensors[name] = value[:, :, None, None] if ".attn_1." in name and value.ndim == 2 else value
    text = load_file(folder / "text_encoder/model.fp16.safetensors")
    tensors |= {f"cond_stage_model.transformer.{key}": value for key, value in text.items()}
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    tensors["alphas_cumprod"] = torch.cumprod(1 - betas, dim=0).float()
    tensors["model_ema.num_updates"] = torch.tensor(0)
    write_tensors(path, tensors)


MODELS: dict[str, Callable[..., None]] = {
    "sd15": sd15,
    "sd21": sd21,
    "sdxl": sdxl,
    "lcm-dreamshaper-v7": lcm,
    "openclip-vit-h": openclip,
    "oms-b-openclip-15-21": oms_b,
    SINGLE_FILE: single_file,
}


def generate(folder: Path, name: str, *, tiny: bool = False) -> None:
    """Writes one of MODELS into `folder`, marked as a finished download."""
    MODELS[name](folder / name, tiny=tiny)
    if (folder / name).is_dir():
        write_json(folder / name / MARKER, {})


if __name__ == "__main__":
    for chosen in sys.argv[2:]:
        generate(Path(sys.argv[1]), chosen)
