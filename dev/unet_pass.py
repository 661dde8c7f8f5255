"""Times a pass of Lumen's UNet, eager and recorded (oms_app/models/recorded.py): `python -m dev.unet_pass`"""

from __future__ import annotations

import json
import statistics
import time

import torch

from oms_app.models import recorded as recording
from oms_app.models.loading import load_base
from oms_app.paths import EMBEDDED_FOLDER

BATCHES, RUNS = (2, 4), 15  # one picture with guidance, a pair with guidance


@torch.no_grad()
def measure() -> dict[str, dict[str, float]]:
    """Medians in milliseconds by batch size; the two kinds take turns."""
    unet = load_base(EMBEDDED_FOLDER, torch.device("cpu"), torch.float32).pipeline.unet
    medians = {}
    for batch in BATCHES:
        x, hidden = torch.randn(batch, 4, 32, 32), torch.randn(batch, 32, 128)

        def once() -> float:
            began = time.perf_counter()
            unet(x, torch.tensor(500), encoder_hidden_states=hidden, return_dict=False)  # noqa: B023
            return 1000 * (time.perf_counter() - began)

        with recording.recorded(unet):
            for _ in range(recording.OFTEN + 3):
                once()
        taken: dict[str, list[float]] = {"eager": [], "recorded": []}
        for _ in range(RUNS):
            taken["eager"].append(once())
            with recording.recorded(unet):
                taken["recorded"].append(once())
        medians[f"batch {batch}"] = {name: round(statistics.median(ms), 1) for name, ms in taken.items()}
    return medians


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
