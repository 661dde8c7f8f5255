"""A pass of Lumen's UNet by itself and recorded (oms_app/models/recorded.py). `python -m dev.unet_pass`"""

from __future__ import annotations

import json
import statistics
import time

import torch

from oms_app.models import recorded as recording
from oms_app.models.loading import load_base
from oms_app.paths import EMBEDDED_FOLDER

BATCHES, RUNS = (2, 4), 15  # a guided picture, a guided pair


@torch.no_grad()
def measure() -> dict[str, dict[str, float]]:
    """Medians in milliseconds by batch size, both kinds in turns."""
    unet = load_base(EMBEDDED_FOLDER, torch.device("cpu"), torch.float32).pipeline.unet
    measured = {}
    for batch in BATCHES:
        x, hidden = torch.randn(batch, 4, 32, 32), torch.randn(batch, 32, 128)

        def once() -> float:
            began = time.perf_counter()
            unet(x, torch.tensor(500), encoder_hidden_states=hidden, return_dict=False)  # noqa: B023
            return 1000 * (time.perf_counter() - began)

        with recording.recorded(unet):
            for _ in range(recording.OFTEN + 3):
                once()
        taken: dict[str, list[float]] = {"by itself": [], "recorded": []}
        for _ in range(RUNS):
            taken["by itself"].append(once())
            with recording.recorded(unet):
                taken["recorded"].append(once())
        measured[f"batch {batch}"] = {name: round(statistics.median(ms), 1) for name, ms in taken.items()}
    return measured


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
