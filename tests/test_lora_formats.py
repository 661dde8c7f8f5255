"""Every format of LoRA against its formula in float64, on Stable Diffusion and SDXL; and what is refused, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

from dev.full_size.ldm import unet_name
from oms_app.models.loading import ModelKey
from oms_app.models.lora import fuse_loras
from oms_app.models.lora_math import decompose
from oms_app.models.text import encoder_key

RANK, STRENGTH = 4, 0.7
Module = tuple[str, str]  # part, name
Factors = dict[str, Tensor]
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
UNET: list[Module] = [
    ("unet", f"{ATTENTION}.attn1.to_q"),
    ("unet", f"{ATTENTION}.attn2.to_out.0"),
    ("unet", f"{ATTENTION}.ff.net.0.proj"),
    ("unet", "down_blocks.1.attentions.0.proj_in"),
    ("unet", "down_blocks.0.resnets.0.conv1"),
    ("unet", "down_blocks.0.downsamplers.0.conv"),
    ("unet", "up_blocks.0.resnets.0.conv_shortcut"),
    ("unet", "mid_block.resnets.1.time_emb_proj"),
]
TEXT: list[Module] = [("text_encoder", f"encoder.layers.0.{n}") for n in ("self_attn.q_proj", "self_attn.out_proj")]
TEXT.append(("text_encoder", "encoder.layers.1.mlp.fc1"))
TEXT_2: list[Module] = [("text_encoder_2", f"text_model.encoder.layers.1.{n}") for n in ("self_attn.v_proj", "mlp.fc2")]
TEXT_2.append(("text_encoder_2", "text_projection"))


def open_base(family: str, lumen: Path, sdxl: Path) -> Any:
    if family == "sd":
        return StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    return StableDiffusionXLPipeline.from_pretrained(sdxl, local_files_only=True, add_watermarker=False)


def modules_of(family: str) -> list[Module]:
    return UNET + TEXT + (TEXT_2 if family == "sdxl" else [])


def kohya(module: Module, family: str) -> str:
    """kohya's name; for SDXL's UNet in the original layout."""
    part, name = module
    if part == "unet":
        original = unet_name(f"{name}.", 1, {0}).removeprefix("model.diffusion_model.").rstrip(".")
        return "lora_unet_" + (original if family == "sdxl" else name).replace(".", "_")
    prefix = {"text_encoder": "lora_te" if family == "sd" else "lora_te1", "text_encoder_2": "lora_te2"}[part]
    full = name if name.startswith("text_") else f"text_model.{name}"
    return f"{prefix}_{full.replace('.', '_')}"


def peft(module: Module, family: str) -> str:
    part, name = module
    bare = part == "unet" or name.startswith("text_")
    return f"{part}.{name}" if bare else f"{part}.text_model.{name}"


def old_diffusers(module: Module, family: str) -> str:
    """Before PEFT: attention processors' own layers, `to_out_lora` for `to_out.0`."""
    part, name = module
    if part == "unet":
        stem, _, layer = name.removesuffix(".0").rpartition(".")
        return f"unet.{stem}.processor.{layer}_lora"
    stem, _, layer = name.rpartition(".")
    layer = {"q_proj": "to_q", "out_proj": "to_out"}[layer]
    return f"{part}.text_model.{stem}.{layer}_lora"


def draw(*shape: int, seed: list[int]) -> Tensor:
    seed[0] += 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed[0])) * 0.3


def alpha_of(index: int) -> float:
    """Another one for every module."""
    return 1.0 + index


def plain(w: Tensor, i: int, seed: list[int]) -> tuple[Factors, np.ndarray]:
    """LoRA, and LoCon on convolutions: the kernel is in the first factor."""
    down, up = draw(RANK, *w.shape[1:], seed=seed), draw(len(w), RANK, *[1] * (w.ndim - 2), seed=seed)
    delta = up.double().numpy().reshape(len(w), -1) @ down.double().numpy().reshape(RANK, -1)
    return {"down": down, "up": up, "alpha": torch.tensor(alpha_of(i))}, delta.reshape(w.shape) * alpha_of(i) / RANK


def written(suffixes: dict[str, str], factors: Factors, stem: str) -> Factors:
    return {f"{stem}{suffixes.get(role, '.' + role)}": value for role, value in factors.items()}


LORA = {"down": ".lora_down.weight", "up": ".lora_up.weight", "mid": ".lora_mid.weight"}
AB = {"down": ".lora_A.weight", "up": ".lora_B.weight"}
OLD = {"down": ".down.weight", "up": ".up.weight"}


def locon_tucker(w: Tensor, i: int, seed: list[int]) -> tuple[Factors, np.ndarray]:
    if w.ndim == 2:
        return plain(w, i, seed)
    down, up = draw(RANK, w.shape[1], 1, 1, seed=seed), draw(len(w), RANK, 1, 1, seed=seed)
    mid = draw(RANK, RANK, *w.shape[2:], seed=seed)
    d, u, m = (t.double().numpy() for t in (down[:, :, 0, 0], up[:, :, 0, 0], mid))
    delta = np.einsum("op,pqkl,qi->oikl", u, m, d) * alpha_of(i) / RANK
    return {"down": down, "up": up, "mid": mid, "alpha": torch.tensor(alpha_of(i))}, delta


def loha(w: Tensor, i: int, seed: list[int]) -> tuple[Factors, np.ndarray]:
    flat = w[0].numel()
    f = {f"hada_w{n}_a": draw(len(w), RANK, seed=seed) for n in (1, 2)}
    f |= {f"hada_w{n}_b": draw(RANK, flat, seed=seed) for n in (1, 2)}
    d = {name: value.double().numpy() for name, value in f.items()}
    delta = (d["hada_w1_a"] @ d["hada_w1_b"]) * (d["hada_w2_a"] @ d["hada_w2_b"]) * alpha_of(i) / RANK
    return f | {"alpha": torch.tensor(alpha_of(i))}, delta.reshape(w.shape)


def loha_tucker(w: Tensor, i: int, seed: list[int]) -> tuple[Factors, np.ndarray]:
    if w.ndim == 2:
        return loha(w, i, seed)
    f = {f"hada_w{n}_a": draw(RANK, len(w), seed=seed) for n in (1, 2)}
    f |= {f"hada_w{n}_b": draw(RANK, w.shape[1], seed=seed) for n in (1, 2)}
    f |= {f"hada_t{n}": draw(RANK, RANK, *w.shape[2:], seed=seed) for n in (1, 2)}
    d = {name: value.double().numpy() for name, value in f.items()}
    first, second = (
        np.einsum("ijkl,jr,ip->prkl", d[f"hada_t{n}"], d[f"hada_w{n}_b"], d[f"hada_w{n}_a"]) for n in (1, 2)
    )
    return f | {"alpha": torch.tensor(alpha_of(i))}, first * second * alpha_of(i) / RANK


def lokr(kind: str) -> Callable[[Tensor, int, list[int]], tuple[Factors, np.ndarray]]:
    """kind: "full" (two whole factors, whose alpha means nothing), "low" (the second low-rank), "both" or "tucker"."""

    def make(w: Tensor, i: int, seed: list[int]) -> tuple[Factors, np.ndarray]:
        o, n, kernel = 2, 4, list(w.shape[2:])
        out, into, flat = len(w) // o, w.shape[1] // n, w[0].numel() // n
        f: Factors = {"alpha": torch.tensor(alpha_of(i))}
        if kind == "both":
            f |= {"lokr_w1_a": draw(o, RANK, seed=seed), "lokr_w1_b": draw(RANK, n, seed=seed)}
        else:
            f["lokr_w1"] = draw(o, n, seed=seed)
        if kind == "full":
            f["lokr_w2"] = draw(out, into, *kernel, seed=seed)
        elif kind == "tucker" and kernel:
            f |= {"lokr_w2_a": draw(RANK, out, seed=seed), "lokr_w2_b": draw(RANK, into, seed=seed)}
            f["lokr_t2"] = draw(RANK, RANK, *kernel, seed=seed)
        else:
            f |= {"lokr_w2_a": draw(out, RANK, seed=seed), "lokr_w2_b": draw(RANK, flat, seed=seed)}
        d = {name: value.double().numpy() for name, value in f.items()}
        one = d["lokr_w1_a"] @ d["lokr_w1_b"] if kind == "both" else d["lokr_w1"]
        if kind == "full":
            two = d["lokr_w2"].reshape(out, into, -1)
        elif kind == "tucker" and kernel:
            two = np.einsum("ijkl,jr,ip->prkl", d["lokr_t2"], d["lokr_w2_b"], d["lokr_w2_a"]).reshape(out, into, -1)
        else:
            two = (d["lokr_w2_a"] @ d["lokr_w2_b"]).reshape(out, into, -1)
        # Row a·out + b, column c·into + d, kernel cell k: C1[a, c] · C2[b, d, k].
        delta = np.einsum("ac,bdk->abcdk", one, two).reshape(w.shape)
        return f, delta * (1.0 if kind == "full" else alpha_of(i) / RANK)

    return make


def difference(w: Tensor, i: int, seed: list[int]) -> tuple[Factors, np.ndarray]:
    made = draw(*w.shape, seed=seed)
    return {"diff": made}, made.double().numpy()


FORMATS: dict[str, tuple[Callable[..., tuple[Factors, np.ndarray]], Callable[..., str], dict[str, str]]] = {
    "kohya LoRA and LoCon": (plain, kohya, LORA),
    "PEFT with alphas": (plain, peft, AB),
    "PEFT's default adapter": (
        plain,
        lambda m, f: "base_model.model." + peft(m, f),
        {"down": ".lora_A.default.weight", "up": ".lora_B.default.weight"},
    ),
    "diffusers, linear layers": (plain, peft, {"down": ".lora.down.weight", "up": ".lora.up.weight"}),
    "LoCon with a core": (locon_tucker, kohya, LORA),
    "LoHa": (loha, kohya, {}),
    "LoHa with a core": (loha_tucker, kohya, {}),
    "LoKr of whole factors": (lokr("full"), kohya, {}),
    "LoKr": (lokr("low"), kohya, {}),
    "LoKr, both low-rank": (lokr("both"), kohya, {}),
    "LoKr with a core": (lokr("tucker"), kohya, {}),
    "differences": (difference, kohya, {}),
}


def check(pipeline: Any, changes: dict[Module, np.ndarray], path: Path, strength: float = STRENGTH) -> None:
    """Fuses the file; every weight must be what the formula says to 1e-5 of the change, and no other may change."""
    parts = [part for part in ("unet", "text_encoder", "text_encoder_2") if hasattr(pipeline, part)]
    before = {(part, n): v.clone() for part in parts for n, v in getattr(pipeline, part).state_dict().items()}
    fuse_loras(pipeline, [(path, strength)])
    for (part, name), old in before.items():
        new = getattr(pipeline, part).state_dict()[name]
        delta = changes.get((part, name.removesuffix(".weight"))) if name.endswith(".weight") else None
        if delta is None:
            assert torch.equal(new, old), name
            continue
        wanted = old.double().numpy() + strength * delta
        assert np.abs(new.double().numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max(), name


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_weights_become_what_the_formula_says(
    name: str, family: str, lumen: Path, sdxl: Path, tmp_path: Path
) -> None:
    make, stem_of, suffixes = FORMATS[name]
    pipeline, seed = open_base(family, lumen, sdxl), [0]
    tensors: Factors = {}
    changes = {}
    for i, module in enumerate(modules_of(family)):
        factors, changes[module] = make(getattr(pipeline, module[0]).get_submodule(module[1]).weight.detach(), i, seed)
        tensors |= written(suffixes, factors, stem_of(module, family))
    save_file(tensors, tmp_path / "a.safetensors")
    check(pipeline, changes, tmp_path / "a.safetensors")


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_oldest_format_of_diffusers(family: str, lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    """Attention layers alone, without alphas."""
    pipeline, seed = open_base(family, lumen, sdxl), [0]
    tensors: Factors = {}
    changes = {}
    for module in [*UNET[:2], *TEXT[:2]]:
        factors, delta = plain(getattr(pipeline, module[0]).get_submodule(module[1]).weight.detach(), 0, seed)
        factors.pop("alpha")
        changes[module] = delta * RANK
        tensors |= written(OLD, factors, old_diffusers(module, family))
    save_file(tensors, tmp_path / "a.safetensors")
    check(pipeline, changes, tmp_path / "a.safetensors")
    if family == "sd":  # files of early 2023 hold the UNet's layers without a prefix
        bare = {name.removeprefix("unet."): value for name, value in tensors.items() if name.startswith("unet.")}
        save_file(bare, tmp_path / "bare.safetensors")
        unet = {module: delta for module, delta in changes.items() if module[0] == "unet"}
        check(open_base(family, lumen, sdxl), unet, tmp_path / "bare.safetensors")


def test_alphas_beside_the_oldest_names_of_diffusers(lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    pipeline = open_base("sd", lumen, sdxl)
    module = UNET[0]
    factors, delta = plain(pipeline.unet.get_submodule(module[1]).weight.detach(), 1, [0])
    save_file(written(OLD, factors, old_diffusers(module, "sd")), tmp_path / "a.safetensors")
    check(pipeline, {module: delta}, tmp_path / "a.safetensors")


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("kind", ["outputs", "inputs", "PEFT", "LoHa"])
def test_dora(kind: str, family: str, lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    """m (W + ΔW)/‖W + ΔW‖, the norm over all but the outputs (or the inputs); the strength goes from W to that."""
    pipeline, seed = open_base(family, lumen, sdxl), [0]
    make, stem_of, suffixes = (
        (loha, kohya, {}) if kind == "LoHa" else (plain, peft, AB) if kind == "PEFT" else (plain, kohya, LORA)
    )
    tensors: Factors = {}
    changes = {}
    for i, module in enumerate(modules_of(family)):
        w = getattr(pipeline, module[0]).get_submodule(module[1]).weight.detach()
        factors, delta = make(w, i, seed)
        axis = 1 if kind == "inputs" else 0
        shape = [w.shape[axis] if dimension == axis else 1 for dimension in range(w.ndim)]
        magnitude = draw(w.shape[axis], seed=seed).abs() + 0.5
        merged = w.double().numpy() + delta
        norm = np.sqrt((merged**2).sum(axis=tuple(d for d in range(w.ndim) if d != axis), keepdims=True))
        changes[module] = magnitude.double().numpy().reshape(shape) * merged / norm - w.double().numpy()
        tensors |= written(suffixes, factors, stem_of(module, family))
        if kind == "PEFT":  # (out,), and (1, out, 1, 1) for a convolution
            conv = [1, -1, 1, 1] if w.ndim == 4 else [-1]
            tensors[f"{stem_of(module, family)}.lora_magnitude_vector"] = magnitude.reshape(conv)
        else:
            tensors[f"{stem_of(module, family)}.dora_scale"] = magnitude.reshape(shape)
    save_file(tensors, tmp_path / "a.safetensors")
    check(pipeline, changes, tmp_path / "a.safetensors")


def test_alphas_are_each_modules_own_and_absent_means_the_rank(lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    pipeline, seed = open_base("sd", lumen, sdxl), [0]
    tensors: Factors = {}
    changes = {}
    for i, module in enumerate(UNET + TEXT):
        w = getattr(pipeline, module[0]).get_submodule(module[1]).weight.detach()
        factors, delta = plain(w, i, seed)
        if i % 2:
            factors.pop("alpha")
            delta = delta * RANK / alpha_of(i)
        changes[module] = delta
        tensors |= written(LORA, factors, kohya(module, "sd"))
    save_file(tensors, tmp_path / "a.safetensors")
    check(pipeline, changes, tmp_path / "a.safetensors")


@pytest.mark.parametrize("where", ["header", "beside"])
@pytest.mark.parametrize("stabilised", [False, True])
def test_alphas_in_the_metadata_of_peft(where: str, stabilised: bool, lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    pipeline, seed = open_base("sd", lumen, sdxl), [0]
    tensors: Factors = {}
    changes = {}
    for module in UNET:
        w = pipeline.unet.get_submodule(module[1]).weight.detach()
        factors, delta = plain(w, 0, seed)
        factors.pop("alpha")
        alpha = 6.0 if module[1].endswith("to_q") else 2.0
        changes[module] = delta * RANK * alpha / (RANK**0.5 if stabilised else RANK)
        tensors |= written(AB, factors, peft(module, "sd"))
    config = {"r": RANK, "lora_alpha": 2, "alpha_pattern": {"attn1.to_q": 6}, "use_rslora": stabilised}
    path = tmp_path / "adapter_model.safetensors"
    if where == "header":
        packed = json.dumps({f"unet.{name}": value for name, value in config.items()})
        save_file(tensors, path, {"format": "pt", "lora_adapter_metadata": packed})
    else:
        save_file(tensors, path)
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    check(pipeline, changes, path)


@pytest.mark.parametrize("make", [plain, loha, lokr("low")], ids=["LoRA", "LoHa", "LoKr"])
def test_a_trained_scalar_of_lycoris(
    make: Callable[..., tuple[Factors, np.ndarray]], lumen: Path, sdxl: Path, tmp_path: Path
) -> None:
    pipeline, module = open_base("sd", lumen, sdxl), UNET[0]
    factors, delta = make(pipeline.unet.get_submodule(module[1]).weight.detach(), 1, [0])
    tensors = written(LORA, factors | {"scalar": torch.tensor(0.3)}, kohya(module, "sd"))
    tensors |= {f"{kohya(UNET[1], 'sd')}.alpha": torch.tensor(8.0)}  # of a module whose weights were left out
    save_file(tensors, tmp_path / "a.safetensors")
    check(pipeline, {module: 0.3 * delta}, tmp_path / "a.safetensors")


def test_norms_and_biases_of_a_full_difference(lumen: Path, sdxl: Path, tmp_path: Path) -> None:
    pipeline = open_base("sd", lumen, sdxl)
    norm, conv = pipeline.unet.down_blocks[0].resnets[0].norm1, pipeline.unet.conv_in
    old = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    shift = torch.ones(16)
    tensors = {
        "lora_unet_down_blocks_0_resnets_0_norm1.w_norm": shift,
        "lora_unet_down_blocks_0_resnets_0_norm1.b_norm": 2 * shift,
        "lora_unet_conv_in.diff": torch.ones_like(conv.weight),
        "lora_unet_conv_in.diff_b": 3 * shift,
    }
    save_file(tensors, tmp_path / "a.safetensors")
    fuse_loras(pipeline, [(tmp_path / "a.safetensors", 0.5)])
    torch.testing.assert_close(norm.weight, old["down_blocks.0.resnets.0.norm1.weight"] + 0.5)
    torch.testing.assert_close(norm.bias, old["down_blocks.0.resnets.0.norm1.bias"] + 1.0)
    torch.testing.assert_close(conv.weight, old["conv_in.weight"] + 0.5)
    torch.testing.assert_close(conv.bias, old["conv_in.bias"] + 1.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_every_dtype_is_read_and_half_weights_are_fused_in_float32(
    dtype: torch.dtype, lumen: Path, sdxl: Path, tmp_path: Path
) -> None:
    pipeline = open_base("sd", lumen, sdxl)
    pipeline.unet.half()
    module = UNET[0]
    target = pipeline.unet.get_submodule(module[1])
    old = target.weight.detach().float().clone()
    factors, _ = plain(old, 0, [0])
    kept = {role: value if role == "alpha" else value.to(dtype) for role, value in factors.items()}
    save_file(written(LORA, kept, kohya(module, "sd")), tmp_path / "a.safetensors")
    fuse_loras(pipeline, [(tmp_path / "a.safetensors", 1.0)])
    delta = kept["up"].double() @ kept["down"].double() * alpha_of(0) / RANK
    assert target.weight.dtype == torch.float16
    assert torch.equal(target.weight, (old + delta.float()).half()) or torch.allclose(
        target.weight.double(), old.double() + delta, rtol=2**-11, atol=1e-6
    )


def test_a_row_of_zeros_stays_zero_in_dora() -> None:
    """Such rows are in pruned models; dividing by their norm would give NaN."""
    weight = torch.tensor([[0.0, 0.0], [1e-25, 0.0], [3.0, 4.0]])  # the second row's squares are 0 in float32
    for magnitude in (1.0, 10.0):
        magnitudes = torch.tensor([[magnitude], [magnitude], [10.0]])
        merged = decompose(weight, torch.zeros(3, 2), magnitudes, of_outputs=True)
        torch.testing.assert_close(merged, torch.tensor([[0.0, 0.0], [0.0, 0.0], [6.0, 8.0]]))


def test_a_changed_config_of_a_peft_adapter_is_another_model(lumen: Path, tmp_path: Path) -> None:
    """Its strength is in the config, so the weights alone do not identify it."""
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    save_file({"a": torch.zeros(1)}, weights)

    def keys() -> tuple[object, object]:
        adapters = ((weights, 1.0),)
        return ModelKey("base", lumen, "cpu", torch.float32, adapters), encoder_key(lumen, adapters)

    seen = {keys()}
    for alpha in (8, 16):
        config.write_text(json.dumps({"r": 8, "lora_alpha": alpha}))
        seen.add(keys())
    assert len(seen) == 3 and len({encoder for _, encoder in seen}) == 3
