"""Single-file checkpoints in Stable Diffusion's original key layout, as community sites offer them.

safetensors only. The family is told by the names of the tensors, the configuration is ours (presets/configs): nothing
is taken from the network, and nothing from the file but tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError, safe_open

from oms_app.errors import StudioError, one_line
from oms_app.models.text import clip_tokenizer
from oms_app.paths import PRESETS

Family = Literal["sd15", "sd21", "sdxl"]
CONFIGS = PRESETS / "configs"  # one folder a family: a diffusers pipeline without weights
NATIVE: dict[Family, int] = {"sd15": 512, "sd21": 768, "sdxl": 1024}  # pixels a side
DOMAINS: dict[Family, str] = {"sd15": "sd", "sd21": "sd", "sdxl": "sdxl"}  # latent domains, as the catalogue names them
UNET = "model.diffusion_model."
FIRST_CONVOLUTION = UNET + "input_blocks.0.0.weight"
EPSILON_CORRELATION = 0.5


def names_of(path: Path) -> set[str]:
    """Its tensors' names. Raises StudioError where its header cannot be read or promises more than is there."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise StudioError(f"{path} cannot be read as safetensors ({one_line(error)}): fetch it again") from error


def family_of(path: Path) -> Family:
    """Which Stable Diffusion a file is, by its header. Raises StudioError for all that cannot be run, saying why."""
    names = names_of(path)
    inputs = 4
    if FIRST_CONVOLUTION in names:
        with safe_open(path, framework="pt") as file:
            inputs = file.get_slice(FIRST_CONVOLUTION).get_shape()[1]

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in names)

    if is_lora(names):
        raise StudioError(f"{path} is a LoRA, which needs a base model: name a checkpoint here")
    if not has(UNET):
        raise StudioError(f"{path} holds no UNet in Stable Diffusion's layout: name a whole checkpoint")
    if inputs != 4:
        raise StudioError(f"{path} is an inpainting or editing model ({inputs} latent channels in): take a plain one")
    if "edm_mean" in names or "edm_vpred.sigma_max" in names:
        raise StudioError(f"{path} was trained with EDM's noise levels, which are not run here: take another")
    if has("conditioner.embedders.1."):
        return "sdxl"
    if has("conditioner."):
        raise StudioError(f"{path} is an SDXL refiner, which paints over a finished picture: take the base model")
    if has("cond_stage_model.transformer."):
        return "sd15"
    if has("cond_stage_model.model."):
        return "sd21"
    raise StudioError(f"{path} holds no text encoder: name a whole checkpoint, not a UNet alone")


def is_lora(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a low-rank adapter's, in PEFT's key format or in kohya's."""
    return any(name.startswith("lora_") or ".lora_" in name or "_lora." in name for name in names)


def load_single_file(path: Path, dtype: torch.dtype) -> Any:
    """The pipeline in a file, StableDiffusionPipeline or StableDiffusionXLPipeline.

    Raises StudioError as `family_of`, and where tensors are missing or misshapen.
    """
    family = family_of(path)
    config = CONFIGS / family
    given: dict[str, Any] = {"add_watermarker": False} if family == "sdxl" else {}
    if not (config / "tokenizer").is_dir():
        given["tokenizer"] = clip_tokenizer(zero_padded=family == "sd21")
        if family == "sdxl":
            given["tokenizer_2"] = clip_tokenizer(zero_padded=True)
    try:
        pipeline = (StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline).from_single_file(
            str(path), config=str(config), local_files_only=True, dtype=dtype, **given
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise StudioError(
            f"{path} looks like {family} but cannot be read as one ({one_line(error)}): fetch it again"
        ) from error
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and any(tensor.is_meta for tensor in part.state_dict().values()):
            raise StudioError(f"{path} looks like {family} but its {name} is incomplete: fetch it again")
    if family == "sd21":
        pipeline.scheduler.register_to_config(prediction_type=prediction_type(pipeline.unet))
    return pipeline


@torch.no_grad()
def prediction_type(unet: Any) -> str:
    """ "epsilon" or "v_prediction": SD 2.x comes as both, and no file says which.

    At the last timestep almost all that a UNet sees is noise. One that predicts ε answers with its own input; one that
    predicts v = √ᾱ ε - √(1-ᾱ) x0 answers with a picture, which has little to do with it.
    """
    config = unet.config
    side = 16
    noise = torch.randn(1, config.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(1, 77, config.cross_attention_dim)
    dtype = next(unet.parameters()).dtype
    answer = unet(noise.to(dtype), 999, hidden.to(dtype)).sample.float()
    correlation = torch.corrcoef(torch.stack([answer.flatten(), noise.flatten()]))[0, 1]
    return "epsilon" if correlation > EPSILON_CORRELATION else "v_prediction"
