"""An OMS module for a base model: `python -m oms_app train oms`.

The network sees pure noise and the prompt, no timestep, and learns ‖ψ(x_S, c) + x0‖²: v-prediction at SNR 0 (OMS
paper, Eq. 8 with ᾱ = 0, and D.3). x_S says nothing of x0, so what it learns is -E[x0 | c], the prompt's mean latent.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch

from oms_app.models import domain as domains
from oms_app.prestep.schedule import v_target
from oms_app.prestep.unet import TimeFreeUNet
from oms_app.training import lumen
from oms_app.training.loop import Batch, Plan
from oms_app.training.loop import train as train_loop

log = logging.getLogger(__name__)
MINUTES = 25.0  # default, on 2 CPU cores
BATCH = 8  # many small steps: the target is noisy, but a step of 32 costs four times as much
SIZES: dict[str, tuple[int, ...]] = {"S": (32, 64, 64), "B": (160, 320, 640)}  # Tab. 3


def build_module(widths: tuple[int, ...], text_width: int, sample_size: int) -> TimeFreeUNet:
    """A time-free UNet in the published shape: no attention at the highest resolution."""
    groups = 32 if min(widths) >= 128 else 8  # one channel a group would normalise the output's mean away
    return TimeFreeUNet.from_config(
        {
            "sample_size": sample_size,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": list(widths),
            "layers_per_block": 2,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "cross_attention_dim": text_width,
            "attention_head_dim": [5, 10, 20] if widths == SIZES["B"] else 4,
            "norm_num_groups": groups,
        }
    )


def oms_loss(models: torch.nn.ModuleDict, batch: Batch, text: torch.nn.Module) -> torch.Tensor:
    """‖ψ(x_S, c) - v(x0, x_S; ᾱ = 0)‖², the mean over all elements."""
    x0 = batch["latents"]
    x_s = torch.randn_like(x0)
    with torch.no_grad():
        hidden = text(batch["tokens"]).last_hidden_state
    return ((models["oms"](x_s, hidden).float() - v_target(x0, x_s, 0.0)) ** 2).mean()


def train(
    *,
    base: Path,
    out: Path,
    device: str = "auto",
    minutes: float | None = None,
    start_from: Path | None = None,
    smoke: bool = False,
    work: Path | None = None,
) -> Path:
    """Train an OMS-S module for the Lumen-shaped pipeline folder `base` and write it to `out` in the published layout.

    minutes: budget over all runs with the same work folder. start_from: an OMS folder to start from. Returns `out`.
    """
    torch.manual_seed(0)
    recipe = lumen.SMOKE if smoke else lumen.RECIPE
    work = work or lumen.work_folder(base, smoke)
    work.mkdir(parents=True, exist_ok=True)
    pipeline = lumen.load(base)
    latents, captions = lumen.encode_scenes(pipeline.vae, work, recipe.scenes, device)
    widths = (16, 16, 16) if smoke else SIZES["S"]
    module = (
        TimeFreeUNet.from_pretrained(start_from / "oms_module")
        if start_from
        else build_module(widths, pipeline.unet.config.cross_attention_dim, pipeline.unet.config.sample_size)
    )
    models = torch.nn.ModuleDict({"oms": module})
    text = pipeline.text_encoder.eval().requires_grad_(False)
    where = lumen.pick_device(device)
    text.to(where)
    plan = Plan(minutes=minutes or MINUTES, steps=2 if smoke else None, learning_rate=2e-3, ema_decay=0.999)
    models = train_loop(
        "oms",
        models,
        lambda m, batch, used: oms_loss(m, batch, text),
        lambda device_, state: lumen.unet_batches(
            latents, captions, pipeline.tokenizer, BATCH, device_, (3, state.step)
        ),
        plan,
        work=work,
        device=device,
    )
    export(out, module, encoder=base.name)
    domains.write(out, domains.Domain(name=base.name, fingerprint=domains.fingerprint(pipeline.vae)))
    return out


def export(out: Path, module: TimeFreeUNet, encoder: str) -> None:
    """Write the published layout (h1t/oms_b_openclip_15_21): the module, and configs that only name the encoder."""
    module.save_pretrained(out / "oms_module", variant="fp16")
    for folder, named in (
        ("oms_text_encoder", {"_class_name": "CLIPTextModel", "subfolder": "text_encoder"}),
        ("oms_tokenizer", {"_class_name": "CLIPTokenizer", "subfolder": "tokenizer"}),
    ):
        (out / folder).mkdir(parents=True, exist_ok=True)
        (out / folder / "config.json").write_text(json.dumps({"_name_or_path": encoder, **named}, indent=2) + "\n")
    index = {
        "_class_name": "OMSPipeline",
        "oms_module": ["oms_app", "TimeFreeUNet"],
        "oms_text_encoder": ["transformers", "CLIPTextModel"],
        "oms_tokenizer": ["transformers", "CLIPTokenizer"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    log.info("exported to %s", out)
