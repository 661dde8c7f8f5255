"""Single-file checkpoints in Stable Diffusion's original key layout, as on community sites.

safetensors only. The configuration is in presets/configs: nothing comes from the network, and only tensors and a few
markers come from the file. Every tensor is accounted for: it belongs to a part, is known to be useless for generation,
or is reported (see `unread_tensors`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from oms_app.errors import StudioError
from oms_app.models.failures import library_errors
from oms_app.models.file_kinds import SCALE_ENDINGS, SUPPORTED, TITLES, UNET, VAE, Family, family_of, identify
from oms_app.models.ldm_names import OPEN_CLIP_EDGES, clip_name, open_clip_name, unet_names, vae_names
from oms_app.models.prediction import prediction_type
from oms_app.models.reading import read_header, read_json
from oms_app.models.safetensors_header import Header
from oms_app.models.tensor_files import TensorFile
from oms_app.models.tokenizers import clip_tokenizer
from oms_app.paths import PRESETS
from oms_app.prestep.schedule import rescale_zero_terminal_snr

CONFIGS = PRESETS / "configs"  # one folder per family: a diffusers pipeline without weights
_TEXT = {"sd15": ("cond_stage_model.transformer.",), "sdxl": ("conditioner.embedders.0.transformer.",)}
_OPEN_CLIP = {
    "sd21": ("cond_stage_model.model.", "conditioner.embedders.0.model."),
    "sdxl": ("conditioner.embedders.1.model.",),
}
_SAID = ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type")  # the second is ComfyUI's
_MEANT = (
    ("flow", "a flow-matching model"),
    ("edm", "a model of EDM"),
    (r"^v(\b|_|pred)", "v_prediction"),
    ("^eps", "epsilon"),
    (r"^(sample|x_?0|x_?start)", "sample"),
)
TABLE_TOLERANCE = 4e-3  # of ᾱ in a file's table, which bfloat16 rounds by as much
ZERO_ALPHA = 1e-4  # ᾱ_T below it is zero SNR
# Not used for generation: training state, EMA copies, tables that follow from the betas, scales of activations.
_UNUSED = re.compile(
    r"^model_ema\.|\.model_ema\.|^loss\.|^first_stage_model\.(loss|discriminator)\.|^(global_step|epoch|scale_factor|logvar)$"
    r"|^(betas|alphas_cumprod|alphas_cumprod_prev|sqrt_\w+|log_one_minus_alphas_cumprod|posterior_\w+|lvlb_weights)$"
    r"|^denoiser\.(log_)?sigmas$|position_ids$|logit_scale$|\.attn_mask$|(^|\.)(scaled_fp8|comfy_quant)$"
    r"|\.(scale_input|input_scale)$|^(v_pred|ztsnr)$|text_projection(\.weight)?$"
)


def load_single_file(path: Path, dtype: torch.dtype) -> Any:
    """The pipeline in a file, StableDiffusionPipeline or StableDiffusionXLPipeline, its weights in `dtype`.

    The VAE stays in float32: a fingerprint is taken of it, and the CPU decodes with it.
    Raises StudioError as `family_of`, and if tensors are missing, have wrong shapes, or are unknown.
    """
    family = family_of(path)
    what = f"{path} looks like {TITLES[family]} but cannot be read as such"
    with library_errors(what, "download it again"), TensorFile(path) as file:
        reader = _Reader(path, family, file, read_header(path), dtype)
        parts: dict[str, Any] = {"unet": _unet(reader), "vae": _vae(reader), **_text_encoders(reader)}
        parts |= _tokenizers(family)
        reader.require_nothing_left()
        parts["scheduler"] = _scheduler(reader, parts["unet"])
    if family == "sdxl":
        zeros = bool(read_json(CONFIGS / family / "model_index.json").get("force_zeros_for_empty_prompt", True))
        return StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def unread_tensors(path: Path) -> tuple[str, ...]:
    """Names of a checkpoint's tensors that belong to no part of it and have no known purpose."""
    parts = (UNET, VAE, "cond_stage_model.", "conditioner.")
    names = read_header(path).tensors
    return tuple(name for name in names if not name.startswith(parts) and not _UNUSED.search(name))


class _Reader:
    """The tensors of one checkpoint, each read once, scaled and cast."""

    def __init__(self, path: Path, family: Family, file: TensorFile, header: Header, dtype: torch.dtype) -> None:
        self.path, self.family, self.header, self.dtype = path, family, header, dtype
        self.title = f"{path} looks like {TITLES[family]}"
        self._file = file
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.header.tensors

    def value(self, name: str) -> torch.Tensor:
        """In float32, with its scale applied."""
        self._used.add(name)
        tensor: torch.Tensor = self._file.get_tensor(name)
        for ending in SCALE_ENDINGS:
            scale = name.removesuffix(".weight") + ending
            if name.endswith(".weight") and scale in self:
                self._used.add(scale)
                factor = self._file.get_tensor(scale).float()
                if 1 < factor.numel() == len(factor):  # one for each output, (out,) or (out, 1)
                    factor = factor.view(-1, *[1] * (tensor.ndim - 1))
                return tensor.float() * factor
        return tensor.float() if tensor.dtype.itemsize == 1 else tensor

    def plain(self, name: str) -> torch.Tensor:
        """A small tensor, in float64."""
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor.double()

    def fill(
        self, part: str, model: torch.nn.Module, take: Callable[[str], torch.Tensor], dtype: torch.dtype | None = None
    ) -> Any:
        """The model, built without weights, with those that take(key of its state dict) gives, in `dtype`, else the
        reader's.

        Raises StudioError for missing tensors and wrong shapes. take raises KeyError with the missing name.
        """
        state: dict[str, torch.Tensor] = {}
        missing: list[str] = []
        for key, empty in model.state_dict().items():
            try:
                tensor = take(key)
            except KeyError as error:
                missing.append(str(error.args[0]))
                continue
            if tensor.shape != empty.shape:
                if _squeezed(tensor.shape) != _squeezed(empty.shape):  # a 1×1 convolution may be kept as a matrix
                    shapes = f"{tuple(tensor.shape)}, not {tuple(empty.shape)}"
                    raise StudioError(
                        f"{self.title} but its {part} does not fit ({key} is {shapes}): "
                        "it is another architecture, or damaged: download it again"
                    )
                tensor = tensor.reshape(empty.shape)
            state[key] = tensor.to(dtype or self.dtype).contiguous()
        if missing:
            raise StudioError(
                f"{self.title} but its {part} is incomplete ({_list(missing)} missing): "
                "download it again, or use a complete version"
            )
        model.load_state_dict(state, assign=True)
        return model.eval()

    def require_nothing_left(self) -> None:
        """Raises StudioError for tensors of a part that are not in its architecture."""
        parts = (UNET, VAE, "cond_stage_model.", "conditioner.")
        left = [n for n in self.header.tensors if n.startswith(parts) and n not in self._used and not _UNUSED.search(n)]
        if self.family == "sd21":  # the text encoder's last layer, which Stable Diffusion 2.x does not read
            layers = [int(found[1]) for name in left if (found := re.search(r"\.resblocks\.(\d+)\.", name))]
            left = [name for name in left if f".resblocks.{max(layers, default=0)}." not in name]
        if left:
            raise StudioError(
                f"{self.title} but has tensors that do not belong to it ({_list(left)}): "
                f"it is another architecture; {SUPPORTED}"
            )


def _list(names: Iterable[str]) -> str:
    """Three of the names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _squeezed(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _config(family: Family, part: str) -> Path:
    return CONFIGS / family / part


def _renamed(reader: _Reader, prefix: str, names: dict[str, str]) -> Callable[[str], torch.Tensor]:
    def take(key: str) -> torch.Tensor:
        module, _, kind = key.rpartition(".")
        name = f"{prefix}{names[module]}.{kind}"
        if name not in reader:
            raise KeyError(name)
        return reader.value(name)

    return take


def _unet(reader: _Reader) -> Any:
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(_config(reader.family, "unet")))
    return reader.fill("UNet", unet, _renamed(reader, UNET, unet_names(unet)))


def _vae(reader: _Reader) -> Any:
    if not any(name.startswith(VAE) for name in reader.header.tensors):
        raise StudioError(
            f"{reader.path} contains no VAE ({VAE}…), so its latents cannot be decoded: use a version with "
            "the VAE inside"
        )
    with init_empty_weights():
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(_config(reader.family, "vae")))
    return reader.fill("VAE", vae, _renamed(reader, VAE, vae_names(vae)), torch.float32)


def _text_encoders(reader: _Reader) -> dict[str, Any]:
    family, made = reader.family, {}
    if family in _TEXT:
        made["text_encoder"] = _clip(reader, _TEXT[family][0])
    if family in _OPEN_CLIP:
        name = "text_encoder_2" if family == "sdxl" else "text_encoder"
        prefix = next(p for p in _OPEN_CLIP[family] if any(n.startswith(p) for n in reader.header.tensors))
        made[name] = _open_clip(reader, prefix, name)
    return made


def _clip(reader: _Reader, prefix: str) -> Any:
    """CLIP under transformers' names; in files of 2022, `text_model.` is missing."""
    config = CLIPTextConfig.from_pretrained(_config(reader.family, "text_encoder"), local_files_only=True)
    with init_empty_weights():
        model = CLIPTextModel(config)

    def take(key: str) -> torch.Tensor:
        name = prefix + clip_name(key)
        old = name.replace(f"{prefix}text_model.", prefix)
        if name not in reader and old not in reader:
            raise KeyError(name)
        return reader.value(name if name in reader else old)

    return reader.fill("text encoder", model, take)


def _open_clip(reader: _Reader, prefix: str, part: str) -> Any:
    """CLIP under OpenCLIP's names, with queries, keys and values in one matrix."""
    config = CLIPTextConfig.from_pretrained(_config(reader.family, part), local_files_only=True)
    with init_empty_weights():
        model = (CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel)(config)
    layer_of = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")

    def named(name: str) -> torch.Tensor:
        if prefix + name not in reader:
            raise KeyError(prefix + name)
        return reader.value(prefix + name)

    def take(key: str) -> torch.Tensor:
        key = key.removeprefix("text_model.")
        if key == "text_projection.weight":  # a plain parameter in OpenCLIP, (width, projection)
            return named(key) if prefix + key in reader else named("text_projection").T
        if key in OPEN_CLIP_EDGES:
            return named(OPEN_CLIP_EDGES[key])
        match = layer_of.match(key)
        assert match, key  # transformers' CLIP has no other parameters
        layer, module, kind = int(match[1]), match[2], match[3]
        if name := open_clip_name(layer, module):
            return named(f"{name}.{kind}")
        third = "qkv".index(module.removeprefix("self_attn.")[0])
        return named(f"transformer.resblocks.{layer}.attn.in_proj_{kind}").chunk(3)[third]

    return reader.fill("second text encoder" if part == "text_encoder_2" else "text encoder", model, take)


def _tokenizers(family: Family) -> dict[str, Any]:
    """Those of the configuration if present, else CLIP's."""
    names = ("tokenizer", "tokenizer_2") if family == "sdxl" else ("tokenizer",)
    made = {}
    for name in names:
        if (_config(family, name)).is_dir():
            made[name] = CLIPTokenizer.from_pretrained(_config(family, name), local_files_only=True)
        else:
            made[name] = clip_tokenizer(zero_padded=family == "sd21" or name == "tokenizer_2")
    return made


def _scheduler(reader: _Reader, unet: Any) -> Any:
    """The family's scheduler with what the file says about its schedule: markers, metadata, a table of ᾱ, a probe."""
    folder = _config(reader.family, "scheduler")
    config = read_json(folder / "scheduler_config.json")
    scheduler_class = getattr(diffusers, config["_class_name"])
    own: dict[str, Any] = {"prediction_type": _stated_prediction(reader)}
    if own["prediction_type"] is None:
        usual = "v_prediction" if reader.family == "sd21" else str(config.get("prediction_type", "epsilon"))
        own["prediction_type"] = prediction_type(unet, usual)
    if "ztsnr" in reader or reader.header.metadata.get("ss_zero_terminal_snr", "").lower() == "true":
        own |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    elif identify(reader.path).is_turbo:  # trained at four timesteps, 999 the first
        own["timestep_spacing"] = "trailing"
    elif (alphas := _noise_table(reader)) is not None:
        own |= _schedule_of(alphas, scheduler_class.from_config(config).alphas_cumprod.double())
    return scheduler_class.from_config(config | own)


def _noise_table(reader: _Reader) -> torch.Tensor | None:
    """ᾱ of each timestep, (T,) in float64, from whichever table of noise levels the file has."""
    tables: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "alphas_cumprod": lambda alphas: alphas,
        "betas": lambda betas: torch.cumprod(1 - betas, 0),
        "denoiser.sigmas": lambda sigmas: 1 / (sigmas**2 + 1),  # in either order
        "denoiser.log_sigmas": lambda logs: 1 / (torch.exp(2 * logs) + 1),
    }
    for name, alphas_of in tables.items():
        if name in reader and reader.header.tensors[name].dtype in ("F64", "F32", "F16", "BF16"):
            table = alphas_of(reader.plain(name).double())
            if table.ndim == 1 and len(table) > 1 and torch.isfinite(table).all():
                return table.sort(descending=True).values
    return None


def _schedule_of(alphas: torch.Tensor, usual: torch.Tensor) -> dict[str, Any]:
    """The scheduler's settings for a file's ᾱ, none if they are the family's usual ones. Half precision rounds a table
    by up to 4e-3, which is as much as the usual ᾱ_T, 0.0047: zero SNR is therefore decided by the last value alone."""
    if len(alphas) == len(usual) and float(alphas[-1]) < ZERO_ALPHA:
        rescaled = 1 - rescale_zero_terminal_snr(1 - torch.cat([usual[:1], usual[1:] / usual[:-1]]))
        if torch.allclose(alphas, torch.cumprod(rescaled, 0), atol=TABLE_TOLERANCE):
            return {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    elif len(alphas) == len(usual) and torch.allclose(alphas, usual, atol=TABLE_TOLERANCE):
        return {}
    betas = 1 - torch.cat([alphas[:1], alphas[1:] / alphas[:-1]])
    return {"trained_betas": betas.clamp(0, 1).tolist(), "num_train_timesteps": len(betas)}


def _stated_prediction(reader: _Reader) -> str | None:
    """The prediction type of its UNet according to the file, None if it says none. Raises StudioError for models that
    are not trained with betas."""
    if "v_pred" in reader:
        return "v_prediction"
    said = (reader.header.metadata.get(key, "").lower() for key in _SAID)
    text = next(filter(None, said), "")
    for pattern, meant in _MEANT:
        if re.search(pattern, text):
            if meant not in ("epsilon", "v_prediction", "sample"):
                raise StudioError(f"{reader.path} says that it is {meant} ({text}); {SUPPORTED}")
            return meant
    return None
