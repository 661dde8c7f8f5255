"""One training loop for every stage: a budget of minutes, EMA weights, checkpoints; the same command resumes.

The learning rate is tied to the share of the budget that is used up, so a stopped run that is resumed ends as an
unbroken one would have, and a longer budget goes on from a checkpoint. Under `accelerate launch` each process takes its
share of the pictures of a step; the main process's clock is everybody's.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from oms_app.training.muon import Muon

Batch = dict[str, torch.Tensor]
Growth = tuple[tuple[float, int, int], ...]  # until which share of the budget: a size, pictures a step
Loss = Callable[[torch.nn.ModuleDict, Batch, float], torch.Tensor]


@dataclass
class Plan:
    """How long and how fast to train.

    minutes: budget of wall-clock training time, over all runs. steps: if given, the budget in steps instead.
    accumulate: batches of each process whose gradients are added up to one step.
    """

    minutes: float
    learning_rate: float
    steps: int | None = None
    warmup: float = 0.01  # share of the budget
    ema_decay: float = 0.999
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
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if used < plan.warmup:
        return plan.learning_rate * max(used / plan.warmup, 0.02)
    t = (used - plan.warmup) / (1 - plan.warmup)
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
        return device.type == "cuda"
    x, weight = torch.randn(4, 64, 32, 32), torch.randn(64, 64, 3, 3)

    def seconds(dtype: torch.dtype) -> float:
        a, b = x.to(dtype), weight.to(dtype)
        F.conv2d(a, b, padding=1)
        began = time.perf_counter()
        for _ in range(3):
            F.conv2d(a, b, padding=1)
        return time.perf_counter() - began

    return seconds(torch.bfloat16) < 0.8 * seconds(torch.float32)


def optimizers(models: torch.nn.ModuleDict, plan: Plan, device: torch.device) -> list[torch.optim.Optimizer]:
    """AdamW for all weights; with `plan.muon` Muon takes what is a matrix inside a network, as its authors advise:
    not embeddings, and not the first and last convolution."""
    inner: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in models.named_parameters():
        edge = any(word in name for word in ("embed", "conv_in", "conv_out"))
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


def train(
    name: str,
    models: torch.nn.ModuleDict,
    loss: Loss,
    batches: Callable[[torch.device, State], Iterator[Batch]],
    plan: Plan,
    *,
    work: Path,
    device: str = "auto",
) -> torch.nn.ModuleDict:
    """Train `models` until the plan's budget is used up; return them with their EMA weights, on the CPU.

    loss(models, batch, used) gives a scalar; batches(device, state) yields forever, each process's own pictures. Writes
    work/NAME.pt (to resume) and work/NAME.json (the loss curve) as it goes.
    """
    where = pick_device(device)
    accelerator = Accelerator(cpu=where.type == "cpu", mixed_precision="bf16" if bfloat16_pays(where) else "no")
    steppers = optimizers(models, plan, where)
    average = EMAModel(models.parameters(), decay=plan.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    state = State()
    checkpoint = work / f"{name}.pt"
    work.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for part, weights in saved["models"].items():
            models[part].load_state_dict(weights)
        for stepper, memory in zip(steppers, saved["optimizers"], strict=True):
            stepper.load_state_dict(memory)
        average.load_state_dict(saved["average"])
        state = State(saved["step"], saved["seconds"], saved["pictures"], [tuple(p) for p in saved["curve"]])
    torch.manual_seed(1_000_003 * state.step + accelerator.process_index)  # noise and timesteps, each process its own
    objective, *steppers = accelerator.prepare(Objective(models, loss), *steppers)
    average.to(accelerator.device)
    objective.train()

    def save() -> None:
        temporary = checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "models": {part: model.state_dict() for part, model in models.items()},
                "optimizers": [stepper.state_dict() for stepper in steppers],
                "average": average.state_dict(),
                "step": state.step,
                "seconds": state.seconds,
                "pictures": state.pictures,
                "curve": state.curve,
            },
            temporary,
        )
        temporary.replace(checkpoint)
        curve = {
            "stage": name,
            "steps": state.step,
            "minutes": round(state.seconds / 60, 2),
            "pictures": state.pictures,
            "loss": state.curve,
        }
        (work / f"{name}.json").write_text(json.dumps(curve))

    source = batches(accelerator.device, state)
    bar = tqdm(
        total=100,
        desc=name,
        unit="%",
        initial=int(100 * state.used(plan)),
        mininterval=2.0,
        disable=not accelerator.is_main_process,
    )
    last_save, recent = time.monotonic(), []
    while state.used(plan) < 1.0:
        began = time.monotonic()
        used = state.used(plan)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = learning_rate(plan, used)
        step_loss = 0.0
        for part in range(plan.accumulate):
            batch = next(source)
            last = part == plan.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(objective):
                with accelerator.autocast():
                    value = objective(batch, used) / plan.accumulate
                if not torch.isfinite(value):
                    raise FloatingPointError(
                        f"{name}: the loss is {value.item()} at step {state.step}; resume from the last checkpoint"
                    )
                accelerator.backward(value)
            step_loss += value.item()
            state.pictures += len(next(iter(batch.values()))) * accelerator.num_processes
        accelerator.clip_grad_norm_(objective.parameters(), plan.gradient_clip)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        average.step(models.parameters())
        recent.append(step_loss)
        state.step += 1
        elapsed = torch.tensor(time.monotonic() - began, dtype=torch.float64, device=accelerator.device)
        state.seconds += float(broadcast(elapsed)) if accelerator.num_processes > 1 else float(elapsed)
        if state.step % 50 == 0 or state.used(plan) >= 1.0:
            mean = sum(recent) / len(recent)
            recent.clear()
            state.curve.append((state.step, round(state.seconds / 60, 3), round(mean, 6)))
            bar.n = int(100 * state.used(plan))
            bar.set_postfix(
                step=state.step, loss=f"{mean:.4f}", per_s=f"{state.pictures / max(state.seconds, 1e-9):.1f}"
            )
        if time.monotonic() - last_save > plan.checkpoint_seconds and accelerator.is_main_process:
            save()
            last_save = time.monotonic()
    bar.close()
    if accelerator.is_main_process:
        save()
    average.copy_to(models.parameters())
    return models.to("cpu").eval()
