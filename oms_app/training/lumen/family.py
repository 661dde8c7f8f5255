"""Lumen's family: `python -m oms_app train lumen --stage lcm|v|zsnr|offset|woodcut --from assets/lumen --out FOLDER`.

Each is a LoRA on Lumen's UNet, with the scheduler that it was trained for:

lcm      4 steps: a latent consistency model as LCM-LoRA (Luo et al. 2023), with the guidance built in
v        v-prediction on the same schedule
zsnr     v-prediction on the schedule rescaled to zero terminal SNR (Lin et al. 2023)
offset   offset noise of strength 0.1 (Guttenberg 2023)
woodcut  a style: prints of two tones
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

from oms_app.measure.color import srgb_to_lab
from oms_app.paths import atomic_write
from oms_app.prestep.schedule import add_noise, rescale_zero_terminal_snr
from oms_app.training.loop import Batch, Plan
from oms_app.training.loop import train as train_loop
from oms_app.training.lumen import text_encoder
from oms_app.training.lumen.dataset import EncodedScenes, unet_batches
from oms_app.training.lumen.denoiser import unet_loss
from oms_app.training.lumen.recipe import scheduler

log = logging.getLogger(__name__)
Member = Literal["lcm", "v", "zsnr", "offset", "woodcut"]
FAMILY: tuple[Member, ...] = get_args(Member)
LEARNING_RATE = 2e-3
RANKS: dict[Member, int] = {"lcm": 8, "v": 8, "zsnr": 8, "offset": 4, "woodcut": 4}  # 4.2 MB in all, in float16
# LCM-LoRA's layers, and the first and last ones, which a new prediction type needs most.
LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"),
    *("conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj", "conv_in", "conv_out"),
)
OFFSET = 0.1  # Guttenberg's strength
GUIDANCE = 5.0  # the guidance scale that lumen-lcm has built in: Lumen's default
SOLVER_STEPS = 50  # DDIM steps that the consistency function is distilled from
HUBER = 1e-3
SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0  # LCMScheduler's
INK, PAPER = np.array((38, 24, 28), np.float32), np.array((244, 232, 206), np.float32)  # of a woodcut, sRGB
LossOf = Callable[[torch.nn.ModuleDict, Batch, float], torch.Tensor]


def train(
    member: Member,
    base: StableDiffusionPipeline,
    encoded: EncodedScenes,
    plan: Plan,
    batch: int,
    *,
    work: Path,
    device: str,
) -> dict[str, Any]:
    """Train a LoRA on `base`'s UNet, in place. Returns the configuration of the member's scheduler.

    encoded: scenes as `base`'s latents. batch: pictures a step.
    """
    models = torch.nn.ModuleDict({"unet": base.unet, "text": base.text_encoder.requires_grad_(False)})
    if member == "lcm":
        models["teacher"] = deepcopy(base.unet).requires_grad_(False)
    add_lora(base.unet, RANKS[member])
    strength = base.vae.config.scaling_factor
    train_loop(
        member,
        models,
        _loss_of(member, base.tokenizer, strength),
        lambda where, state: unet_batches(encoded, base.tokenizer, lambda: batch, where, (8, state.step)),
        plan,
        work=work,
        device=device,
    )
    return scheduler_config(member)


def add_lora(unet: UNet2DConditionModel, rank: int) -> None:
    """Freeze the UNet and give it low-rank matrices to train, which change nothing at first."""
    from peft import LoraConfig  # of the extra `train`

    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LAYERS)))


def scheduler_config(member: Member) -> dict[str, Any]:
    """The configuration, with its class, of the scheduler that a member is to be used with."""
    config = dict(scheduler().config)
    config.pop("_use_default_values")  # from_config would put the defaults back in place of what is set here
    made: LCMScheduler | DDIMScheduler
    if member == "lcm":
        made = LCMScheduler.from_config(config, original_inference_steps=SOLVER_STEPS)
    else:
        if member in ("v", "zsnr"):
            config |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": member == "zsnr"}
        made = DDIMScheduler.from_config(config)
    return {"_class_name": type(made).__name__, **made.config}


def alphas_of(member: Member) -> torch.Tensor:
    """ᾱ of the 1,000 timesteps that a member learns at, float32."""
    own = scheduler()
    if member != "zsnr":
        return own.alphas_cumprod
    return torch.cumprod(1 - rescale_zero_terminal_snr(own.betas), 0)


def _loss_of(member: Member, tokenizer: CLIPTokenizer, strength: float) -> LossOf:
    alphas = alphas_of(member)
    if member == "lcm":
        empty = text_encoder.tokens(tokenizer, [""])
        return lambda models, batch, _: consistency_loss(models, batch, alphas, empty)

    def loss(models: torch.nn.ModuleDict, batch: Batch, used: float) -> torch.Tensor:
        known = alphas.to(batch["latents"].device)
        if member == "offset":
            everywhere = {**batch, "named": torch.ones_like(batch["named"])}
            return unet_loss(models, everywhere, known, strength=strength, offset=OFFSET)
        prediction: Literal["v_prediction", "epsilon"] = "v_prediction" if member in ("v", "zsnr") else "epsilon"
        return unet_loss(models, batch, known, strength=strength, prediction=prediction)

    return loss


def boundary_scalings(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """c_skip and c_out of a consistency model at timesteps (B,), each (B, 1, 1, 1), as LCMScheduler has them."""
    scaled = (t.float() * TIMESTEP_SCALING).view(-1, 1, 1, 1)
    return SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2), scaled / (scaled**2 + SIGMA_DATA**2) ** 0.5


def consistency_loss(
    models: torch.nn.ModuleDict, batch: Batch, alphas_cumprod: torch.Tensor, empty: torch.Tensor
) -> torch.Tensor:
    """Latent consistency distillation (Luo et al. 2023, Eq. 9 and 14) with one guidance scale.

    "unet" (the student) at t is to give what it gives at the DDIM step of the guided "teacher" from t. empty: the
    tokens of "", (1, L). Pseudo-Huber distance, the mean over all elements.
    """
    x0 = batch["latents"]
    alphas = alphas_cumprod.to(x0.device)
    jump = len(alphas) // SOLVER_STEPS
    t = jump * torch.randint(1, SOLVER_STEPS + 1, (len(x0),), device=x0.device) - 1
    before = (t - jump).clamp(min=0)
    alpha, alpha_before = (alphas[i].view(-1, 1, 1, 1) for i in (t, before))
    x_t = add_noise(x0, torch.randn_like(x0), alpha)
    with torch.no_grad():
        hidden = models["text"](batch["tokens"]).last_hidden_state
    made = _consistent(models["unet"], x_t, t, hidden, alpha)  # first: autocast reuses what it cast without grad
    with torch.no_grad():
        unconditional = models["text"](empty.to(x0.device)).last_hidden_state.expand_as(hidden)
        noise = models["teacher"](x_t.repeat(2, 1, 1, 1), t.repeat(2), torch.cat((unconditional, hidden))).sample
        without, with_prompt = noise.float().chunk(2)
        guided = without + GUIDANCE * (with_prompt - without)
        x_before = add_noise(_x0(x_t, guided, alpha), guided, alpha_before)
        target = _consistent(models["unet"], x_before, before, hidden, alpha_before)
    return (torch.sqrt((made - target) ** 2 + HUBER**2) - HUBER).mean()


def _x0(x_t: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return (x_t - (1 - alpha).sqrt() * noise) / alpha.sqrt()


def _consistent(
    unet: torch.nn.Module, x_t: torch.Tensor, t: torch.Tensor, hidden: torch.Tensor, alpha: torch.Tensor
) -> torch.Tensor:
    """The consistency function of an ε-prediction UNet."""
    skip, out = boundary_scalings(t)
    return skip * x_t + out * _x0(x_t, unet(x_t, t, hidden).sample.float(), alpha)


def woodcut(picture: np.ndarray) -> np.ndarray:
    """A print of two tones, (H, W, 3) uint8: ink for what is darker than the picture's middle, softened by a pixel."""
    lightness = srgb_to_lab(picture)[..., 0]
    low, high = np.percentile(lightness, (5, 95))
    middle = float(np.clip((low + high) / 2, 25, 75))
    paper = np.clip((lightness - middle) / 8 + 0.5, 0, 1)[..., None]
    return (INK + paper * (PAPER - INK)).round().astype(np.uint8)


def export(out: Path, unet: UNet2DConditionModel, config: dict[str, Any]) -> None:
    """Write `pytorch_lora_weights.safetensors` in float16, which diffusers loads, and the scheduler's configuration."""
    from peft.utils import get_peft_model_state_dict

    layers = {name: value.half() for name, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(out, unet_lora_layers=layers)
    kept = {name: value for name, value in config.items() if not name.startswith("_use")}
    text = json.dumps(kept, indent=2, sort_keys=True) + "\n"
    atomic_write(out / "scheduler" / "scheduler_config.json", text)
    log.info("exported to %s", out)
