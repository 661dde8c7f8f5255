"""Muon (Jordan et al. 2024) for convolutions and linear layers: steps of momentum with all singular values near one.

torch.optim.Muon takes 2-D weights only and always works in bfloat16, which CPUs without instructions for it do 17 times
slower than float32; this one takes convolutions too and works in the dtype that pays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration
ITERATIONS = 5


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """(N, rows, columns) → the same singular vectors, with singular values between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; weights of more than two dimensions count as (out, everything else) matrices.

    lr has AdamW's meaning: a step is scaled to the RMS that AdamW's steps typically have, 0.2 √max(rows, columns).
    dtype: what the iteration is calculated in. Raises ValueError for a parameter of one dimension.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        if any(p.ndim < 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon is for matrices and convolutions: train vectors with AdamW")
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """`closure` is there for callers that pass one; None is the only value known."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[torch.nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[(len(parameter), parameter.numel() // len(parameter))].append(parameter)
            for shape, parameters in alike.items():
                steps = torch.stack([self._momentum(p, group["momentum"]).reshape(shape) for p in parameters])
                steps = orthogonalized(steps.to(self.dtype))
                scale = 0.2 * group["lr"] * max(shape) ** 0.5
                for parameter, update in zip(parameters, steps, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update.reshape(parameter.shape).to(parameter.dtype), alpha=scale)

    def _momentum(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """Nesterov's step: the gradient leans on its running mean once more."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "mean" not in state:
            state["mean"] = torch.zeros_like(parameter)
        mean = state["mean"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)
