"""What a LoRA file holds, from its header alone: which modules it changes, and how. No torch.

Supported: LoRA as PEFT, kohya and diffusers before PEFT write it, LoCon, DoRA, and from LyCORIS LoHa, LoKr, full
differences and norms. Everything else is refused with its format's name; no tensor is skipped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oms_app.errors import StudioError
from oms_app.models.file_kinds import INTEGER_TYPES, TITLES, identify
from oms_app.models.reading import read_header, read_json, weight_files
from oms_app.models.safetensors_header import Header, TensorInfo
from oms_app.schema import PEFT_WEIGHTS

# Endings of tensors' names, and the role that the tensor has for its module. The first that matches counts.
_ROLES: tuple[tuple[str, str], ...] = (
    (r"\.lora_(?:down|A)(?:\.[^.]+)?\.weight$", "down"),  # an adapter's name may be between
    (r"\.lora_(?:up|B)(?:\.[^.]+)?\.weight$", "up"),
    (r"\.lora_(?:up|B)(?:\.[^.]+)?\.bias$", "up_bias"),
    (r"\.lora_mid\.weight$", "mid"),
    (r"(?:\.lora|_lora|\.lora_linear_layer)\.down\.weight$", "down"),
    (r"(?:\.lora|_lora|\.lora_linear_layer)\.up\.weight$", "up"),
    (r"(?:\.lora|_lora|\.lora_linear_layer)?\.alpha$", "alpha"),
    (r"\.dora_scale$", "dora_scale"),
    (r"\.lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?$", "magnitude"),
    (r"\.(hada_[wt][12](?:_[ab])?)$", ""),  # "": the ending is the role
    (r"\.(lokr_[wt][12](?:_[ab])?)$", ""),
    (r"\.(diff_b|diff|w_norm|b_norm|scalar)$", ""),
)
# Unsupported formats, by a part of a tensor's name.
_REFUSED: tuple[tuple[str, str], ...] = (
    (r"^bundle_emb\.|^emb_params$|\.emb_params$", "brings textual-inversion embeddings, which are not supported"),
    (r"\.oft_(blocks|diag)$|\.oft_R\b", "is an OFT or BOFT, which is not supported"),
    (r"\.(on_input|ia3_l)$|\.ia3_l", "is an (IA)³, which is not supported"),
    (r"\.[ab][12m]\.weight$", "is a GLoRA, which is not supported"),
    (
        r"\.bias_(indices|values|size)$|\.lora_(down|A)(\.[^.]+)?\.bias$",
        "changes biases in a way that is not supported",
    ),
    (r"\.lora_embedding_[AB]", "changes token embeddings, which is not supported"),
    (r"\.(vera_lambda|hra_u|boft_R|boft_s|ln_tuning|vblora)", "is an adapter of PEFT that is not supported"),
    (r"^lora_controlnet$", "is a ControlLoRA, which is not supported"),
    (
        r"(double_blocks|single_blocks|single_transformer_blocks|joint_blocks|^lora_transformer_|^transformer\.|"
        r"lora_te3|lora_t5|add_q_proj|add_k_proj)",
        "was made for Flux, SD3 or another diffusion transformer",
    ),
    (r"motion_modules?\.", "is a motion LoRA of AnimateDiff, which is not supported"),
    (
        r"^(unet|text_encoder):\d+:",
        "is in the format of lora_diffusion, which numbers its modules; it is not supported",
    ),
    (
        r"^(diffusion_model\.|lora_unet_|base_model\.model\.)?(blocks|layers|transformer_blocks)[._]\d+[._]",
        "was made for a diffusion transformer, such as Wan, Qwen-Image or Lumina",
    ),
    (r"^lora_prior_|^lora_unet_(img_in|txt_in|x_embedder)", "was made for another architecture"),
)
# The roles that a module may have, by format; the first two, or the first, are required.
_FORMATS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    (
        "LoRA",
        frozenset({"down", "up"}),
        frozenset({"up_bias", "mid", "alpha", "scalar", "dora_scale", "magnitude", "diff_b"}),
    ),
    (
        "LoHa",
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
        frozenset({"hada_t1", "hada_t2", "alpha", "scalar", "dora_scale", "diff_b"}),
    ),
    ("difference", frozenset({"diff"}), frozenset({"diff_b", "alpha"})),
    ("norm", frozenset({"w_norm"}), frozenset({"b_norm", "alpha"})),
    ("bias", frozenset({"diff_b"}), frozenset({"alpha"})),
    ("bias", frozenset({"b_norm"}), frozenset({"alpha"})),
)
_CONTEXT = {768: TITLES["sd15"], 1024: TITLES["sd21"], 2048: TITLES["sdxl"]}  # width of the cross-attention input


@dataclass(frozen=True)
class LoraModule:
    """One module's change. stem: the module as the file names it. roles: role → tensor's name. rank: of its factors.

    format: LoRA (with a `mid` a Tucker LoCon, with a `dora_scale` or `magnitude` a DoRA), LoHa, LoKr, difference …
    scale: α/r, or α/√r, if the file's metadata say so; None: from the tensor `alpha`, else 1.
    """

    stem: str
    format: str
    roles: dict[str, str]
    rank: int
    scale: float | None = None


@dataclass(frozen=True)
class LoraFile:
    """made_for: the family that its shapes indicate, "" if unknown."""

    path: Path
    modules: tuple[LoraModule, ...]
    made_for: str = ""


PEFT_CONFIG = "adapter_config.json"  # beside the weights of a PEFT adapter
MAX_BYTES = 4 * 2**30  # of a LoRA file; of rank 256 for SDXL in float32 it has 3.5 GiB
_PEFT_KINDS = ("LORA", "LOHA", "LOKR")
_PEFT_PREFIX = "base_model.model."
_PARTS = ("unet", "text_encoder_2", "text_encoder")
# Initial factors that PEFT takes out of the base model's weights when it loads them.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings of PEFT with which the weights change in another way.
_UNSUPPORTED = (
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "monteclora_config"),
    *("target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora"),
)
_PEFT_ALPHA = 8  # PEFT's own if its config does not say it


@dataclass
class _Metadata:
    """Ranks and alphas as PEFT keeps them beside its tensors; of one part of the pipeline, or of all."""

    config: Mapping[str, Any] = field(default_factory=dict)

    def scale(self, stem: str, rank: int) -> float | None:
        """α/r of a module, None if it is not given. The first pattern that matches counts, as in PEFT."""
        config, module = self._of(stem)
        usual = _PEFT_ALPHA if "r" in config or "peft_type" in config else None
        alpha = _first_match(config.get("alpha_pattern"), module, config.get("lora_alpha", config.get("alpha", usual)))
        if config.get("peft_type") == "LOKR":  # PEFT divides by the config's rank even if both factors are whole
            rank = _first_match(config.get("rank_pattern"), module, config.get("r")) or rank
        if not isinstance(alpha, (int, float)) or rank == 0:
            return None
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)

    def is_dora(self, stem: str) -> bool:
        return bool(self._of(stem)[0].get("use_dora"))

    def _of(self, stem: str) -> tuple[dict[str, Any], str]:
        """The config of the module's part of the pipeline, and the module's name in that part."""
        module = stem.removeprefix(_PEFT_PREFIX)
        part = next((part for part in _PARTS if module.startswith(f"{part}.")), "")
        own = {
            name.removeprefix(f"{part}."): value
            for name, value in self.config.items()
            if part and name.startswith(f"{part}.")
        }
        config = own or {name: value for name, value in self.config.items() if "." not in name}
        return config, module.removeprefix(f"{part}.") if part else module


def _first_match(patterns: Any, module: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches the end of the module's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def lora_files(path: Path) -> tuple[Path, Path]:
    """The files that a LoRA is read from; the second need not exist."""
    return path, path.with_name(PEFT_CONFIG)


def lora_in(folder: Path) -> Path | None:
    """The LoRA's file in a folder: that of a PEFT adapter, or the only safetensors file; None if it has none.

    Raises StudioError for several LoRAs.
    """
    files = weight_files(folder)
    if peft := [file for file in files if file.name.lower() == PEFT_WEIGHTS]:
        return peft[0]
    found = [file for file in files if identify(file).kind == "lora"]
    if len(found) > 1:
        raise StudioError(f"{folder} contains several LoRAs ({', '.join(file.name for file in found)}): give one file")
    return found[0] if found else None


def refuse_large(path: Path) -> None:
    """Raises StudioError for a file that is too large to be a LoRA, before its tensors are read."""
    size = path.stat().st_size if path.is_file() else 0
    if size > MAX_BYTES:
        raise StudioError(f"{path.name} has {size / 2**30:.1f} GiB: a LoRA has at most {MAX_BYTES // 2**30} GiB")


def read_lora(path: Path) -> LoraFile:
    """What a LoRA file contains. Raises StudioError, naming the format, if it cannot be applied exactly."""
    refuse_large(path)
    header = read_header(path)
    metadata = _metadata(path, header)
    grouped: dict[str, dict[str, str]] = {}
    unknown: list[str] = []
    for name in header.tensors:
        for pattern, why in _REFUSED:
            if re.search(pattern, name):
                raise StudioError(f"the LoRA {path.name} {why}: use another")
        role, stem = _role_of(name)
        if not role:
            unknown.append(name)
        elif role in grouped.setdefault(stem, {}):
            raise StudioError(f"the LoRA {path.name} contains two adapters for {stem}: use a file with one")
        else:
            grouped[stem][role] = name
    if len(unknown) == len(header.tensors) and (found := identify(path)).kind != "lora":
        what = found.title if found.kind == "other" else f"a checkpoint of {found.title}"
        raise StudioError(f"{path.name} is not a LoRA, but {what}: give a LoRA")
    if unknown:
        shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise StudioError(f"the LoRA {path.name} has unknown tensors ({shown}): use another")
    grouped = {stem: roles for stem, roles in grouped.items() if roles.keys() != {"alpha"}}  # nothing to scale
    if not grouped:
        raise StudioError(f"the LoRA {path.name} contains no weights: download it again")
    is_peft = all(stem.startswith(_PEFT_PREFIX) for stem in grouped)
    if is_peft and not metadata.config and not any("alpha" in roles for roles in grouped.values()):
        raise StudioError(
            f"the LoRA {path.name} is a PEFT adapter, whose strength is in {PEFT_CONFIG}: put that file beside it"
        )
    modules = [_module(path, stem, roles, header.tensors, metadata) for stem, roles in grouped.items()]
    return LoraFile(path, tuple(modules), _made_for(header, modules))


def _role_of(name: str) -> tuple[str, str]:
    """(role, stem) of a tensor; ("", "") for an unknown one."""
    for pattern, role in _ROLES:
        found = re.search(pattern, name)
        if found:
            return role or found[1], name[: found.start()]
    return "", ""


def _metadata(path: Path, header: Header) -> _Metadata:
    """PEFT's own, in the file's header (diffusers) or in adapter_config.json beside it (PEFT)."""
    text = header.metadata.get("lora_adapter_metadata")
    if text:
        try:
            config = json.loads(text)
        except ValueError as error:
            raise StudioError(f"the LoRA {path.name} has metadata that are not JSON: use another") from error
        config = config if isinstance(config, dict) else {}
        _check_config(path, config)
        return _Metadata(config)
    beside = path.with_name(PEFT_CONFIG)
    is_peft = path.stem.startswith("adapter_model") or any(name.startswith(_PEFT_PREFIX) for name in header.tensors)
    config = read_json(beside) if is_peft and beside.is_file() else {}
    kind = str(config.get("peft_type") or _PEFT_KINDS[0]).upper()
    if kind not in _PEFT_KINDS:
        raise StudioError(
            f"the LoRA {path.name} is a PEFT adapter of the kind {kind}, which is not supported: use another"
        )
    _check_config(path, config)
    return _Metadata(config)


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Raises StudioError for settings of PEFT that are not supported, and for values of the wrong type."""
    for name, value in config.items():
        key = name.rpartition(".")[2]  # after the part of the pipeline
        start = str(value).lower()
        if key == "init_lora_weights" and start.startswith(_CHANGES_BASE):
            raise StudioError(
                f"the LoRA {path.name} is a PEFT adapter that changes the base model ({start}): use another"
            )
        if key in _UNSUPPORTED and value:
            raise StudioError(f"the LoRA {path.name} is a PEFT adapter with {key}, which is not supported: use another")
        wrong = (key in ("alpha_pattern", "rank_pattern") and value and not _are_patterns(value)) or (
            key in ("lora_alpha", "alpha", "r") and not isinstance(value, (int, float))
        )
        if wrong:
            raise StudioError(f"the LoRA {path.name} has metadata with an invalid {key}: use another")


def _are_patterns(value: Any) -> bool:
    """Whether it maps regular expressions to numbers. Repeated groups, which can take for ever, are none."""
    if not isinstance(value, dict) or not all(isinstance(number, (int, float)) for number in value.values()):
        return False
    try:
        return not any(re.search(r"\)[*+?{]", re.compile(pattern).pattern) for pattern in value)
    except re.error:
        return False


def _module(
    path: Path, stem: str, roles: dict[str, str], tensors: Mapping[str, TensorInfo], metadata: _Metadata
) -> LoraModule:
    def rank_of(role: str) -> int:
        shape = tensors[roles[role]].shape
        return shape[0] if shape else 0

    for role, name in roles.items():
        if role not in ("alpha", "scalar") and (dtype := tensors[name].dtype) in INTEGER_TYPES:
            raise StudioError(f"the LoRA {path.name} has quantised weights (the integer type {dtype}): use another")
    present = frozenset(roles)
    for name, needed, optional in _FORMATS:
        if needed <= present <= needed | optional:
            if name == "LoRA" and metadata.is_dora(stem) and not present & {"magnitude", "dora_scale"}:
                raise StudioError(f"the LoRA {path.name} is incomplete: a DoRA without the magnitude of {stem}")
            rank = rank_of({"LoRA": "down", "LoHa": "hada_w1_b"}[name]) if name in ("LoRA", "LoHa") else 0
            return LoraModule(stem, name, roles, rank, metadata.scale(stem, rank))
    kron = {role for role in present if role.startswith("lokr_")}
    if kron and present - kron <= {"alpha", "scalar", "dora_scale", "diff_b"} and _is_whole_kronecker(kron):
        # The rank of the last factor that has one; two full factors have none, and no α.
        rank = next((rank_of(role) for role in ("lokr_w2_b", "lokr_w1_b") if role in roles), 0)
        return LoraModule(stem, "LoKr", roles, rank, metadata.scale(stem, rank))
    raise StudioError(
        f"the LoRA {path.name} is incomplete: {stem} has only {', '.join(sorted(present))}; download it again"
    )


def _is_whole_kronecker(roles: set[str]) -> bool:
    """Whether both factors are present, each whole or as two; a core `t2` belongs to two."""
    halves = [{f"lokr_w{i}_a", f"lokr_w{i}_b"} for i in (1, 2)]
    whole = all((f"lokr_w{i}" in roles) != (halves[i - 1] <= roles) for i in (1, 2))
    known = {"lokr_w1", "lokr_w2", "lokr_t2"} | halves[0] | halves[1]
    return whole and roles <= known and ("lokr_t2" not in roles or halves[1] <= roles)


def _made_for(header: Header, modules: list[LoraModule]) -> str:
    """The family, by the width of its cross-attention input, by its text encoders, or by its metadata."""
    said = " ".join(header.metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture")).lower()
    if (
        any(module.stem.startswith(("lora_te2", "text_encoder_2", "text_encoders.clip_g")) for module in modules)
        or "sdxl" in said
    ):
        return TITLES["sdxl"]
    for module in modules:
        if re.search(r"attn2[._]to_[kv]$", module.stem) and "down" in module.roles:
            shape = header.tensors[module.roles["down"]].shape
            if len(shape) >= 2 and shape[1] in _CONTEXT:
                return _CONTEXT[shape[1]]
    return ""
