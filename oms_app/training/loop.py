"""One training loop for every stage: a budget of minutes, EMA weights, checkpoints; running it again resumes.

The learning rate depends on the share of the budget that is used up, so a stopped run that is resumed ends as an
unbroken one would have, and a longer budget goes on from a checkpoint. Under `accelerate launch` each process takes its
share of the pictures of a step; the main process's clock counts for all.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from oms_app.paths import atomic_path, atomic_write
from oms_app.training.muon import Muon

Batch = dict[str, torch.Tensor]
Growth = tuple[tuple[float, int, int], ...]  # until which share of the budget: a size, pictures a step
Loss = Callable[[torch.nn.ModuleDict, Batch, float], torch.Tensor]
LOG_EVERY = 50  # steps between two points of the loss curve


@dataclass
class Plan:
    """How long and how fast to train.

    minutes: budget of training time over all runs, as `clock` counts it. steps: if given, the budget in steps instead.
    decay: the last share of the budget, in which the learning rate falls. A short one leaves it constant for long, so
    that training from exported weights can go on at any time. ema_decays: one average of the weights each.
    accumulate: batches of each process whose gradients are added up to one step.
    """

    minutes: float
    learning_rate: float
    steps: int | None = None
    warmup: float = 0.01  # share of the budget
    decay: float = 0.99  # share of the budget
    ema_decays: tuple[float, ...] = (0.999,)
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)  # AdamW's
    accumulate: int = 1
    gradient_clip: float = 1.0
    checkpoint_seconds: float = 120.0
    muon: bool = False  # for matrices and convolutions; the rest has AdamW in any case


@dataclass
class State:
    step: int = 0
    seconds: float = 0.0
    pictures: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # step, minutes, loss

    def used(self, plan: Plan) -> float:
        """Share of the budget, 0…1."""
        share = self.step / plan.steps if plan.steps else self.seconds / (60 * plan.minutes)
        return min(1.0, share)


def learning_rate(plan: Plan, used: float) -> float:
    """Linear warm-up, constant, then a half cosine to 2 % of the peak."""
    if used < plan.warmup:
        return plan.learning_rate * max(used / plan.warmup, 0.02)
    t = max(0.0, (used - (1 - plan.decay)) / plan.decay) if plan.decay else 0.0
    return plan.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * t)))


def grown(growth: Growth, used: float) -> tuple[int, int]:
    """The size at a share of the budget, and how many of a step's pictures are this process's."""
    size, count = next((size, count) for until, size, count in growth if used <= until)
    return size, max(1, count // PartialState().num_processes)


def pick_device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


@cache
def bfloat16_pays(device: torch.device) -> bool:
    """Whether a convolution is faster in bfloat16 than in float32. CPUs without instructions for it are 15 × slower."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    x, weight = torch.randn(4, 64, 32, 32), torch.randn(64, 64, 3, 3)

    def seconds(dtype: torch.dtype) -> float:
        a, b = x.to(dtype), weight.to(dtype)
        F.conv2d(a, b, padding=1)
        began = time.perf_counter()
        for _ in range(3):
            F.conv2d(a, b, padding=1)
        return time.perf_counter() - began

    return seconds(torch.bfloat16) < 0.8 * seconds(torch.float32)


def clock(device: torch.device) -> float:
    """Seconds that training time is counted by: on a CPU the processor time of a thread, so that a busy machine makes a
    run longer and not worse."""
    return time.process_time() / torch.get_num_threads() if device.type == "cpu" else time.monotonic()


def compiles(device: torch.device) -> bool:
    """Whether torch.compile pays. On CPUs it took minutes and made a step slower (dev/LOG.md)."""
    return device.type == "cuda"


def attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the plain formula of attention, whose backward pass is four times as fast as the fused one's for the few
    cells of our UNets."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def optimizers(models: torch.nn.ModuleDict, plan: Plan, device: torch.device) -> list[torch.optim.Optimizer]:
    """AdamW for all weights; with `plan.muon` Muon takes the matrices inside a network, as its authors advise:
    not embeddings, and not the first and last convolution. Frozen weights are left out."""
    inner: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in models.named_parameters():
        if not parameter.requires_grad:
            continue
        edge = any(word in name for word in ("embed", "conv_in", "conv_out", "quant_conv"))
        (inner if plan.muon and parameter.ndim >= 2 and not edge else rest).append(parameter)
    dtype = torch.bfloat16 if bfloat16_pays(device) else torch.float32
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=plan.learning_rate, weight_decay=plan.weight_decay, betas=plan.betas, fused=True)
    ]
    if inner:
        made.append(Muon(inner, lr=plan.learning_rate, weight_decay=plan.weight_decay, dtype=dtype))
    return made


class Objective(torch.nn.Module):
    """The loss as a module, so that DistributedDataParallel may wrap it."""

    def __init__(self, models: torch.nn.ModuleDict, loss: Loss) -> None:
        super().__init__()
        self.models, self.loss = models, loss

    def forward(self, batch: Batch, used: float) -> torch.Tensor:
        return self.loss(self.models, batch, used)


class Averages:
    """Several moving averages of the same weights, one for each decay."""

    def __init__(self, models: torch.nn.ModuleDict, decays: tuple[float, ...]) -> None:
        self._parameters = [p for p in models.parameters() if p.requires_grad]
        self._kept = [
            EMAModel(self._parameters, decay=decay, use_ema_warmup=True, power=0.75, foreach=True) for decay in decays
        ]

    def to(self, device: torch.device) -> None:
        for one in self._kept:
            one.to(device)

    def step(self) -> None:
        for one in self._kept:
            one.step(self._parameters)

    def state_dict(self) -> list[dict[str, Any]]:
        return [one.state_dict() for one in self._kept]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for one, state in zip(self._kept, states, strict=True):
            one.load_state_dict(state)

    def choose(self, score: Callable[[], float] | None) -> int:
        """Put the average with the lowest score into the models, the first if there is no score. Returns its number."""
        best = 0
        if score is not None and len(self._kept) > 1:
            scores = []
            for one in self._kept:
                one.copy_to(self._parameters)
                scores.append(score())
            best = scores.index(min(scores))
        self._kept[best].copy_to(self._parameters)
        return best


class _Run:
    """One call of `train`: the models, what moves them, and how far they are."""

    def __init__(
        self, name: str, models: torch.nn.ModuleDict, loss: Loss, plan: Plan, work: Path, device: torch.device
    ) -> None:
        self.name, self.models, self.plan, self.work = name, models, plan, work
        self.accelerator = Accelerator(
            cpu=device.type == "cpu", mixed_precision="bf16" if bfloat16_pays(device) else "no"
        )
        self.steppers: list[Any] = optimizers(models, plan, device)
        self.averages = Averages(models, plan.ema_decays)
        self.state = State()
        self._typical = 0.0  # seconds a step
        self._checkpoint = work / f"{name}.pt"
        if self._checkpoint.exists():
            self._resume()
        seed = 1_000_003 * self.state.step + self.accelerator.process_index
        torch.manual_seed(seed)  # noise and timesteps, different in each process
        if compiles(device):
            self._compile()
        self.objective, *self.steppers = self.accelerator.prepare(Objective(models, loss), *self.steppers)
        self.averages.to(self.accelerator.device)
        self.objective.train()

    def _resume(self) -> None:
        saved = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        for part, weights in saved["models"].items():
            self.models[part].load_state_dict(weights)
        for stepper, memory in zip(self.steppers, saved["optimizers"], strict=True):
            stepper.load_state_dict(memory)
        self.averages.load_state_dict(saved["averages"])
        curve = [tuple(point) for point in saved["curve"]]
        self.state = State(saved["step"], saved["seconds"], saved["pictures"], curve)

    def _compile(self) -> None:
        """Let torch.compile fuse the many small operations; what it cannot compile runs as it is."""
        torch._dynamo.config.suppress_errors = True
        for part in self._compiled_parts():
            part.compile()

    def _compiled_parts(self) -> list[torch.nn.Module]:
        """An autoencoder's halves are called by themselves, every other model as a whole."""
        parts: list[torch.nn.Module] = []
        for model in self.models.values():
            halves = [model.encoder, model.decoder] if hasattr(model, "decoder") else [model]
            parts += halves  # type: ignore[arg-type]
        return parts

    def finish(self, score: Callable[[], float] | None) -> torch.nn.ModuleDict:
        """Save, put the chosen average into the models, and give them back on the CPU, no longer compiled."""
        self.save()
        self.objective.eval()
        self.averages.choose(score)
        for part in self._compiled_parts():
            part._compiled_call_impl = None  # or the CPU would compile it once more
        return self.models.to("cpu").eval()

    def save(self) -> None:
        state = self.state
        if not self.accelerator.is_main_process:
            return
        progress = {"step": state.step, "seconds": state.seconds, "pictures": state.pictures, "curve": state.curve}
        with atomic_path(self._checkpoint) as temporary:
            torch.save(
                {
                    "models": {part: model.state_dict() for part, model in self.models.items()},
                    "optimizers": [stepper.state_dict() for stepper in self.steppers],
                    "averages": self.averages.state_dict(),
                    **progress,
                },
                temporary,
            )
        curve = {
            "stage": self.name,
            "steps": state.step,
            "minutes": round(state.seconds / 60, 2),
            "pictures": state.pictures,
            "loss": state.curve,
        }
        atomic_write(self.work / f"{self.name}.json", json.dumps(curve))

    def step(self, source: Iterator[Batch]) -> torch.Tensor:
        """One step of the optimizers; returns its loss, a scalar on the device."""
        used = self.state.used(self.plan)
        for stepper in self.steppers:
            for group in stepper.param_groups:
                group["lr"] = learning_rate(self.plan, used)
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(self.plan.accumulate):
            batch = next(source)
            last = part == self.plan.accumulate - 1
            apart = nullcontext() if last else self.accelerator.no_sync(self.objective)
            with apart, attention(self.accelerator.device):
                with self.accelerator.autocast():
                    value = self.objective(batch, used) / self.plan.accumulate
                self.accelerator.backward(value)
            total += value.detach()
            self.state.pictures += len(next(iter(batch.values()))) * self.accelerator.num_processes
        self.accelerator.clip_grad_norm_(self.objective.parameters(), self.plan.gradient_clip)
        for stepper in self.steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        self.averages.step()
        self.state.step += 1
        return total

    def count_seconds(self, elapsed: float) -> None:
        """Add a step's seconds. One in which a process on a GPU was suspended counts as a long one, not in full."""
        if self._typical:
            elapsed = min(elapsed, 20 * self._typical)
        self._typical = 0.9 * self._typical + 0.1 * elapsed if self._typical else elapsed
        if self.accelerator.num_processes > 1:
            shared = torch.tensor(elapsed, dtype=torch.float64, device=self.accelerator.device)
            elapsed = float(broadcast(shared))
        self.state.seconds += elapsed

    def record(self, losses: list[torch.Tensor]) -> float:
        """Add the mean of the steps since the last record to the curve. Raises FloatingPointError if it is not finite,
        before such weights are saved."""
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"{self.name}: the loss is {mean} at step {self.state.step}; resume from the last checkpoint"
            )
        self.state.curve.append((self.state.step, round(self.state.seconds / 60, 3), round(mean, 6)))
        return mean


def train(
    name: str,
    models: torch.nn.ModuleDict,
    loss: Loss,
    batches: Callable[[torch.device, State], Iterator[Batch]],
    plan: Plan,
    *,
    work: Path,
    device: str = "auto",
    score: Callable[[], float] | None = None,
) -> torch.nn.ModuleDict:
    """Train `models` until the plan's budget is used up; return them with averaged weights, on the CPU.

    loss(models, batch, used) gives a scalar; batches(device, state) yields forever, each process its own pictures.
    score(): lower is better; chooses among several averages. Writes work/NAME.pt (to resume) and work/NAME.json (the
    loss curve) as it goes. Raises FloatingPointError if the loss is not finite.
    """
    where = pick_device(device)
    run = _Run(name, models, loss, plan, work, where)
    state = run.state
    source = batches(run.accelerator.device, state)
    main = run.accelerator.is_main_process
    bar = tqdm(total=100, desc=name, unit="%", initial=int(100 * state.used(plan)), mininterval=2.0, disable=not main)
    last_save = time.monotonic()
    recent: list[torch.Tensor] = []
    while state.used(plan) < 1.0:
        began = clock(where)
        recent.append(run.step(source))
        due = time.monotonic() - last_save > plan.checkpoint_seconds
        last = bool(plan.steps) and state.step == plan.steps
        mean = run.record(recent) if state.step % LOG_EVERY == 0 or due or last else None
        run.count_seconds(clock(where) - began)
        if mean is not None:
            recent.clear()
            bar.n = int(100 * state.used(plan))
            speed = f"{state.pictures / max(state.seconds, 1e-9):.1f}"
            bar.set_postfix(step=state.step, loss=f"{mean:.4f}", per_s=speed)
        if due:
            run.save()
            last_save = time.monotonic()
    if recent:
        run.record(recent)
    bar.close()
    return run.finish(score)
