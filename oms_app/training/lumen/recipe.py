"""Sizes, budgets and the schedule of Lumen, and how its UNet is built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from oms_app.training.loop import Growth
from oms_app.training.lumen import autoencoder, text_encoder
from oms_app.training.scenes import painter as scenes

# Defaults, on one CPU core.
MINUTES = {
    "autoencoder": 60.0,
    "text": 6.0,
    "unet": 240.0,
    "decoder": 30.0,
    "lcm": 30.0,
    "v": 30.0,
    "zsnr": 30.0,
    "offset": 15.0,
    "woodcut": 15.0,
}
HELD_OUT = 10_000_000  # scenes from this seed on are never trained on
CAPTION_DROPOUT = 0.1
NAMED_SHARE = 1 / 3  # of a batch: scenes on plain grounds whose captions name the ground's colour
# Until which share of the budget: latents averaged by this factor, pictures a step. Small latents cost less than half
# and teach words and layout; whole ones finish. A run that goes on from finished weights has whole ones only.
GROWTH: Growth = ((0.25, 2, 64), (1.0, 1, 32))


@dataclass(frozen=True)
class Recipe:
    """Sizes of everything. pictures: drawn for the autoencoder; scenes: drawn for the UNet; unseen: drawn for choosing
    among averaged weights. many: how many times the pictures of a step; rate: how many times the learning rate."""

    pictures: int = 8_000
    scenes: int = 24_000
    unseen: int = 256
    autoencoder_widths: tuple[int, ...] = autoencoder.WIDTHS
    autoencoder_crops: Growth = autoencoder.CROPS
    decoder_crops: Growth = autoencoder.DECODER_CROPS
    guide: autoencoder.Guide = autoencoder.GUIDE
    unet_widths: tuple[int, ...] = (48, 64, 96, 112)
    text_width: int = text_encoder.WIDTH
    text_layers: int = 3
    growth: Growth = GROWTH
    many: int = 1
    rate: float = 1.0


RECIPE = Recipe()
ON_GPU: dict[str, Any] = {"pictures": 16_000, "scenes": 100_000, "unseen": 1_024, "many": 16, "rate": 2.0}
SMOKE = Recipe(
    pictures=12,
    scenes=24,
    unseen=4,
    autoencoder_widths=(8, 8, 16, 16),
    autoencoder_crops=((1.0, 64, 2),),
    decoder_crops=((1.0, 64, 2),),
    unet_widths=(16, 16, 16, 16),
    text_width=32,
    text_layers=1,
    growth=((0.5, 2, 4), (1.0, 1, 4)),
)
# lumen-b has another latent domain: the same colours in other channels, and of other signs.
OTHER_GUIDE: autoencoder.Guide = ((3, -1.0), (0, 1.0), (2, -1.0))
OTHER: dict[str, Any] = {
    "guide": OTHER_GUIDE,
    "autoencoder_widths": (16, 32, 64, 80),
    "unet_widths": (32, 48, 64, 72),
}


def recipe_for(device: torch.device, smoke: bool) -> Recipe:
    """The same recipe in sizes that suit the device."""
    if smoke:
        return SMOKE
    return replace(RECIPE, **ON_GPU) if device.type == "cuda" else RECIPE


def other(recipe: Recipe, smoke: bool) -> Recipe:
    """lumen-b's: a smaller autoencoder of another latent domain, and a smaller UNet."""
    return replace(recipe, guide=OTHER_GUIDE) if smoke else replace(recipe, **OTHER)


def scheduler() -> DDIMScheduler:
    """SD's schedule, whose last step keeps √ᾱ_T = 0.068 of the picture: the flaw that OMS corrects."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type="epsilon",
    )


def build_unet(recipe: Recipe) -> UNet2DConditionModel:
    """48 channels at 32×32 cells are three quarters of a pass: they draw the edges. Attention stands where cells are
    few."""
    return UNet2DConditionModel(
        sample_size=scenes.SIZE // 8,
        in_channels=autoencoder.LATENT_CHANNELS,
        out_channels=autoencoder.LATENT_CHANNELS,
        block_out_channels=recipe.unet_widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=recipe.text_width,
        addition_embed_type="text",  # the prompt as a whole, added to the timestep's embedding
        addition_embed_type_num_heads=4,
        attention_head_dim=4,
        norm_num_groups=8,
    )
