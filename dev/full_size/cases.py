"""The proofs themselves. Each returns the rows of its part of the table; `prove.py` runs it in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from dev.full_size import compare, published
from dev.full_size.compare import (
    AGAIN,
    RAW,
    SAMPLERS,
    STEPS,
    PeakMemory,
    Place,
    Row,
    difference,
    painted,
    stock_picture,
)
from dev.full_size.generate import SINGLE_FILE
from oms_app import Variant
from oms_app.bench import memory
from oms_app.engine import studio as engine
from oms_app.models.vae import decode_latents

GiB = 2**30
ENCODER, MODULE = "openclip-vit-h", "oms-b-openclip-15-21"
OMS_PROMPT, OMS_GUIDANCE = "dark", 1.5
OMS = Variant(name="oms", correction="oms", prompt=OMS_PROMPT, guidance_scale=OMS_GUIDANCE, module=MODULE)
BOTH_BASES, ONE_BASE = 8 * GiB, 5 * GiB  # of half precision: both bases are 4.9, the module and its encoder 0.9


def sd15_raw(place: Place) -> list[Row]:
    """SD 1.5's folder with its safety checker against the stock pipeline, both in float32, from the same seed."""
    return _against_stock(place, "sd15", ("ddim", "euler"))


def sd21_raw(place: Place) -> list[Row]:
    """SD 2.1, v-prediction, which reads prompts with OpenCLIP ViT-H, against the stock pipeline in float32."""
    return _against_stock(place, "sd21", ("ddim",))


def _against_stock(place: Place, model: str, samplers: tuple[str, ...]) -> list[Row]:
    ours = painted(place, model, samplers)
    pipeline = compare.stock_pipeline(place.models / model)
    rows = []
    for sampler in samplers:
        rows += difference(f"{sampler} raw", ours[f"{sampler} raw"], stock_picture(pipeline, place, sampler))
    return rows


def single_file(place: Place) -> list[Row]:
    """SD 1.5's weights in one file of the original names against their folder."""
    of_folder = painted(place, "sd15", ("ddim",))["ddim raw"]
    of_file = painted(place, str(place.models / SINGLE_FILE), ("ddim",))["ddim raw"]
    return difference("ddim raw, file and folder", of_file, of_folder)


@torch.no_grad()
def oms_x0(place: Place, x_s: torch.Tensor) -> torch.Tensor:
    """x̂0 of the OMS module without the app: the stock UNet with its time projections at zero, transformers' CLIP."""
    folder = place.models / MODULE / "oms_module"
    config = json.loads((folder / "config.json").read_text())
    unet = UNet2DConditionModel(**{key: value for key, value in config.items() if not key.startswith("_")}).eval()
    weights = load_file(folder / "diffusion_pytorch_model.fp16.safetensors")
    missing, extra = unet.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    if extra or any("time_" not in name for name in missing):
        raise RuntimeError(f"the module's tensors are not the stock ones without time: {extra or missing}")
    for name, parameter in unet.named_parameters():
        if "time_emb_proj" in name:
            parameter.zero_()
    tokenizer = CLIPTokenizer.from_pretrained(place.models / ENCODER / "tokenizer", local_files_only=True)
    text = CLIPTextModel.from_pretrained(
        place.models / ENCODER / "text_encoder", variant="fp16", dtype=torch.float32, local_files_only=True
    ).eval()
    tokens = tokenizer([OMS_PROMPT, ""], padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    hidden = text(tokens.input_ids)[0]
    v_prompt, v_empty = unet(torch.cat([x_s, x_s]), 500, encoder_hidden_states=hidden).sample.split(1)
    x0: torch.Tensor = -(v_empty + OMS_GUIDANCE * (v_prompt - v_empty))  # Eq. 9 at ᾱ = 0, and Eq. 21
    return x0


def one_more_step(x0: torch.Tensor, x_s: torch.Tensor, sampler: str, config: Any) -> torch.Tensor:
    """The `latents=` of a stock pipeline: x̃_T = √ᾱ x̂0 + √(1-ᾱ) x_S (Eq. 20), as the sampler scales it."""
    scheduler = SAMPLERS[sampler].from_config(config)
    scheduler.set_timesteps(STEPS)
    if sampler == "ddim":
        alpha_bar = float(scheduler.alphas_cumprod[int(scheduler.timesteps[0])])
        return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * x_s
    sigma = float(scheduler.sigmas[0])
    alpha_bar = 1 / (sigma**2 + 1)
    x_t = alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * x_s
    # Its first input to the UNet is latents · init_noise_sigma / √(σ²+1), which must be x̃_T.
    return x_t * (sigma**2 + 1) ** 0.5 / float(scheduler.init_noise_sigma)


def oms(place: Place) -> list[Row]:
    """SD 1.5 with OMS-B and OpenCLIP ViT-H against an independent computation in float32."""
    ours = painted(place, "sd15", tuple(SAMPLERS), variants=(OMS,))
    x_s = place.noise()
    x0 = oms_x0(place, x_s)
    gc.collect()
    pipeline = compare.stock_pipeline(place.models / "sd15")
    rows = [Row("x̂0: standard deviation", float(x0.std()), "", 0.01, at_least=True)]
    for sampler in SAMPLERS:
        latents = one_more_step(x0, x_s, sampler, pipeline.scheduler.config)
        wanted = stock_picture(pipeline, place, sampler, latents)
        rows += difference(f"{sampler} oms", ours[f"{sampler} oms"], wanted)
    raw = stock_picture(pipeline, place, sampler)
    apart = difference("", raw, wanted)[0].value
    return [*rows, Row(f"{sampler}: raw and oms differ", apart, "of 255", 2.0, at_least=True)]


def sdxl_raw(place: Place) -> list[Row]:
    """SDXL in bfloat16, its VAE in float32 as on every CPU, against the stock pipeline given the same x_S."""
    ours = painted(place, "sdxl", ("euler",), precision="bfloat16")["euler raw"]
    pipeline = compare.stock_pipeline(place.models / "sdxl", StableDiffusionXLPipeline, torch.bfloat16)
    # The stock pipeline would decode in bfloat16: its latents go through a stock VAE in float32 instead.
    x_s = place.noise().to(torch.bfloat16)
    latents = stock_picture(pipeline, place, "euler", x_s, output_type="latent")[None]
    processor = pipeline.image_processor
    del pipeline
    gc.collect()
    vae = AutoencoderKL.from_pretrained(place.models / "sdxl/vae", variant="fp16", local_files_only=True)
    with torch.no_grad():
        image = vae.decode(latents.float() / vae.config.scaling_factor, return_dict=False)[0]
    return difference("euler raw", ours, processor.postprocess(image, output_type="pil")[0])


def switching(place: Place) -> list[Row]:
    """sd15 → LCM → sd15 with OMS in bfloat16: what is loaded how often, and what the second switch costs."""
    rows = []
    for title, budget in (("one base", ONE_BASE), ("both bases", BOTH_BASES)):
        loads: Counter[str] = Counter()
        with patch.object(engine, "load", partial(_counted, engine.load, loads)):
            studio = place.studio(precision="bfloat16", budget=budget)
        for turn, model in enumerate(("sd15", "lcm-dreamshaper-v7", "sd15")):
            sampler = "lcm" if turn == 1 else "ddim"
            settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "scheduler": sampler, "seed": turn}
            with compare.BytesRead() as read:
                seconds = studio.generate(place.request(model, variants=(OMS,), **settings)).seconds.load
        bases = 3 if budget == ONE_BASE else 2
        rows += [
            Row(f"a budget for {title}: loads of the module", loads["oms"], "", 1),
            Row(f"a budget for {title}: loads of its encoder", loads["text"], "", 1),
            Row(f"a budget for {title}: loads of a base", loads["base"], "", bases),
            Row(f"a budget for {title}: second switch", 1000 * seconds, "ms", 50.0 if bases == 2 else None),
            Row(f"a budget for {title}: read by it", read.count, "bytes", 0.0 if bases == 2 else None),
        ]
        studio.forget(models=True)
        del studio
        gc.collect()
    return rows


def _counted(load: Callable[[Any], Any], loads: Counter[str], key: Any) -> Any:
    loads[key.kind] += 1
    return load(key)


def eviction(place: Place) -> list[Row]:
    """Resident memory once a base was evicted, and its peak while one SD 1.5 takes the place of another."""
    shutil.copytree(place.models / "sd15", place.models / AGAIN, copy_function=os.link, dirs_exist_ok=True)
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "variants": (RAW,)}
    memory_use, rows = PeakMemory(), []
    with memory_use.watch():
        studio = place.studio(budget=1)  # bytes: a model is evicted as soon as no request uses it
        start = memory_use.now()
        before = start
        for turn, model in enumerate(("sd15", AGAIN, "sd15")):
            studio.generate(place.request(model, seed=turn, **settings))
            after = memory_use.now()
            title = f"load {turn + 1}: resident after the eviction / before the load"
            # PyTorch's own buffers come with the first load and stay: it is only told.
            rows += [Row(title, after / before, "", 1.05 if turn else None)]
            rows += [Row(f"load {turn + 1}: resident after the eviction", after / GiB, "GiB")]
            before = after
        del studio
        studio = place.studio(budget=6 * GiB)  # of which one takes 5.1
        memory_use.reset()
        studio.generate(place.request("sd15", **settings))
        first, model_bytes = memory_use.peak - start, studio.statistics().bytes_used
        memory_use.reset()
        studio.generate(place.request(AGAIN, **settings))
        second = memory_use.peak - start
    largest = max(model_bytes, studio.statistics().bytes_used)
    return [
        *rows,
        Row("one SD 1.5 in float32", largest / GiB, "GiB"),
        Row("peak of the first load and painting", first / GiB, "GiB"),
        Row("peak of the switch to the second", second / GiB, "GiB"),
        Row("peak of the switch / one SD 1.5", second / largest, "", 1.2),
    ]


def tiled_decoding(place: Place) -> list[Row]:
    """SDXL's VAE at 1024 px in float32, by shapes alone: in tiles over whole."""
    side = 1024 // 8
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(published.vae("sdxl", tiny=False))
        latents = torch.empty(1, 4, side, side)
        whole = memory.peak(lambda: decode_latents(vae, latents))
        tiled = memory.peak(lambda: decode_latents(vae, latents, tiled=True))
    return [
        Row("decoding 1024 px whole", whole / GiB, "GiB"),
        Row("decoding 1024 px in tiles", tiled / GiB, "GiB"),
        Row("in tiles / whole", tiled / whole, "", 0.5),
    ]


@dataclass(frozen=True)
class Case:
    prove: Callable[[Place], list[Row]]
    needs: tuple[str, ...] = ()  # of generate.MODELS


# The smallest first.
CASES: dict[str, Case] = {
    "tiles": Case(tiled_decoding),
    "sd15": Case(sd15_raw, ("sd15",)),
    "oms": Case(oms, ("sd15", MODULE, ENCODER)),
    "single-file": Case(single_file, ("sd15", SINGLE_FILE)),
    "eviction": Case(eviction, ("sd15",)),
    "switch": Case(switching, ("sd15", MODULE, ENCODER, "lcm-dreamshaper-v7")),
    "sd21": Case(sd21_raw, ("sd21",)),
    "sdxl": Case(sdxl_raw, ("sdxl",)),
}
