"""Reads a base model from a folder in the diffusers layout: safetensors only, no network, no code from the folder.

Each part is read separately, from the files that exist for it: a folder may contain one part in float16 and another in
float32. A part with missing tensors is refused; diffusers would fill them with random numbers.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from oms_app.errors import StudioError
from oms_app.models.config_bounds import check_part, check_tokenizer
from oms_app.models.failures import library_errors
from oms_app.models.file_kinds import SUPPORTED
from oms_app.models.folder_kinds import check_folder, part_weights, parts_of
from oms_app.models.part_files import readable_part, readable_texts
from oms_app.models.reading import read_json, weight_files
from oms_app.models.scheduler_factory import noise_follows_from_betas
from oms_app.models.tensor_files import read_tensors
from oms_app.models.tokenizers import whole_tokenizer

MODELS: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")  # the last is refused when a request resolves
TOKENIZERS = {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}
# Unused tensors that older versions saved, and those left in text encoders that were extracted from a whole CLIP.
_UNREAD = re.compile(r"position_ids$|logit_scale$|^vision_model\.|visual_projection|text_projection")


def load_folder(folder: Path, dtype: torch.dtype) -> Any:
    """The pipeline in a folder, StableDiffusionPipeline or StableDiffusionXLPipeline, its weights in `dtype`.

    The VAE stays in float32: a fingerprint is taken of it, and the CPU decodes with it.
    Latent consistency models run in StableDiffusionPipeline: they have the same parts, and their own pipeline has no
    negative prompt, no rescale and no interrupt. Raises StudioError as `check_folder`, and for what cannot be read.
    """
    name = check_folder(folder)
    index = read_json(folder / "model_index.json")
    with library_errors(f"{folder} cannot be read as a base model", "restore its files"):
        parts: dict[str, Any] = {}
        for part in MODELS.keys() & parts_of(index).keys():
            parts[part] = load_part(MODELS[part], folder / part, torch.float32 if part == "vae" else dtype)
        for part, encoder in TOKENIZERS.items():
            if encoder in parts:
                parts[part] = load_tokenizer(folder / part, parts[encoder].config)
        parts["scheduler"] = load_scheduler(folder / "scheduler", parts_of(index)["scheduler"][1])
        if name == "StableDiffusionXLPipeline":
            zeros = bool(index.get("force_zeros_for_empty_prompt", True))
            return StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
        checker, extractor = _safety_checker(folder, parts_of(index), dtype)
        with warnings.catch_warnings():
            # The pipeline corrects the steps_offset and clip_sample of old configs, and logs long warnings.
            warnings.simplefilter("ignore", FutureWarning)
            return StableDiffusionPipeline(
                **parts,
                safety_checker=checker,
                feature_extractor=extractor,
                requires_safety_checker=checker is not None,
            )


def load_part(model_class: Any, part: Path, dtype: torch.dtype) -> Any:
    """A model of diffusers or transformers from its own folder. Raises StudioError if tensors are missing or
    unknown; other exceptions of the libraries pass through.
    """
    check_part(part)
    of_diffusers = issubclass(model_class, diffusers.ModelMixin)
    tensors = read_tensors(part_weights(part).files, dtype)
    with readable_part(part, "diffusion_pytorch_model" if of_diffusers else "model") as (folder, _):
        build = _diffusers_model if of_diffusers else _transformers_model
        model, missing, mismatched, unexpected = build(model_class, folder, tensors, dtype)
    _require_none(part, "has missing tensors", [name for name in missing if not name.endswith("position_ids")])
    _require_none(part, "has tensors of another shape", [str(name) for name in mismatched])
    _require_none(part, "has unknown tensors", [name for name in unexpected if not _UNREAD.search(name)])
    return model.eval()


def _diffusers_model(model_class: Any, folder: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """A model with these tensors; which are missing, have another shape or are unknown. Nothing is copied."""
    with init_empty_weights():
        model = model_class.from_config(model_class.load_config(folder, local_files_only=True))
    model._fix_state_dict_keys_on_load(tensors)  # names of attention before 2023
    wanted = model.state_dict()
    wrong = [name for name, tensor in tensors.items() if name in wanted and wanted[name].shape != tensor.shape]
    fitting = {name: tensor for name, tensor in tensors.items() if name not in wrong}
    missing, unexpected = model.load_state_dict(fitting, strict=False, assign=True)
    return model, [name for name in missing if name not in wrong], wrong, unexpected


def _transformers_model(model_class: Any, folder: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """The same of transformers, which renames the tensors of older versions."""
    config = model_class.config_class.from_pretrained(folder, local_files_only=True)
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    return model, info["missing_keys"], info["mismatched_keys"], info["unexpected_keys"]


def load_tokenizer(part: Path, encoder: Any, tokenizer_class: Any = CLIPTokenizer) -> Any:
    """A tokenizer from its own folder. encoder: the config of its text encoder. Raises StudioError if files or words
    are missing, or the encoder does not fit."""
    have = {path.name for path in part.iterdir()} if part.is_dir() else set()
    if not ({"tokenizer.json"} <= have or {"vocab.json", "merges.txt"} <= have or {"spiece.model"} <= have):
        raise StudioError(
            f"{part} is incomplete: it has neither tokenizer.json nor vocab.json and merges.txt; restore its files"
        )
    check_tokenizer(part)
    with readable_texts(part) as folder:
        tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
    positions = getattr(encoder, "max_position_embeddings", None)  # T5 has none
    return whole_tokenizer(tokenizer, encoder.vocab_size, str(part), positions)


def load_scheduler(part: Path, class_name: object = None) -> Any:
    """A scheduler from its own folder, of the class of diffusers that is named, else of its config's.

    Raises StudioError, naming the class, if its noise levels do not follow from betas; flow matching and EDM are
    refused when a request resolves."""
    config = read_json(part / "scheduler_config.json")
    class_name = class_name or config.get("_class_name")
    known = getattr(diffusers, class_name, None) if isinstance(class_name, str) else None
    if class_name == "DPMSolverSDEScheduler":  # it needs the package torchsde; the model's values have Heun's defaults
        known = diffusers.HeunDiscreteScheduler
    if not (isinstance(known, type) and issubclass(known, diffusers.SchedulerMixin)):
        raise StudioError(f"{part}: the scheduler is a {class_name}, which diffusers does not have")
    if not noise_follows_from_betas(known) and not known.__name__.startswith(("FlowMatch", "EDM")):
        raise StudioError(f"{part}: the scheduler is a {class_name}, which has other noise levels; {SUPPORTED}")
    check_part(part)
    missing = [name for name in ("beta_start", "beta_end", "beta_schedule") if name not in config]
    if missing and noise_follows_from_betas(known) and config.get("trained_betas") is None:
        raise StudioError(f"{part} is incomplete: its config does not say {missing[0]}; restore it")
    if isinstance(config.get("predict_epsilon"), bool):  # as configs of 2022 say it; diffusers no longer reads it
        config["prediction_type"] = "epsilon" if config["predict_epsilon"] else "sample"
    if config.get("prediction_type", "epsilon") not in PREDICTIONS:
        raise StudioError(
            f"{part}: the scheduler's prediction_type {config['prediction_type']!r} is none of "
            f"{', '.join(PREDICTIONS)}: restore its config"
        )
    scheduler = known.from_config(config)  # type: ignore[attr-defined]
    if scheduler.config.get("timestep_type") == "continuous":
        raise StudioError(f"{part}: the scheduler's timesteps are continuous, as in models of EDM; {SUPPORTED}")
    return scheduler


def _require_none(part: Path, fault: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise StudioError(f"{part} {fault} ({shown}): restore its files")


def _safety_checker(folder: Path, parts: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Any]:
    """The safety checker and its image processor; both None if the index lists none or their files are missing."""
    named = {"safety_checker", "feature_extractor"} <= parts.keys()
    there = weight_files(folder / "safety_checker") and (folder / "feature_extractor").is_dir()
    if not (named and there):
        return None, None
    checker = load_part(StableDiffusionSafetyChecker, folder / "safety_checker", dtype)
    with readable_texts(folder / "feature_extractor") as texts:
        return checker, CLIPImageProcessor.from_pretrained(texts, local_files_only=True)
