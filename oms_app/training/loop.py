"""One training loop for every stage: a budget of minutes, EMA weights, checkpoints; the same command resumes.

The learning rate is tied to the share of the budget that is used up, so a stopped run that is resumed ends as an
unbroken one would have, and a longer budget goes on from a checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

Batch = dict[str, torch.Tensor]


@dataclass
class Plan:
    """How long and how fast to train.

    minutes: budget of wall-clock training time, over all runs. steps: if given, the budget in steps instead.
    """

    minutes: float
    learning_rate: float
    steps: int | None = None
    warmup: float = 0.01  # share of the budget
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    checkpoint_seconds: float = 120.0


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


def pick_device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def train(
    name: str,
    models: torch.nn.ModuleDict,
    loss: Callable[[torch.nn.ModuleDict, Batch, float], torch.Tensor],
    batches: Callable[[torch.device, State], Iterator[Batch]],
    plan: Plan,
    *,
    work: Path,
    device: str = "auto",
) -> torch.nn.ModuleDict:
    """Train `models` until the plan's budget is used up; return them with their EMA weights, on the CPU.

    loss(models, batch, used) gives a scalar; batches(device, state) yields forever. Writes work/NAME.pt (to resume)
    and work/NAME.json (the loss curve) as it goes.
    """
    where = pick_device(device)
    accelerator = Accelerator(
        cpu=where.type == "cpu", mixed_precision="bf16" if where.type in ("cpu", "cuda") else "no"
    )
    optimizer = torch.optim.AdamW(
        models.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, betas=(0.9, 0.99)
    )
    average = EMAModel(models.parameters(), decay=plan.ema_decay, use_ema_warmup=True, power=0.75)
    state = State()
    checkpoint = work / f"{name}.pt"
    work.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for part, weights in saved["models"].items():
            models[part].load_state_dict(weights)
        optimizer.load_state_dict(saved["optimizer"])
        average.load_state_dict(saved["average"])
        state = State(saved["step"], saved["seconds"], saved["pictures"], [tuple(p) for p in saved["curve"]])
    models, optimizer = accelerator.prepare(models, optimizer)
    average.to(accelerator.device)
    models.train()

    def save() -> None:
        bare = accelerator.unwrap_model(models)
        temporary = checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "models": {part: model.state_dict() for part, model in bare.items()},
                "optimizer": optimizer.state_dict(),
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
    bar = tqdm(total=100, desc=name, unit="%", initial=int(100 * state.used(plan)), mininterval=2.0)
    last_save, recent = time.monotonic(), []
    while state.used(plan) < 1.0:
        began = time.monotonic()
        used = state.used(plan)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, used)
        batch = next(source)
        with accelerator.autocast():
            value = loss(models, batch, used)
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"{name}: the loss is {value.item()} at step {state.step}; resume from the last checkpoint"
            )
        accelerator.backward(value)
        accelerator.clip_grad_norm_(models.parameters(), plan.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.step(models.parameters())
        recent.append(value.item())
        state.step += 1
        state.pictures += len(next(iter(batch.values())))
        state.seconds += time.monotonic() - began
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
    bare = accelerator.unwrap_model(models)
    average.copy_to(bare.parameters())
    return bare.to("cpu").eval()
