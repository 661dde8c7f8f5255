"""Other ways to set a picture's mean brightness or colour, to compare the dial with. For evaluation only.

All run in the stock pipeline from the same noise. Latents of a target are those of a flat picture of that colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from oms_app.engine.denoise import draw, scheduled
from oms_app.models.loading import load_base, load_statistics
from oms_app.models.scheduler_factory import make_scheduler
from oms_app.models.vae import encode_pictures
from oms_app.paths import EMBEDDED_FOLDER
from oms_app.prestep.leak import LeakStatistics
from oms_app.prestep.methods import copy_of
from oms_app.prestep.step import ode_step

SIDE, STEPS, GUIDANCE = 256, 20, 5.0  # Lumen's defaults
Pictures = np.ndarray  # (B, H, W, 3) uint8
# Percent up to which the word is said, and the word; from 45 to 55 none.
BRIGHTNESS_WORDS = (
    (12, "pitch black"),
    (30, "very dark"),
    (45, "dark"),
    (55, ""),
    (75, "bright"),
    (100, "very bright"),
)


def brightness_word(percent: float) -> str:
    return next(word for limit, word in BRIGHTNESS_WORDS if percent <= limit)


class Rivals:
    """The embedded model's stock pipeline, and the ways to run it towards a colour.

    offset_scale: the constant of offset noise, in units of the target's latent mean; see `search_offset`.
    """

    def __init__(self, offset_scale: float = math.nan) -> None:
        self._device = torch.device("cpu")
        self._pipeline = load_base(EMBEDDED_FOLDER, self._device, torch.float32).pipeline
        self._pipeline.set_progress_bar_config(disable=True)
        self._statistics: LeakStatistics = load_statistics(EMBEDDED_FOLDER / "signal_leak").leak
        self.offset_scale = offset_scale

    def search_offset(self, prompts: Sequence[str], colours: Sequence[Sequence[float]]) -> float:
        """The scale with the least median error of the mean over prompts and colours, among twelve; it is kept."""
        errors = {}
        for scale in np.geomspace(0.02, 1.0, 12):
            self.offset_scale = float(scale)
            got = [
                abs(float(self.offset(prompt, [90_000 + i], colour)[0].mean()) - 255 * float(np.mean(colour)))
                for i, prompt in enumerate(prompts)
                for colour in colours
            ]
            errors[float(scale)] = float(np.median(got))
        self.offset_scale = min(errors, key=lambda scale: errors[scale])
        return self.offset_scale

    def offset(self, prompt: str, seeds: Sequence[int], colour: Sequence[float]) -> Pictures:
        """Offset noise with a constant: x_S + scale · latent mean of the colour (Guttenberg 2023, without chance)."""
        shift = self.offset_scale * self._latent_mean(colour)
        return self._paint(prompt, seeds, lambda x_s, _: x_s + shift)

    def signal_leak(self, prompt: str, seeds: Sequence[int], colour: Sequence[float]) -> Pictures:
        """Signal leak (arXiv 2309.15842) drawn from the statistics, its channel means replaced by the colour's."""
        mean = self._latent_mean(colour)

        def start(x_s: Tensor, generator: torch.Generator) -> Tensor:
            leak = self._statistics.sample(copy_of(generator), *x_s.shape[-2:])
            leak = leak - leak.mean((2, 3), keepdim=True) + mean
            return ode_step(leak, x_s, self._first_alpha_bar())

        return self._paint(prompt, seeds, start)

    def recentre(self, prompt: str, seeds: Sequence[int], colour: Sequence[float]) -> Pictures:
        """After each step every channel's mean is moved to the colour's, as Diffusion-CG recentres at full strength.

        It works on latents x0 + σ ε, whose mean is x0's; diffusers' x_t has √ᾱ_t times that mean.
        """
        mean = self._latent_mean(colour)

        def after_step(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
            following = pipe.scheduler.timesteps[step + 1 : step + 2]
            alpha_bar = float(pipe.scheduler.alphas_cumprod[int(following[0])]) if len(following) else 1.0
            x = tensors["latents"]
            return {"latents": x - x.mean((2, 3), keepdim=True) + math.sqrt(alpha_bar) * mean}

        return self._paint(prompt, seeds, lambda x_s, _: x_s, after_step)

    def words(self, prompt: str, seeds: Sequence[int], word: str) -> Pictures:
        """The prompt with a word for the light, and nothing else."""
        return self._paint(f"{prompt}, {word}" if word else prompt, seeds, lambda x_s, _: x_s)

    @torch.no_grad()
    def _latent_mean(self, colour: Sequence[float]) -> Tensor:
        """(1, C, 1, 1) of a flat picture of a colour in 0…1: its scaled latents' means."""
        flat = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE) * 2 - 1
        return encode_pictures(self._pipeline.vae, flat).mean((2, 3), keepdim=True)

    def _scheduler(self) -> Any:
        return make_scheduler(self._pipeline.scheduler.config, "ddim", STEPS, self._device)

    def _first_alpha_bar(self) -> float:
        scheduler = self._scheduler()
        return float(scheduler.alphas_cumprod[int(scheduler.timesteps[0])])

    @torch.no_grad()
    def _paint(
        self,
        prompt: str,
        seeds: Sequence[int],
        start: Callable[[Tensor, torch.Generator], Tensor],
        after_step: Callable[[Any, int, int, dict[str, Any]], dict[str, Any]] | None = None,
    ) -> Pictures:
        shape = (4, SIDE // 8, SIDE // 8)
        noises = [draw(seed, shape, self._device, torch.float32) for seed in seeds]
        latents = torch.cat([start(noise.x_s, noise.generator()) for noise in noises])
        with scheduled(self._pipeline, self._scheduler()):
            out = self._pipeline(
                prompt=[prompt] * len(seeds),
                latents=latents,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                height=SIDE,
                width=SIDE,
                output_type="np",
                callback_on_step_end=after_step,
            ).images
        return np.stack([np.asarray(image) for image in VaeImageProcessor.numpy_to_pil(out)])
