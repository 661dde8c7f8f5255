"""Trains every model, in three commands of at most eight minutes each on one H100 (a fourth trains lumen-b).

    python -m oms_app.training.lumen.gpu_recipe 1 --out gpu-work/lumen    # autoencoder, latents, text encoder
    python -m oms_app.training.lumen.gpu_recipe 2 --out gpu-work/lumen    # UNet
    python -m oms_app.training.lumen.gpu_recipe 3 --out gpu-work/lumen    # decoder, modules, spread, the LoRAs
    python -m oms_app.training.lumen.gpu_recipe 4 --out gpu-work/lumen    # lumen-b

The stages are those of the CPU; on a GPU they work in bfloat16, compiled, with more scenes, drawn ahead by all cores,
and larger batches (`recipe.ON_GPU`). Each part needs what the earlier ones left in OUT and OUT-work. What is to be kept
is in OUT and beside it in OUT-lcm and so on, in float16. `--smoke` does all of it at tiny size.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

from oms_app.training import oms, signal_leak, spread
from oms_app.training.loop import pick_device
from oms_app.training.lumen import stages
from oms_app.training.lumen.family import FAMILY

log = logging.getLogger(__name__)
# Minutes of training on one H100. The rest of a command's eight goes into drawing, encoding, compiling and export.
MINUTES = {
    "autoencoder": 3.5,
    "text": 0.7,
    "unet": 6.3,
    "decoder": 1.2,
    "oms": 0.7,
    "singdiffusion": 0.5,
    "lcm": 0.8,
    "v": 0.7,
    "zsnr": 0.7,
    "offset": 0.3,
    "woodcut": 0.3,
    "b": 2.0,
}
PARTS: dict[int, tuple[str, ...]] = {
    1: ("autoencoder", "latents", "text"),
    2: ("unet",),
    3: ("decoder", "oms", "spread", "singdiffusion", "signal_leak", *FAMILY),
    4: (stages.OTHER_DOMAIN,),
}


def run(part: int, out: Path, *, device: str = "auto", smoke: bool = False) -> list[Path]:
    """Do one part; the same call resumes. Returns the folders that it has written, weights in float16."""
    written = []
    for name in PARTS[part]:
        began = time.monotonic()
        written.append(_stage(name, out, device, smoke)())
        log.info("part %d: %s took %.0f s", part, name, time.monotonic() - began)
    return written


def _stage(name: str, out: Path, device: str, smoke: bool) -> Callable[[], Path]:
    work = stages.work_folder(out, smoke)
    minutes = MINUTES.get(name)
    if name in stages.OWN_STAGES:
        return lambda: stages.train(out=out, stage=name, device=device, minutes=minutes, smoke=smoke, work=work)
    if name in ("oms", "singdiffusion"):
        kind: oms.Kind = "oms" if name == "oms" else "singdiffusion"
        return lambda: oms.train(
            base=out, out=out / name, device=device, minutes=minutes, smoke=smoke, work=work, kind=kind
        )
    if name == "spread":
        return lambda: spread.train(base=out, out=out / "oms", device=device, smoke=smoke, work=work)
    if name == "signal_leak":
        return lambda: signal_leak.train(base=out, out=out / name, device=device, smoke=smoke, work=work)
    beside = out.with_name(f"{out.name}-{name}")
    own = None if name == stages.OTHER_DOMAIN else work  # lumen-b has latents of its own, the others share Lumen's
    return lambda: stages.train(
        out=beside, stage=name, start_from=out, device=device, minutes=minutes, smoke=smoke, work=own
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train Lumen and its family on one GPU, part by part.")
    parser.add_argument("part", type=int, choices=sorted(PARTS))
    parser.add_argument("--out", type=Path, required=True, help="the folder of the base model to write")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--smoke", action="store_true", help="everything at tiny size")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    log.info("device %s", pick_device(asked.device))
    for folder in run(asked.part, asked.out, device=asked.device, smoke=asked.smoke):
        print(folder)
