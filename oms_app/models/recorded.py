"""Passes of a small UNet on the CPU, recorded once and replayed without Python, the batch divided among the cores.

Python takes a third of a pass of Lumen: 70 modules, a thousand operations, each waiting for the interpreter, which the
page's threads need too. TorchScript replays the same operations on the same weights, bit for bit, and without the
interpreter's lock, so each core can take its own part of the batch. If the cores share each operation instead,
they wait for one another a thousand times a pass, and a browser that draws on one of them holds up both.
`python -m dev.unet_pass` measures it. A large UNet does not gain from it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from oms_app.newest import Newest

MAX_PARAMETERS = 50_000_000  # parameters
MIN_CALLS = 20  # passes of one shape before it is recorded, which takes as long as about ten passes
MAX_SHAPES = 8  # shapes of one UNet; the least recently used is dropped
MAX_SEEN = 1_000  # shapes of one UNet whose passes are counted


class _Pass(torch.nn.Module):
    """One module with all weights of a UNet: recording one module takes a third of the time of recording seventy."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        for place, weight in enumerate(unet.parameters()):
            self.register_parameter(f"parameter_{place}", weight)
        for place, tensor in enumerate(unet.buffers()):
            self.register_buffer(f"buffer_{place}", tensor)
        self._unet = (unet,)  # not as a submodule: its weights are registered already

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self._unet[0](sample, timestep, encoder_hidden_states=hidden, return_dict=False)[0]
        return made


def _replay(recording: Any, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Without TorchScript's optimizer, which takes as long as fifteen passes and makes none of them faster."""
    with torch.jit.optimized_execution(False):
        made: torch.Tensor = recording(*given)
    return made


class _Recordings:
    """Recordings of one UNet, by the shapes and types of the inputs."""

    def __init__(self) -> None:
        self._seen: Newest[Hashable, int] = Newest(MAX_SEEN, make=int)
        self._made: OrderedDict[Hashable, Any] = OrderedDict()

    def of(self, unet: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> Any:
        """The recording for these inputs, or None until such inputs have come MIN_CALLS times."""
        key = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in given)
        if key not in self._made:
            self._seen[key] += 1
            if self._seen[key] <= MIN_CALLS:
                return None
            with warnings.catch_warnings():
                # TorchScript is deprecated, without a successor that needs no compiler; and that it
                # keeps what depends on shapes, which here are the recording's own.
                warnings.simplefilter("ignore")
                self._made[key] = torch.jit.trace(_Pass(unet), given, check_trace=False)
            if len(self._made) > MAX_SHAPES:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]


_RECORDINGS: WeakKeyDictionary[torch.nn.Module, _Recordings] = WeakKeyDictionary()
_CORES = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pass")


def _parts(sample: torch.Tensor, timestep: torch.Tensor) -> int:
    """The number of equal parts that a batch is cut into: at most one for each of torch's threads."""
    at_most = min(len(sample), torch.get_num_threads()) if timestep.ndim == 0 else 1
    return max(parts for parts in range(1, at_most + 1) if len(sample) % parts == 0)


def _side_by_side(
    run: Callable[..., torch.Tensor], parts: int, sample: torch.Tensor, timestep: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """A pass of a batch, its parts at once, each in a thread of its own with its share of the cores.

    run: the recorded pass, or the UNet itself before it is recorded. Both get the same parts on the same number of
    threads, because another grouping would give other bits.
    """
    threads = torch.get_num_threads()

    @torch.no_grad()
    def one(x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        if torch.get_num_threads() != threads // parts:
            torch.set_num_threads(threads // parts)  # of this thread, and of those that start after it
        return run(x, timestep, words)

    try:
        return torch.cat(list(_CORES.map(one, sample.chunk(parts), hidden.chunk(parts))))
    finally:
        torch.set_num_threads(threads)  # so that threads that start later use all cores


def _worth_recording(unet: Any) -> bool:
    """Small, on the CPU, for inference, and with an unpatched `forward`."""
    return (
        isinstance(unet, torch.nn.Module)
        and not unet.training
        and "forward" not in vars(unet)
        and sys.version_info < (3, 14)  # TorchScript does not support newer versions of Python
        and all(parameter.device.type == "cpu" for parameter in unet.parameters())
        and sum(parameter.numel() for parameter in unet.parameters()) <= MAX_PARAMETERS
    )


@contextmanager
def recorded(unet: Any) -> Iterator[None]:
    """Inside, frequent calls of `unet` (a UNet2DConditionModel) are replayed. One thread at a time.

    The weights must not change: adapters are fused before a model is used (models/lora.py).
    """
    if not _worth_recording(unet):
        yield
        return
    forward, recordings = unet.forward, _RECORDINGS.setdefault(unet, _Recordings())

    def replay(
        sample: torch.Tensor,
        timestep: Any,
        encoder_hidden_states: torch.Tensor,
        *positional: Any,
        return_dict: bool = True,
        **more: Any,
    ) -> Any:
        usual = not return_dict and not positional and all(value is None for value in more.values())
        usual = usual and sample.device.type == "cpu"  # elsewhere the weights only wait in main memory between passes
        if usual and isinstance(timestep, torch.Tensor) and not torch.jit.is_tracing():
            given = (sample, timestep, encoder_hidden_states)
            parts = _parts(sample, timestep)
            share = len(sample) // parts
            recording = recordings.of(unet, (sample[:share], timestep, encoder_hidden_states[:share]))

            def run(*tensors: torch.Tensor) -> torch.Tensor:
                if recording is not None:
                    return _replay(recording, tensors)
                made: torch.Tensor = forward(*tensors, return_dict=False)[0]
                return made

            return (run(*given) if parts == 1 else _side_by_side(run, parts, *given),)
        return forward(sample, timestep, encoder_hidden_states, *positional, return_dict=return_dict, **more)

    unet.forward = replay
    try:
        yield
    finally:
        del unet.forward
