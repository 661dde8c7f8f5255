"""Weights in memory of our own: what is mapped from a file ends the process (SIGBUS) if that file is truncated."""

from __future__ import annotations

import torch


def copy_into_memory(model: torch.nn.Module) -> None:
    """Copies each parameter and buffer that may be mapped from its file, one tensor after the other, with equal bits.

    Tensors that share storage share it afterwards too.
    """
    copied: dict[tuple[int, torch.Size, tuple[int, ...]], torch.Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                if tensor is None or tensor.device.type != "cpu":
                    continue
                key = (tensor.data_ptr(), tensor.shape, tensor.stride())
                if key not in copied:
                    copied[key] = tensor.data.clone(memory_format=torch.preserve_format)
                tensor.data = copied[key]
