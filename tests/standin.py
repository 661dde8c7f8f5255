"""A device that is not there: tensors on it keep their values in main memory, but count as being elsewhere.

Inside `StandIn()`, `.to(DEVICE)` and factories with `device=DEVICE` put tensors on it, `.device` answers so, and an
operation on tensors of both sides raises what CUDA raises. For the thread that it is entered in.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("privateuseone:0")
_GETTER = torch.Tensor.device.__get__
# May read one side and write the other, or only look.
_BOTH_SIDES = {"copy_", "__set__", "set_", "is_set_to", "__repr__", "type", "untyped_storage", "storage"}
_BOTH_SIDES |= {"_has_compatible_shallow_copy_type", "swap_tensors"}
_MIX = "Expected all tensors to be on the same device, but found at least two devices, privateuseone:0 and cpu! in "


class StandIn(TorchFunctionMode):
    """bytes: of the storages that lie on it now."""

    def __init__(self) -> None:
        super().__init__()
        self._there: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self._there.values())

    def holds(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._there

    def _put(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._there:
            self._there[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self._there.pop, storage._cdata, None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func == _GETTER:
            return DEVICE if self.holds(args[0]) else func(*args)
        if name in ("to", "cpu"):
            return self._moved(func, name, args, kwargs)
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        there = [one for one in tensors if self.holds(one)]
        if name == "numpy" and there:
            raise TypeError("can't convert a tensor of another device to numpy: use Tensor.cpu() first")
        indexing = name in ("__getitem__", "__setitem__")
        if indexing and (self.holds(args[0]) or all(one.ndim == 0 for one in there)):
            there = there if self.holds(args[0]) else []  # an index may be elsewhere, and a number of the device too
            tensors = []
        here = [one for one in tensors if one.ndim and not self.holds(one)]
        if there and here and name not in _BOTH_SIDES:
            raise RuntimeError(_MIX + name)
        wanted = kwargs.get("device")
        elsewhere = wanted is not None and torch.device(wanted).type == DEVICE.type
        if elsewhere:
            kwargs = kwargs | {"device": "cpu"}
        result = func(*args, **kwargs)
        if elsewhere or (there and wanted is None and name not in _BOTH_SIDES):
            for one in tree_leaves(result):
                if isinstance(one, torch.Tensor):
                    self._put(one)
        return result

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        source = args[0]
        was = self.holds(source)
        goes: bool | None = False if name == "cpu" else None

        def target(value: Any) -> Any:
            nonlocal goes
            if isinstance(value, (torch.device, str)):
                goes = torch.device(value).type == DEVICE.type
                return torch.device("cpu")
            if isinstance(value, torch.Tensor):
                goes = self.holds(value)
            return value

        rest, named = tree_map(target, args[1:]), tree_map(target, kwargs)
        result = func(source, *rest, **named)
        if goes is None:
            goes = was
        if goes != was and result.untyped_storage()._cdata == source.untyped_storage()._cdata:
            result = result.clone()
        if goes:
            self._put(result)
        return result
