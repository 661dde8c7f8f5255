"""Checks folders in the diffusers layout without torch: the pipeline, the files to read, what is missing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oms_app.errors import StudioError
from oms_app.models.file_kinds import SUPPORTED, quantisation
from oms_app.models.reading import read_header, read_json, weight_files

PICKLES = {".ckpt", ".bin", ".pt", ".pth", ".pkl"}
_UNFINISHED = "an unfinished download: let it finish, or download it again"
_NEEDED = "which is not read: use a version of the model in .safetensors"
# Endings of other files of models, and what they are.
_FORMATS = {
    ".gguf": f"a GGUF file, {_NEEDED}",
    ".onnx": f"an ONNX model, {_NEEDED}",
    ".msgpack": f"a file of Flax weights, {_NEEDED}",
    ".h5": f"a file of TensorFlow weights, {_NEEDED}",
    ".xml": f"an OpenVINO model, {_NEEDED}",
    ".engine": f"a TensorRT engine, {_NEEDED}",
    ".sft": "a safetensors file under a short name: rename it to .safetensors",
    **dict.fromkeys((".part", ".crdownload", ".incomplete", ".aria2", ".download"), _UNFINISHED),
}
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline")
LIBRARIES = {"diffusers", "transformers", "stable_diffusion", None}
USUAL_SCALE = 0.18215  # of a VAE whose config does not contain one, as in 2022
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
# The classes that a part may have, first the usual one; a scheduler may be any of diffusers'.
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
PART_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    **dict.fromkeys(("tokenizer", "tokenizer_2"), _TOKENIZERS),
}
# Prefixes of pipelines' class names, and what such a folder is.
_OTHERS: tuple[tuple[str, str], ...] = (
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("Flux", "Flux"),
    ("StableDiffusionXLImg2Img", "an SDXL refiner or another model that refines a picture"),
    ("StableDiffusionImg2Img", "a model that refines a picture"),
    ("OMSPipeline", "an OMS module, which is chosen beside a base model"),
    ("StableCascade", "Stable Cascade"),
    ("StableVideoDiffusion", "Stable Video Diffusion"),
    ("AltDiffusion", "AltDiffusion"),
)
_KINDS = (("Inpaint", "an inpainting model"), ("ControlNet", "a ControlNet"), ("Pix2Pix", "an editing model"))
_WEIGHTS = re.compile(
    r"^(?P<stem>.+?)(?:\.(?P<a>\w+))?(?:-(?P<n>\d{5})-of-(?P<of>\d{5}))?(?:\.(?P<b>\w+))?\.safetensors$",
    re.IGNORECASE,
)
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # what libraries call weights; others come after them
_ORDER = ("", "fp16", "bf16", "fp32")  # which of several variants is read; others come after them


@dataclass(frozen=True)
class PartWeights:
    """variant: as diffusers names it, None for files without one. files: in the order of their shards."""

    variant: str | None
    files: tuple[Path, ...]


def pickle_refused(source: object) -> StudioError:
    return StudioError(
        f"{source} is a pickle, which can run any code when it is read: convert it to .safetensors first"
    )


def refuse_format(path: Path, source: object) -> None:
    """Raises StudioError for an ending of another format than safetensors. source: the path as the user gave it."""
    ending = path.suffix.lower()
    if ending in PICKLES:
        raise pickle_refused(source)
    if ending in _FORMATS:
        raise StudioError(f"{source} is {_FORMATS[ending]}")


def snapshot_of(folder: Path) -> Path:
    """The newest snapshot in a repository's folder of the hub's cache (models--owner--name); else the folder."""
    snapshots = folder / "snapshots"
    if (folder / "model_index.json").is_file() or not snapshots.is_dir():
        return folder
    main = folder / "refs/main"
    named = snapshots / main.read_text(encoding="utf-8").strip() if main.is_file() else snapshots
    if named != snapshots and named.is_dir():
        return named
    found = [path for path in snapshots.iterdir() if path.is_dir()]
    return max(found, key=lambda path: path.stat().st_mtime_ns) if found else folder


def check_folder(folder: Path) -> str:
    """The pipeline's class that a diffusers folder names. Reads no weights.

    Raises StudioError for a class that is not supported, and for parts of another class, absent, pickled, or that
    need code from the folder.
    """
    index = _index(folder)
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in PIPELINES:
        raise StudioError(
            f"{folder} is {_title(name)}: this version runs {' and '.join(PIPELINES)} folders; {SUPPORTED}"
        )
    for part, described in parts_of(index).items():
        library, part_class = described
        if not isinstance(library, str) or library not in LIBRARIES:
            raise StudioError(f"{folder}: {part} needs code from {library!r}, which is never run")
        refuse_pickles(folder / part)
        if part in OPTIONAL:
            continue
        if not (folder / part).is_dir():
            raise StudioError(f"{folder} is incomplete: the folder {part} is missing; restore it")
        wanted = PART_CLASSES.get(part)
        if wanted and part_class not in wanted:
            raise StudioError(f"{folder}: its {part} is a {part_class}, not a {wanted[0]}; {SUPPORTED}")
        if wanted and not part.startswith("tokenizer"):
            _refuse_quantised(folder / part)
    if name != "StableDiffusionXLPipeline" and "text_encoder_2" in parts_of(index):
        raise StudioError(
            f"{folder} says that it is a {name}, but has a text_encoder_2, as SDXL has: restore its index"
        )
    needed = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
    needed += ["text_encoder_2", "tokenizer_2"] if name == "StableDiffusionXLPipeline" else []
    missing = [part for part in needed if part not in parts_of(index)]
    if missing:
        raise StudioError(f"{folder} is incomplete: its model_index.json does not list {missing[0]}; restore it")
    _check_vae(folder)
    _check_unet(folder, name)
    return name


def _check_vae(folder: Path) -> None:
    """Raises StudioError for a config that does not say in numbers how latents are scaled."""
    config = read_json(folder / "vae/config.json")
    channels, scale = config.get("latent_channels", 4), config.get("scaling_factor", USUAL_SCALE)
    if channels != 4:
        raise StudioError(f"{folder}: its VAE has {channels} latent channels, its UNet 4: take both from one model")
    lists = [config.get(name) for name in ("latents_mean", "latents_std")]
    if not (_is_number(scale) and scale > 0 and _is_number(config.get("shift_factor") or 0.0)) or any(
        not (isinstance(values, list) and len(values) == channels and all(map(_is_number, values)))
        for values in lists
        if values is not None
    ):
        raise StudioError(f"{folder}/vae/config.json has no valid scale of its latents (scaling_factor): restore it")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_unet(folder: Path, pipeline: str) -> None:
    """Raises StudioError for a UNet that needs more than latents, a timestep and the prompt, or fits no other part."""
    config = read_json(folder / "unet/config.json")
    inputs, outputs = config.get("in_channels", 4), config.get("out_channels", 4)
    if inputs != 4:
        raise StudioError(
            f"{folder} is an inpainting or editing model ({inputs} latent channels in, not 4); {SUPPORTED}"
        )
    if outputs != 4:
        raise StudioError(f"{folder}: its UNet has {outputs} channels out, not 4, as models that learn variances have")
    if config.get("num_class_embeds") is not None or config.get("class_embed_type") is not None:
        raise StudioError(
            f"{folder}: its UNet needs a class beside the prompt, as upscalers and unCLIP do; {SUPPORTED}"
        )
    if config.get("dual_cross_attention"):
        raise StudioError(f"{folder}: its UNet reads two prompts, as Versatile Diffusion's does; {SUPPORTED}")
    is_sdxl = pipeline == "StableDiffusionXLPipeline"
    added, projected = config.get("addition_embed_type"), config.get("encoder_hid_dim_type")
    usable = (None, "text", "text_time") if is_sdxl else (None, "text")  # "text" is computed from the prompt embedding
    if added not in usable or projected not in (None, "text_proj"):
        what = f"addition_embed_type {added}, encoder_hid_dim_type {projected}"
        raise StudioError(f"{folder} is a {pipeline}, but its UNet is of another model ({what}); {SUPPORTED}")
    read = config.get("encoder_hid_dim") if projected else config.get("cross_attention_dim", 1280)
    encoders = ("text_encoder", "text_encoder_2") if is_sdxl else ("text_encoder",)
    widths = [read_json(folder / part / "config.json").get("hidden_size") for part in encoders]
    known = [one for one in widths if isinstance(one, int) and one > 0]  # else building says what is wrong
    if isinstance(read, int) and len(known) == len(widths) and read != sum(known):
        raise StudioError(
            f"{folder}: its UNet reads prompt embeddings of width {read}, its text encoder gives {sum(known)}: "
            "take both from one model"
        )


def parts_of(index: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Part → (library, class), of those that a model_index.json names."""
    named = {part: pair for part, pair in index.items() if not part.startswith("_") and isinstance(pair, list)}
    return {part: (pair[0], pair[1] if len(pair) > 1 else None) for part, pair in named.items() if pair and pair[0]}


def part_weights(part: Path) -> PartWeights:
    """Which files a part's weights are read from. Raises StudioError if there are none, shards are missing, or files
    of unknown names are equally likely.
    """
    found: dict[tuple[str, str, int], dict[int, Path]] = {}  # by stem, variant and number of shards; a whole file is 1
    for file in weight_files(part):
        if match := _WEIGHTS.match(file.name):
            group = match["stem"].lower(), (match["a"] or match["b"] or ""), int(match["of"] or 1)
            found.setdefault(group, {})[int(match["n"] or 1)] = file
    if not found:
        refuse_pickles(part)
        _refuse_other_weights(part)
        raise StudioError(f"{part} contains no .safetensors weights: restore the folder")
    known = {group: files for group, files in found.items() if group[0] in _STEMS}
    if not known and len({stem for stem, _, _ in found}) > 1:
        names = ", ".join(file.name for files in found.values() for file in files.values())
        raise StudioError(f"{part} contains several models ({names}): keep one, named {_STEMS[0]}.safetensors")
    found = known or found
    complete = [group for group, shards in found.items() if len(shards) >= group[2]]
    if not complete:
        (_, _, wanted), shards = next(iter(found.items()))
        raise StudioError(f"{part} is incomplete: {len(shards)} of its {wanted} files exist; restore it")
    rank = {variant: place for place, variant in enumerate(_ORDER)}
    # A whole file beside shards: transformers reads the whole one, diffusers the shards if they have an index.
    shards_first = -1 if _has_index(part) and "_class_name" in _config_of(part) else 1

    def order(group: tuple[str, str, int]) -> tuple[int, str, int, str]:
        stem, variant, shards = group
        return rank.get(variant.lower(), 10), variant, shards_first * shards, stem

    chosen = min(complete, key=order)
    return PartWeights(chosen[1] or None, tuple(path for _, path in sorted(found[chosen].items())))


def _refuse_other_weights(part: Path) -> None:
    """Raises StudioError for links to files that are gone, and for weights in other formats alone."""
    for path in sorted(part.iterdir()) if part.is_dir() else ():
        if path.is_symlink() and not path.exists():
            raise StudioError(f"{path} is a link to a file that is gone: download the model again")
        refuse_format(path, path)


def _has_index(part: Path) -> bool:
    return any(".safetensors.index." in path.name.lower() for path in part.iterdir())


def _config_of(part: Path) -> dict[str, Any]:
    return read_json(part / "config.json") if (part / "config.json").is_file() else {}


def _refuse_quantised(part: Path) -> None:
    given = _config_of(part).get("quantization_config")
    method = given.get("quant_method", "unknown") if isinstance(given, dict) else given
    for file in part_weights(part).files:
        method = method or quantisation(read_header(file), scaled=True)
    if method:
        raise StudioError(f"{part} has quantised weights ({method}): use a version in float16 or float32; {SUPPORTED}")


def refuse_pickles(folder: Path) -> None:
    """Raises StudioError if a part has pickled weights and no safetensors."""
    if not folder.is_dir() or weight_files(folder):
        return
    for path in folder.iterdir():
        if path.suffix.lower() in PICKLES:
            raise pickle_refused(path)


def _index(folder: Path) -> dict[str, Any]:
    """model_index.json. Raises StudioError, saying what the folder is, if it has none."""
    if (folder / "model_index.json").is_file():
        return read_json(folder / "model_index.json")
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        kind = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
        if isinstance(kind, str):
            title = "a ControlNet" if "ControlNet" in kind else f"a {kind}"
            raise StudioError(f"{folder} is only {title}, without a model_index.json; {SUPPORTED}")
    if (folder / "model_index.json").is_symlink():
        raise StudioError(f"{folder}/model_index.json is a link to a file that is gone: download the model again")
    files = weight_files(folder)
    instead = f", or one of its files, such as {files[0].name}" if files else ""
    raise StudioError(f"{folder} contains no model_index.json: give a folder in the diffusers layout{instead}")


def _title(name: object) -> str:
    if isinstance(name, list):
        return f"a pipeline with code of its own ({', '.join(map(str, name))})"
    if not isinstance(name, str):
        return "a folder whose model_index.json names no pipeline"
    title = next((title for start, title in _OTHERS if name.startswith(start)), "")
    title = title or next((title for word, title in _KINDS if word in name), "")
    return f"a {name} ({title})" if title else f"a {name}"
