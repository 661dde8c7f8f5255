"""Drafts: a request in few steps, for pictures that follow a control while it moves."""

from __future__ import annotations

from oms_app.engine.stages import ResolvedRequest

STEPS = 6  # Lumen's pictures of six steps of DPM++ 2M are close to those of twenty of DDIM
SOLVER = "dpm++2m"
FEW = 8  # steps at most that a model for few steps keeps, with its own scheduler
MOST_BYTES_ON_CPU = 200 * 2**20  # of a base's files: with a bigger one a processor takes longer than a visitor waits


def in_few_steps(request: ResolvedRequest) -> ResolvedRequest:
    """The request as a draft. One that has few steps already keeps them and its scheduler."""
    if request.scheduler == "lcm" or request.num_inference_steps <= STEPS:
        few: dict[str, int | str] = {"num_inference_steps": min(request.num_inference_steps, FEW)}
    else:
        few = {"num_inference_steps": STEPS, "scheduler": SOLVER}
    return request.model_copy(update={**few, "exact": False})
