"""Low-rank adapters fused into a base model's weights.

A base with adapters is a separate model in the store, so an adapter can never affect another request's pictures.
The formulas are in lora_math.py: diffusers and PEFT support one α for all modules, and drop tensors they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oms_app.errors import StudioError
from oms_app.models import lora_math
from oms_app.models.failures import library_errors
from oms_app.models.ldm_names import clip_name, unet_names
from oms_app.models.lora_formats import LoraFile, LoraModule, read_lora, refuse_large
from oms_app.models.tensor_files import read_tensors

Adapters = tuple[tuple[Path, float], ...]  # files, and how strongly each is applied
Target = tuple[str, torch.nn.Module]  # the part's name, the module
PARTS = ("unet", "text_encoder", "text_encoder_2")
_TEXT_STEMS = {"text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}
_CLIP_PREFIX = r"^(?:text_encoders\.)?(clip_[lhg])\.(?:transformer\.)?"  # ComfyUI's, and OneTrainer's without the rest
_CLIPS = {"clip_l": "text_encoder", "clip_h": "text_encoder", "clip_g": "text_encoder_2"}
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def fuse_loras(pipeline: Any, adapters: Sequence[tuple[Path, float]]) -> None:
    """W ← W + scale · (α/r) B A for every module of every adapter, and likewise for the other formats, in place.

    Computed in float32, whatever the weights are kept in. Raises StudioError if a file cannot be read, has an
    unsupported format, or does not fit this pipeline.
    """
    targets = _targets(pipeline) if adapters else {}
    for path, scale in adapters:
        tensors = read(path)
        file = read_lora(path)
        placed = _place(file, targets)
        for module, (_, target) in zip(file.modules, placed, strict=True):
            try:
                _fuse(target, module, {role: tensors[name] for role, name in module.roles.items()}, scale)
            except (ValueError, RuntimeError) as error:
                raise _misfit(file, f"{module.stem}: {error}") from error


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA file, in float32. Raises StudioError as `read_lora`, and for NaN or infinity."""
    refuse_large(path)
    with library_errors(f"the LoRA {path} cannot be read as safetensors", "download it again"):
        tensors = {name: tensor.to(torch.float32) for name, tensor in read_tensors([path]).items()}
    if any(not torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise StudioError(f"the LoRA {path} contains values that are not finite: download it again")
    read_lora(path)
    return tensors


@torch.no_grad()
def _fuse(target: torch.nn.Module, module: LoraModule, tensors: dict[str, Tensor], strength: float) -> None:
    for role, name in (("diff_b", "bias"), ("b_norm", "bias")):
        if role in tensors:
            _add(target, name, strength * tensors[role])
    if module.format == "bias":
        return
    weight: Tensor = target.weight.float()  # type: ignore[assignment]
    scale = _scale(module, tensors)
    if "up_bias" in tensors:  # B (A x) + b, all of it times α/r
        _add(target, "bias", strength * scale * tensors["up_bias"])
    delta = lora_math.change(module.format, tensors, weight.shape) * scale
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    if magnitude is not None:
        of_outputs = "magnitude" in tensors or lora_math.dora_is_of_outputs(magnitude, weight)
        delta = lora_math.decompose(weight, delta, magnitude, of_outputs=of_outputs) - weight
    _add(target, "weight", strength * delta)


def _add(target: torch.nn.Module, name: str, delta: Tensor) -> None:
    parameter = getattr(target, name, None)
    if parameter is None or parameter.numel() != delta.numel():
        raise ValueError(f"it changes a {name} that the module does not have")
    parameter.data = (parameter.float() + delta.reshape(parameter.shape)).to(parameter.dtype)


def _scale(module: LoraModule, tensors: dict[str, Tensor]) -> float:
    """α/r; 1 if no α is given, and for formats without a rank; times LyCORIS' trained scalar, if there is one."""
    scalar = float(tensors.get("scalar", 1.0))
    if "alpha" in tensors and module.rank:
        return scalar * float(tensors["alpha"]) / module.rank
    return scalar if module.scale is None else scalar * module.scale


def _place(file: LoraFile, targets: dict[str, Target]) -> list[Target]:
    """The module of the pipeline that each of the file's modules changes. Raises StudioError if one has none."""
    placed = [targets.get(_canonical(module.stem)) for module in file.modules]
    found = [target for target in placed if target is not None]
    if len({id(module) for _, module in found}) < len(found):
        raise StudioError(f"the LoRA {file.path.name} names a module twice: use a file with one adapter")
    if len(found) == len(placed):
        return found
    missing = [module.stem for module, target in zip(file.modules, placed, strict=True) if target is None]
    parts = {part for part, _ in found}
    if found and parts <= {"text_encoder", "text_encoder_2"}:
        raise _misfit(file, "only its text-encoder part fits")
    raise _misfit(file, f"{len(missing)} of its {len(placed)} parts do not fit, such as {missing[0]}")


def _misfit(file: LoraFile, why: str) -> StudioError:
    made = f"; it was made for {file.made_for}" if file.made_for else ""
    return StudioError(f"the LoRA {file.path.name} does not fit this base model ({why}{made}): use another")


def _canonical(stem: str) -> str:
    """A module's name as in `_targets`, from the name that a format uses: with dots, without prefixes of tools."""
    stem = stem.removeprefix("base_model.model.")
    stem = re.sub(r"(^|\.)(?:_orig_mod|module)\.", r"\1", stem)  # of torch.compile and of distributed training
    stem = re.sub(_CLIP_PREFIX, lambda found: f"{_CLIPS[found[1]]}.", stem)
    stem = re.sub(r"\.processor\.to_out$", ".to_out.0", stem).replace(".processor.", ".")
    if stem.startswith("text_encoder"):
        old = re.search(r"\.self_attn\.(to_(?:q|k|v|out))$", stem)
        stem = f"{stem[: old.start(1)]}{_OLD_TEXT[old[1]]}" if old else stem
    return stem


def _targets(pipeline: Any) -> dict[str, Target]:
    """Every name that any format uses for a module with weights → that module."""
    made: dict[str, Target] = {}
    for part in PARTS:
        model = getattr(pipeline, part, None)
        if model is None:
            continue
        original = unet_names(model) if part == "unet" else {}
        for name, module in model.named_modules():
            if getattr(module, "weight", None) is None:
                continue
            if part == "unet":
                theirs = original.get(name, name)
                names = [name, f"unet.{name}"]
                names += [f"{root}{theirs}" for root in ("unet.", "diffusion_model.", "model.diffusion_model.")]
                names += [f"lora_unet_{n.replace('.', '_')}" for n in {name, theirs}]
                names += [f"lycoris_{name.replace('.', '_')}"]
            else:
                plain, full = name.removeprefix("text_model."), clip_name(name)
                names = [f"{part}.{plain}", f"{part}.{full}"]
                names += [f"{stem}_{full.replace('.', '_')}" for stem in _TEXT_STEMS[part]]
            made |= dict.fromkeys(names, (part, module))
    return made
