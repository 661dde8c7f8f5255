"""ψ(x_S, c): a text-conditional UNet without timestep conditioning, in the published layout of OMS modules.

It runs once, on pure noise, so it needs no timestep. It contains a stock `UNet2DConditionModel`
whose time layers are removed: the same function, name for name and bit for bit, as the
published `UNet2DConditionWoCTModel` (One More Step, arXiv 2311.15744), without a copy of its 800 lines.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oms_app.paths import atomic_path, atomic_write

CLASS_NAME = "UNet2DConditionWoCTModel"
CONFIG_NAME = "config.json"
WEIGHTS_STEM = "diffusion_pytorch_model"

# What the stock model adds to, or does with, its time embedding. This model has none, so these must be unset.
_TIME_SETTINGS = frozenset(
    {
        "flip_sin_to_cos",
        "freq_shift",
        "resnet_time_scale_shift",
        "resnet_skip_time_act",
        "time_embedding_type",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
        "class_embed_type",
        "num_class_embeds",
        "class_embeddings_concat",
        "projection_class_embeddings_input_dim",
        "addition_embed_type",
        "addition_time_embed_dim",
        "addition_embed_type_num_heads",
    }
)


class _NoTime(nn.Module):
    """Stands in for `time_embedding`. None is what a ResNet block without `time_emb_proj` takes."""

    def forward(self, *_: Any) -> None:
        return None


class TimeFreeUNet(nn.Module):
    """v = ψ(x_S, c), to be read as x̂0 = -v.

    config: the settings of the module, those of `UNet2DConditionModel` less everything about time.
    `state_dict` has the stock names without every `time_*` one. Use `from_config` or `from_pretrained`.
    """

    config: FrozenDict

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        # With a width of 1, creating the time layers, which are removed below, costs almost nothing.
        unet = UNet2DConditionModel(**_stock_settings(config), time_embedding_dim=1)
        unet.time_embedding = _NoTime()
        for module in unet.modules():
            if getattr(module, "time_emb_proj", None) is not None:
                module.time_emb_proj = None
        self.unet = unet
        kept = {k: v for k, v in unet.config.items() if not k.startswith("_") and k not in _TIME_SETTINGS}
        self.config = FrozenDict({"_class_name": CLASS_NAME, **kept})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TimeFreeUNet:
        """A module with fresh weights, on torch's default device (`with torch.device("meta")` costs no memory).

        config: as in a published `config.json`. Raises ValueError for an unknown setting, or one that needs a
        timestep or a class embedding.
        """
        return cls(config)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        variant: str | None = None,
        torch_dtype: torch.dtype = torch.float32,
        read: Callable[[Path], dict[str, torch.Tensor]] = load_file,
    ) -> TimeFreeUNet:
        """Read a published module: config.json and diffusion_pytorch_model[.variant].safetensors, in eval mode on CPU.

        variant: "fp16" or another infix; None reads the fp16 file if it exists, else the one without an infix.
        torch_dtype: the weights are converted to it as they are read. read: the tensors of a file.
        Raises FileNotFoundError if a file is missing (pickles are never read), ValueError if the config is for
        another class, or the weights do not fit it exactly.
        """
        folder = Path(folder)
        weights = _find_weights(folder, variant)
        model = cls._empty(folder / CONFIG_NAME)
        tensors = read(weights)
        _check_fit(tensors, model.state_dict(), weights)
        model.load_state_dict({name: tensor.to(torch_dtype) for name, tensor in tensors.items()}, assign=True)
        return model.eval()

    @classmethod
    def _empty(cls, path: Path) -> TimeFreeUNet:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: an OMS module is a folder with {CONFIG_NAME} and safetensors")
        config = json.loads(path.read_text(encoding="utf-8-sig"))
        found = config.get("_class_name") if isinstance(config, dict) else None
        if found != CLASS_NAME:
            raise ValueError(f"{path} describes {found!r}, not {CLASS_NAME!r}: give the folder of an OMS module")
        with torch.device("meta"):
            return cls(config)

    def save_pretrained(self, folder: str | Path, variant: str | None = "fp16") -> Path:
        """Write the published layout into `folder`, which is created if it is missing, and return it.

        variant: "fp16" writes float16 into diffusion_pytorch_model.fp16.safetensors; None the weights as they are,
        without an infix. A file of the other kind is removed: a folder holds one set of weights.
        Raises ValueError for another variant, or weights that are not finite in the type written.
        """
        if variant not in (None, "fp16"):
            raise ValueError(f'variant is {variant!r}: give "fp16" or None')
        tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in self.state_dict().items()}
        if variant == "fp16":
            tensors = {name: tensor.half() for name, tensor in tensors.items()}
        broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise ValueError(f"weights are not finite in {variant or 'their own type'}: {_some(broken)}; not written")
        folder = Path(folder)
        with atomic_path(folder / _weights_name(variant)) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        atomic_write(folder / CONFIG_NAME, json.dumps(dict(self.config), indent=2, sort_keys=True) + "\n")
        (folder / _weights_name(None if variant else "fp16")).unlink(missing_ok=True)
        return folder

    def forward(self, latents: Tensor, prompt_embeds: Tensor) -> Tensor:
        """v (B, C, h, w) from noise (B, C, h, w) and prompt embeddings (B, L, D), D = `config.cross_attention_dim`.

        Raises ValueError if a shape does not fit, as with the embeddings of another text encoder.
        """
        channels = self.config.in_channels
        width = self.config.encoder_hid_dim or self.config.cross_attention_dim
        if latents.ndim != 4 or latents.shape[1] != channels:
            raise ValueError(f"latents have shape {tuple(latents.shape)}: this OMS module takes (B, {channels}, h, w)")
        if prompt_embeds.ndim != 3 or prompt_embeds.shape[2] != width or len(prompt_embeds) != len(latents):
            raise ValueError(
                f"prompt embeddings have shape {tuple(prompt_embeds.shape)}: this OMS module takes "
                f"({len(latents)}, L, {width}); use the text encoder that it was trained with"
            )
        timestep = latents.new_zeros(())  # required by the stock signature, but never read
        return self.unet(latents, timestep, encoder_hidden_states=prompt_embeds, return_dict=False)[0]

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    # The stock names, without this wrapper's prefix: the published file has them, and so has every checkpoint.
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.unet.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.unet.load_state_dict(state_dict, strict=strict, assign=assign)


def _stock_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of the stock model, none of which concerns time."""
    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    settings = {name: value for name, value in config.items() if not name.startswith("_")}
    if unknown := sorted(settings.keys() - known.keys()):
        raise ValueError(f"config has unknown settings: {_some(unknown)}; see UNet2DConditionModel for the valid ones")
    timed = {name: settings.pop(name) for name in _TIME_SETTINGS & settings.keys()}
    if clash := sorted(f"{name}={value!r}" for name, value in timed.items() if value != known[name].default):
        raise ValueError(
            f"an OMS module has no time or class embedding, but config sets {_some(clash)}: leave them out"
        )
    return settings


def _weights_name(variant: str | None) -> str:
    return f"{WEIGHTS_STEM}.{variant}.safetensors" if variant else f"{WEIGHTS_STEM}.safetensors"


def _find_weights(folder: Path, variant: str | None) -> Path:
    names = [_weights_name(variant)] if variant else [_weights_name("fp16"), _weights_name(None)]
    there = {path.name.lower(): path for path in folder.glob("*") if path.is_file()}
    for name in names:
        if name in there:
            return there[name]
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    reason = f"; {pickles[0]} is a pickle, which can run code and is never read: convert it" if pickles else ""
    raise FileNotFoundError(f"{folder} contains no {' or '.join(names)}{reason}")


def _check_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Names and shapes must agree exactly: a partly loaded module gives wrong pictures."""
    problems = []
    if missing := sorted(wanted.keys() - found.keys()):
        problems.append(f"is missing {_some(missing)}")
    if extra := sorted(found.keys() - wanted.keys()):
        problems.append(f"has unknown {_some(extra)}")
    if misfit := sorted(k for k in wanted.keys() & found.keys() if wanted[k].shape != found[k].shape):
        problems.append(f"has other shapes for {_some(misfit)}")
    if problems:
        raise ValueError(f"{path} does not fit its {CONFIG_NAME}: it {', '.join(problems)}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
