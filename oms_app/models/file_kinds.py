"""The kind of model in a single safetensors file, by the names and shapes in its header. No torch, no values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from oms_app.errors import StudioError
from oms_app.models.reading import Stamp, read_header, stamp_of
from oms_app.models.safetensors_header import Header

Family = Literal["sd15", "sd21", "sdxl"]
NATIVE: dict[Family, int] = {"sd15": 512, "sd21": 768, "sdxl": 1024}  # pixels a side
DOMAINS: dict[Family, str] = {"sd15": "sd", "sd21": "sd", "sdxl": "sdxl"}  # latent domains, as the catalogue names them
TITLES: dict[Family, str] = {"sd15": "Stable Diffusion 1.x", "sd21": "Stable Diffusion 2.x", "sdxl": "SDXL"}
SUPPORTED = "OMS Studio runs Stable Diffusion 1.x, 2.x and SDXL"
UNET, VAE = "model.diffusion_model.", "first_stage_model."
FIRST_CONVOLUTION = UNET + "input_blocks.0.0.weight"
# Regular expressions for the names of tensors, and what a file with one of them is. The first that matches counts.
_OTHERS: tuple[tuple[str, str], ...] = (
    (r"^lora_controlnet$", "a ControlLoRA"),
    (r"^(image_proj|ip_adapter)\.", "an IP-Adapter"),  # some contain LoRAs
    (
        r"^(control_model\.|controlnet_(cond_embedding|down_blocks|blocks|x_embedder)|input_hint_block\.)",
        "a ControlNet",
    ),
    (r"^lllite_", "a ControlNet-LLLite"),
    (r"^(adapter\.)?body\.\d+\.in_conv\.", "a T2I adapter"),
    (r"motion_modules?\.", "an AnimateDiff motion module"),
    (r"(time_stack|time_mixer)", "Stable Video Diffusion"),
    (r"individual_token_refiner\.", "HunyuanVideo"),
    (r"distilled_guidance_layer\.", "Chroma, which is derived from Flux"),
    (r"(^|\.)double_blocks\.\d+\.img_attn\.|(^|\.)single_transformer_blocks\.", "Flux"),
    (r"(^|\.)joint_blocks\.\d+\.", "Stable Diffusion 3"),
    (r"(^|\.)double_layers\.\d+\.", "AuraFlow"),
    (r"(^|\.)double_stream_blocks\.\d+\.", "HiDream"),
    (r"^(model\.diffusion_model\.)?patch_embedding\.", "Wan or a relative of it"),
    (r"(^|\.)caption_projection\.", "a diffusion transformer (Sana or PixArt)"),
    (r"(^|\.)(effnet_mapper|clip_txt_mapper)\.", "Stable Cascade"),
    (r"(^|\.)img_in\..*|(^|\.)transformer_blocks\.\d+\.img_mod\.", "Qwen-Image or a relative of it"),
    (r"(^|\.)cap_embedder\.", "Lumina"),
    (r"(^|\.)(mlp_t5|pooler\.positional_embedding)", "HunyuanDiT"),
    (r"(^|\.)(patchify_proj|adaln_single)\.", "a diffusion transformer (PixArt or LTX)"),
    (r"(^|\.)blocks\.\d+\.(cross_attn|scale_shift_table)", "a diffusion transformer (PixArt or Wan)"),
    (r"(^|\.)transformer_blocks\.\d+\.attn\.add_[qkv]_proj\.", "Stable Diffusion 3 or Flux in the diffusers layout"),
    (r"^cond_stage_model\.roberta\.", "AltDiffusion, which has another text encoder"),
    (r"^noise_augmentor\.|^embedder\.model\.visual\.", "Stable unCLIP, which generates variations of a picture"),
)
# The same for files without a UNet in Stable Diffusion's layout.
_PARTS: tuple[tuple[str, str], ...] = (
    (r"^unet\.down_blocks.*|^unet\.conv_in\.", "a pipeline of diffusers in one file"),
    (r"^(diffusion_model\.)?input_blocks\.0\.0\.weight$", "only a UNet"),
    (r"^(unet\.)?down_blocks\.\d+\.(resnets|attentions)\.", "only a UNet, in the diffusers layout"),
    (r"^model_ema\.", "only the averaged (EMA) weights of a checkpoint"),
    (r"^(vae\.|first_stage_model\.)?(encoder|decoder)\.(conv_in|down|up|down_blocks|up_blocks|mid)\b", "only a VAE"),
    (r"^(text_model\.)?encoder\.layers\.\d+\.self_attn\.", "only a CLIP text encoder"),
    (r"^(text_model\.|transformer\.)?(embeddings\.token_embedding|text_model)\.", "only a CLIP text encoder"),
    (r"^transformer\.resblocks\.\d+\.", "only an OpenCLIP text encoder"),
    (r"^encoder\.block\.\d+\.layer\.", "only a T5 text encoder"),
    (r"^(cond_stage_model|conditioner)\.", "only a text encoder"),
    (r"^(vision_model|visual)\.", "a CLIP vision model"),
    (r"^model\.(layers\.\d+|embed_tokens)\.", "only a language model, as newer models have for their text encoder"),
    (r"^(taesd_)?(en|de)coder\.(layers\.)?\d+\.(conv\.\d+\.)?weight$", "only TAESD, a small VAE for previews"),
    (r"^(emb_params|clip_[lg]|string_to_param.*|<.*>)$", "a textual-inversion embedding"),
    (r"^\d+\.\d+\.linear\.", "a hypernetwork"),
    (r"^(model\.0\.weight|conv_first\.weight|model\.1\.sub\.)", "an upscaler"),
)
_WIDTHS = (768, 1024, 1280)  # of the token embeddings of CLIP ViT-L, OpenCLIP ViT-H and ViT-bigG
_INPUTS = {9: "an inpainting model", 8: "an InstructPix2Pix editing model", 5: "a depth model", 7: "an upscaling model"}
_QUANTISED = (
    (r"\.(quant_state\.|absmax$|quant_map$|nested_absmax$)", "bitsandbytes NF4 or FP4"),
    (r"\.SCB$", "bitsandbytes int8"),
    (r"\.(qweight|qzeros)$", "GPTQ or AWQ"),
    (r"\.weight_scale_2$", "NVFP4"),
)
SCALE_ENDINGS = (".scale_weight", ".weight_scale")  # beside a float8 `.weight`: its factor
_WEIGHT = re.compile(r"(weight|bias|_embedding|_projection)$")  # in any layout; position_ids and counters are whole
INTEGER_TYPES = {"U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "BOOL", "F4", "F6_E2M3", "F6_E3M2"}


@dataclass(frozen=True)
class FileKind:
    """kind: "other" cannot be used. family: of a checkpoint. title: what the file is, for a message.

    is_turbo: it is SD-Turbo, which takes one to four steps without guidance.
    """

    kind: Literal["checkpoint", "lora", "other"]
    title: str
    family: Family | None = None
    is_turbo: bool = False


def identify(path: Path) -> FileKind:
    """What a file is. Raises StudioError if its header cannot be read."""
    return _identify(path, stamp_of(path))


@lru_cache(maxsize=64)
def _identify(path: Path, stamp: Stamp) -> FileKind:
    header = read_header(path)
    names = header.tensors.keys()
    if other := _first(names, _OTHERS[:2]):
        return FileKind("other", other)
    if is_lora(names) and FIRST_CONVOLUTION not in names:
        return FileKind("lora", "a LoRA")
    if other := _first(names, _OTHERS):
        return FileKind("other", other)
    if not any(name.startswith(UNET) for name in names):
        part = _first(names, _PARTS) or ("a textual-inversion embedding" if _is_embedding(header) else "")
        start = f"{part}; it" if part else "a file that"
        return FileKind("other", f"{start} contains no UNet in Stable Diffusion's layout")
    return _checkpoint(header)


def family_of(path: Path) -> Family:
    """Which Stable Diffusion a checkpoint is. Raises StudioError for everything else, and says what it is."""
    found = identify(path)
    if found.kind == "lora":
        raise StudioError(f"{path} is a LoRA, which needs a base model: give a checkpoint")
    if found.family is None:
        raise StudioError(f"{path} is {found.title}: {SUPPORTED}, from whole checkpoints")
    return found.family


def is_lora(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a low-rank adapter's or one of its relatives' (LyCORIS), in any key format."""
    pattern = re.compile(
        r"^(lora|lycoris)_|\.lora_|_lora\.|\.lora\.|\.(hada_w|lokr_w|oft_|boft_|dora_scale)|^bundle_emb\."
        r"|^base_model\.model\."  # every adapter of PEFT
        r"|\.(diff|diff_b|w_norm|b_norm)$|^(unet|text_encoder):\d+:"
    )
    return any(pattern.search(name) for name in names)


def quantisation(header: Header, *, scaled: bool = False) -> str:
    """The name of a quantised format of a file's weights; "" for plain ones. scaled: whether float8 with one scale for
    each weight or output counts."""
    found = _first(header.tensors, _QUANTISED)
    if found:
        return found
    scales = [info for name, info in header.tensors.items() if name.endswith(SCALE_ENDINGS)]
    if any(len(scale.shape) > 1 and scale.shape[-1] > 1 for scale in scales):
        return "float8 with a scale for each block"
    if scaled and scales:
        return "float8 with scales"
    weights = (info for name, info in header.tensors.items() if _WEIGHT.search(name))
    integer = next((info.dtype for info in weights if info.dtype in INTEGER_TYPES), "")
    return f"the integer type {integer}" if integer else ""


def _first(names: Iterable[str], patterns: tuple[tuple[str, str], ...]) -> str:
    for pattern, title in patterns:
        search = re.compile(pattern).search
        if any(search(name) for name in names):
            return title
    return ""


def _is_embedding(header: Header) -> bool:
    """Whether the file contains a few vectors of CLIP's widths and nothing else."""
    shapes = [one.shape for one in header.tensors.values()]
    return 0 < len(shapes) <= 8 and all(
        len(shape) in (1, 2) and shape[-1] in _WIDTHS and (len(shape) == 1 or shape[0] <= 128) for shape in shapes
    )


def _checkpoint(header: Header) -> FileKind:
    names = header.tensors.keys()

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in names)

    first = header.tensors.get(FIRST_CONVOLUTION)
    inputs = first.shape[1] if first and len(first.shape) == 4 else 4
    if inputs != 4:
        what = _INPUTS.get(inputs, "an inpainting or editing model")
        return FileKind("other", f"{what} ({inputs} latent channels in, not 4)")
    if "edm_mean" in names or "edm_vpred.sigma_max" in names:
        return FileKind("other", "a model that was trained with EDM's noise levels")
    if found := quantisation(header):
        return FileKind("other", f"a checkpoint with quantised weights ({found})")
    labelled = has(UNET + "label_emb.")
    if has("conditioner.embedders.1."):
        return FileKind("other", _DISTILLED) if _is_distilled(header) else FileKind("checkpoint", "SDXL", "sdxl")
    if has("conditioner.embedders.0.model.") and not labelled and not has("cond_stage_model."):
        # Stable Diffusion 2.1 under SDXL's names.
        return FileKind("checkpoint", "SD-Turbo", "sd21", is_turbo=True)
    if has("conditioner.embedders.0.transformer."):
        return FileKind("other", "an SDXL checkpoint without its second text encoder")
    if has("conditioner."):
        return FileKind("other", "an SDXL refiner, which refines a finished picture")
    if labelled and (has("cond_stage_model.")):
        return FileKind("other", "an upscaling or unCLIP model, which needs more than a prompt")
    if has("cond_stage_model.transformer."):
        return FileKind("checkpoint", "Stable Diffusion 1.x", "sd15")
    if has("cond_stage_model.model."):
        return FileKind("checkpoint", "Stable Diffusion 2.x", "sd21")
    return FileKind("other", "a checkpoint without a text encoder")


_DISTILLED = "a distilled relative of SDXL (SSD-1B, Segmind Vega, KOALA), whose UNet has fewer blocks"
_SDXL_WIDTH = 320  # channels after the first convolution
# Transformer blocks of SDXL's UNet: how deep they are at each place that has attention.
_SDXL_DEPTHS = {
    **dict.fromkeys(("input_blocks.4", "input_blocks.5", "output_blocks.3", "output_blocks.4", "output_blocks.5"), 2),
    **dict.fromkeys(("input_blocks.7", "input_blocks.8", "middle_block"), 10),
    **dict.fromkeys(("output_blocks.0", "output_blocks.1", "output_blocks.2"), 10),
}


def _is_distilled(header: Header) -> bool:
    """Whether the UNet has fewer transformer blocks than SDXL's: such models are published under SDXL's names."""
    first = header.tensors.get(FIRST_CONVOLUTION)
    if first is None or first.shape[0] != _SDXL_WIDTH:
        return False
    expected = {f"{place}.1.transformer_blocks.{n}" for place, depth in _SDXL_DEPTHS.items() for n in range(depth)}
    block = re.compile(re.escape(UNET) + r"((?:\w+_blocks\.\d+|middle_block)\.1\.transformer_blocks\.\d+)\.")
    present = {found[1] for name in header.tensors if (found := block.match(name))}
    return present < expected
