"""A raw and OMS pair by the engine against two calls of the stock pipeline, and the OMS step's share of a raw run.

`python -m oms_app bench pair`. From encoding to decoding, with models loaded and every other cache empty. The runs are
interleaved, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.models.folders import load_scheduler
from oms_app.models.loading import OWN_ENCODER, load_module
from oms_app.models.memory import size_on_disk
from oms_app.models.text import load_encoder
from oms_app.paths import EMBEDDED
from oms_app.prestep.methods import Oms, Start
from oms_app.prestep.schedule import first_alpha_bar
from oms_app.prestep.step import for_scheduler
from oms_app.schema import OMS, RAW, GenerateRequest

PROMPT = "mountains at night"


def benchmark(studio: Studio, *, model: str = EMBEDDED, runs: int = 9) -> dict[str, Any]:
    """Medians in seconds. `ratio` is pair / two stock calls, `share` the OMS step (CFG 1 and 2) / one raw run.

    Raises StudioError if the model has no OMS module in its folder.
    """
    workloads = make_workloads(studio, model)
    seconds: dict[str, list[float]] = {name: [] for name in workloads}
    for run in range(-1, runs):  # the first is a warm-up
        for name, work in workloads.items():
            started = time.perf_counter()
            work(run + 1)
            if studio.device.type == "cuda":
                torch.cuda.synchronize()
            if run >= 0:
                seconds[name].append(time.perf_counter() - started)
        print(f"run {run + 1} of {runs}", file=sys.stderr, flush=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "model": model,
        "device": str(studio.device),
        "threads": torch.get_num_threads(),
        "runs": runs,
        "seconds": median,
        "ratio": median["pair"] / median["two_stock_calls"],
        "share": {"cfg_1": median["oms_step_cfg_1"] / median["raw"], "cfg_2": median["oms_step_cfg_2"] / median["raw"]},
        "all_seconds": seconds,
    }


def make_workloads(studio: Studio, model: str) -> dict[str, Callable[[int], Any]]:
    """What is timed, by name; each takes a seed. Loads the stock pipeline and the OMS module beside the studio's."""
    entry = studio.catalog.find(model, "base")
    folder, defaults = studio.catalog.weights(entry), entry.defaults
    if defaults is None or not (folder / "oms").is_dir():
        raise StudioError(f"{model!r} has no OMS module in {folder}/oms: choose another model")
    dtype = studio.policy.dtype(size_on_disk(folder).total)
    stock = StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    if entry.adapts:
        stock.load_lora_weights(studio.catalog.folder(entry), local_files_only=True)
        stock.fuse_lora()
        stock.scheduler = load_scheduler(studio.catalog.folder(entry) / "scheduler")
    stock.to(studio.device).set_progress_bar_config(disable=True)
    module = load_module(folder / "oms", studio.device, dtype)
    encoder = load_encoder(folder / "oms" if module.encoder_name == OWN_ENCODER else folder, studio.device, dtype)
    embeddings = {text: encoder.encode([text]) for text in ("", PROMPT)}
    factor = stock.vae_scale_factor
    shape = (1, stock.unet.config.in_channels, defaults.height // factor, defaults.width // factor)
    settings = {
        "num_inference_steps": defaults.num_inference_steps,
        "guidance_scale": defaults.guidance_scale,
        "height": defaults.height,
        "width": defaults.width,
    }

    def raw(seed: int) -> None:
        stock(PROMPT, generator=torch.Generator().manual_seed(seed), **settings)

    @torch.no_grad()
    def oms_step(seed: int, guidance_scale: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        x_s = torch.randn(shape, generator=generator).to(studio.device, dtype)
        correction = Oms(guidance_scale=guidance_scale)
        texts = correction.texts(PROMPT, defaults.guidance_scale)
        v = module.unet(x_s.repeat(len(texts), 1, 1, 1), torch.cat([embeddings[text] for text in texts])).split(1)
        predict = dict(zip(texts, v, strict=True)).__getitem__
        stock.scheduler.set_timesteps(defaults.num_inference_steps)
        start = Start(x_s, first_alpha_bar(stock.scheduler), generator, PROMPT, predict=predict)
        return for_scheduler(correction.correct(start), stock.scheduler)

    def pair(seed: int) -> None:
        studio.forget()
        studio.generate(GenerateRequest(prompt=PROMPT, model=model, seed=seed, variants=(RAW, OMS)))

    corrected = oms_step(0, 1.0)

    def two_stock_calls(seed: int) -> None:
        raw(seed)
        stock(PROMPT, latents=corrected, **settings)

    return {
        "pair": pair,
        "two_stock_calls": two_stock_calls,
        "raw": raw,
        "oms_step_cfg_1": lambda seed: oms_step(seed, 1.0),
        "oms_step_cfg_2": lambda seed: oms_step(seed, 2.0),
    }
