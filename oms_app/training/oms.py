"""An OMS module for a base model, or SingDiffusion's: `python -m oms_app train oms`, `train singdiffusion`.

The network sees pure noise and the prompt, no timestep, and learns ‖ψ(x_S, c) + x0‖²: v-prediction at SNR 0 (OMS
paper, Eq. 8 with ᾱ = 0, and D.3). x_S says nothing of x0, so what it learns is -E[x0 | c], the prompt's mean latent.
SingDiffusion's learns x0 itself (arXiv 2403.08381).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from accelerate import PartialState

from oms_app.models import domain as domains
from oms_app.paths import EMBEDDED, EMBEDDED_FOLDER, atomic_write
from oms_app.prestep.schedule import v_target
from oms_app.prestep.unet import TimeFreeUNet
from oms_app.training.loop import Batch, Plan, State, grown, pick_device
from oms_app.training.loop import train as train_loop
from oms_app.training.lumen import stages
from oms_app.training.lumen.dataset import encode_scenes, unet_batches
from oms_app.training.lumen.recipe import recipe_for
from oms_app.training.lumen.text_encoder import save_text_encoder

log = logging.getLogger(__name__)
Kind = Literal["oms", "singdiffusion"]
MINUTES = 12.0  # default, on 2 CPU cores
# Until which share of the budget: latents averaged by this factor, pictures a step. What OMS learns is a mean, smooth
# and mostly colour; on small latents the words are learned in a fraction of the time.
GROWTH = ((0.45, 4, 32), (0.8, 2, 16), (1.0, 1, 8))
SIZES: dict[str, tuple[int, ...]] = {"S": (32, 64, 64), "B": (160, 320, 640), "L": (320, 640, 1280, 1280)}  # Tab. 3
HEADS = {"B": (5, 10, 20), "L": (5, 10, 20, 20)}


def build_module(widths: tuple[int, ...], text_width: int, sample_size: int) -> TimeFreeUNet:
    """A time-free UNet in the published shapes: of three levels the highest resolution has no attention, of L's four
    the lowest."""
    down = ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * (len(widths) - 1)
    if widths == SIZES["L"]:
        down.reverse()
    heads = next((HEADS[size] for size in HEADS if widths == SIZES[size]), 4)
    groups = 32 if min(widths) >= 128 else 8  # one channel a group would normalise the output's mean away
    return TimeFreeUNet.from_config(
        {
            "sample_size": sample_size,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": list(widths),
            "layers_per_block": 2,
            "down_block_types": down,
            "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
            "cross_attention_dim": text_width,
            "attention_head_dim": heads if isinstance(heads, int) else list(heads),
            "norm_num_groups": groups,
        }
    )


def oms_loss(models: torch.nn.ModuleDict, batch: Batch, factor: int = 1, kind: Kind = "oms") -> torch.Tensor:
    """‖ψ(x_S, c) - v(x0, x_S; ᾱ = 0)‖², the mean over all elements, on latents averaged `factor` × `factor`.

    For SingDiffusion ‖ψ(x_S, c) - x0‖². models: the module under its kind, and "text", which is not trained.
    """
    with torch.no_grad():
        hidden = models["text"](batch["tokens"]).last_hidden_state
    return module_loss(models[kind], F.avg_pool2d(batch["latents"], factor), hidden, kind)


def module_loss(module: torch.nn.Module, x0: torch.Tensor, hidden: torch.Tensor, kind: Kind = "oms") -> torch.Tensor:
    """`oms_loss` from scaled latents x0 (B, C, h, w) and prompt embeddings (B, L, D)."""
    x_s = torch.randn_like(x0)
    target = v_target(x0, x_s, 0.0) if kind == "oms" else x0
    return ((module(x_s, hidden).float() - target) ** 2).mean()


def train(
    *,
    base: Path,
    out: Path,
    device: str = "auto",
    minutes: float | None = None,
    start_from: Path | None = None,
    smoke: bool = False,
    work: Path | None = None,
    kind: Kind = "oms",
) -> Path:
    """Train a module of size S for the Lumen-shaped pipeline folder `base` and write it to `out`, see `export`.

    It reads prompts with the base's text encoder, as that is: the encoder was taught to predict coarse latents from
    captions, so it knows the words for light. For the embedded model the module names it; for another base it brings a
    copy. minutes: budget over all runs with the same work folder. start_from: such a folder to start from. Returns
    `out`.
    """
    torch.manual_seed(0)
    processes = PartialState(cpu=pick_device(device).type == "cpu")
    recipe = recipe_for(pick_device(device), smoke)
    work = work or stages.work_folder(base, smoke)
    work.mkdir(parents=True, exist_ok=True)
    pipeline = stages.load(base)
    with processes.main_process_first():
        encoded = encode_scenes(pipeline.vae, work, recipe.scenes, device)
    widths = (16, 16, 16) if smoke else SIZES["S"]
    module = (
        TimeFreeUNet.from_pretrained(start_from / f"{kind}_module")
        if start_from
        else build_module(widths, pipeline.unet.config.cross_attention_dim, pipeline.unet.config.sample_size)
    )
    models = torch.nn.ModuleDict({kind: module, "text": pipeline.text_encoder.requires_grad_(False)})
    rate = 1e-3 * recipe.rate
    plan = Plan(minutes=minutes or MINUTES, steps=2 if smoke else None, learning_rate=rate, muon=True)

    def batches(where: torch.device, state: State) -> Iterator[Batch]:
        def size() -> int:
            return grown(GROWTH, state.used(plan))[1] * recipe.many

        return unet_batches(encoded, pipeline.tokenizer, size, where, (3, state.step))

    train_loop(
        kind,
        models,
        lambda m, batch, used: oms_loss(m, batch, grown(GROWTH, used)[0], kind),
        batches,
        plan,
        work=work,
        device=device,
    )
    if processes.is_main_process:
        if base.resolve() == EMBEDDED_FOLDER.resolve():
            export(out, module, EMBEDDED, None, kind)
        else:
            export(out, module, pipeline.text_encoder, pipeline.tokenizer, kind)
        domains.write(out, domains.Domain(name=base.name, fingerprint=domains.fingerprint(pipeline.vae)))
    return out


def export(out: Path, module: TimeFreeUNet, text: Any, tokenizer: Any, kind: Kind = "oms") -> None:
    """Write the published layout (h1t/oms_b_openclip_15_21), with the encoder itself where others only name theirs.

    text: a text encoder, or the catalogue id of one to be named; then there is no tokenizer.
    A SingDiffusion module has the same layout under its own prefix.
    """
    module.save_pretrained(out / f"{kind}_module", variant="fp16")
    index: dict[str, Any] = {
        "_class_name": {"oms": "OMSPipeline", "singdiffusion": "SingDiffusionPipeline"}[kind],
        f"{kind}_module": ["oms_app", "TimeFreeUNet"],
    }
    if isinstance(text, str):
        for part in ("text_encoder", "tokenizer"):
            folder = out / f"{kind}_{part}"
            atomic_write(
                folder / "config.json", json.dumps({"_name_or_path": text, "subfolder": part}, indent=2) + "\n"
            )
    else:
        save_text_encoder(text, out / f"{kind}_text_encoder")
        tokenizer.save_pretrained(out / f"{kind}_tokenizer")
        index[f"{kind}_text_encoder"] = ["transformers", type(text).__name__]
        index[f"{kind}_tokenizer"] = ["transformers", type(tokenizer).__name__]
    atomic_write(out / "model_index.json", json.dumps(index, indent=2) + "\n")
    log.info("exported to %s", out)
