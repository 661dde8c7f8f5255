"""The change that an adapter makes to a weight, as each format defines it, in float32.

LoRA (Hu et al. 2021), LoCon, LoHa and LoKr (LyCORIS, Yeh et al. 2024), DoRA (Liu et al. 2024). W is (out, in) or
(out, in, k, k).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def low_rank(down: Tensor, up: Tensor, mid: Tensor | None = None) -> Tensor:
    """B A for A (r, in…) and B (out, r…), (out, in…); with a core (r, r, k, k) between them in Tucker's form."""
    if mid is None:
        return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])
    return torch.einsum("op,pqkl,qi->oikl", up.flatten(1), mid, down.flatten(1))


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """LyCORIS' form of it: core (r, r, k, k), a (r, out), b (r, in) → (out, in, k, k)."""
    return torch.einsum("pqkl,po,qi->oikl", core, a, b)


def hadamard(t: Mapping[str, Tensor]) -> Tensor:
    """LoHa: (A1 B1) ⊙ (A2 B2)."""
    if "hada_t1" in t:
        first = tucker(t["hada_t1"], t["hada_w1_a"], t["hada_w1_b"])
        return first * tucker(t["hada_t2"], t["hada_w2_a"], t["hada_w2_b"])
    return (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])


def kronecker(t: Mapping[str, Tensor]) -> Tensor:
    """LoKr: C1 ⊗ C2, each whole or a product of two, C2 with or without a core."""
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_w2" in t:
        second = t["lokr_w2"]
    elif "lokr_t2" in t:
        second = tucker(t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"])
    else:
        second = t["lokr_w2_a"] @ t["lokr_w2_b"].flatten(1)
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - first.ndim)), second.contiguous())


def change(format: str, t: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """ΔW of a module, of its weight's shape, before the factor α/r. Raises ValueError if it does not fit."""
    if format == "LoRA":
        delta = low_rank(t["down"], t["up"], t.get("mid"))
    elif format == "LoHa":
        delta = hadamard(t)
    elif format == "LoKr":
        delta = kronecker(t)
    else:
        delta = t["w_norm"] if format == "norm" else t["diff"]
    if delta.shape[:1] != shape[:1] or delta.numel() != shape.numel():
        raise ValueError(f"it changes a weight of {tuple(delta.shape)}, not {tuple(shape)}")
    return delta.reshape(shape)


def decompose(weight: Tensor, delta: Tensor, magnitude: Tensor, *, of_outputs: bool) -> Tensor:
    """DoRA: m (W + ΔW)/‖W + ΔW‖, with one m and one norm for each output, or for each input."""
    merged = weight + delta
    axis = 0 if of_outputs else 1
    shape = [-1 if dimension == axis else 1 for dimension in range(merged.ndim)]
    norm = merged.transpose(0, axis).flatten(1).norm(dim=1).reshape(shape)
    # A row of zeros has no direction: it stays zero, and dividing by its norm would give NaN.
    return merged / norm.clamp(min=torch.finfo(norm.dtype).eps) * magnitude.reshape(shape)


def dora_is_of_outputs(magnitude: Tensor, weight: Tensor) -> bool:
    """Of a `dora_scale`: (out, 1, …) or (1, in, …). Raises ValueError if it is neither."""
    if magnitude.numel() == len(weight) and (magnitude.ndim < 2 or len(magnitude) == len(weight)):
        return True
    if magnitude.ndim >= 2 and magnitude.shape[1] == weight.shape[1] == magnitude.numel():
        return False
    raise ValueError(f"its dora_scale is {tuple(magnitude.shape)}, for a weight of {tuple(weight.shape)}")
