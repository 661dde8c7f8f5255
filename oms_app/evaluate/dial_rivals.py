"""Other ways to set a picture's mean brightness or colour, to compare the dial with. For evaluation only.

All run in the embedded model's stock pipeline from the same noise. Latents of a colour are those of a flat picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from numpy.typing import NDArray
from torch import Tensor

from oms_app.engine.denoise import chunks, draw, scheduled
from oms_app.models.loading import load_base, load_statistics
from oms_app.models.recorded import recorded
from oms_app.models.scheduler_factory import make_scheduler
from oms_app.models.vae import encode_pictures
from oms_app.paths import EMBEDDED_FOLDER
from oms_app.prestep.leak import LeakStatistics
from oms_app.prestep.methods import copy_of
from oms_app.prestep.schedule import first_alpha_bar
from oms_app.prestep.step import ode_step

SIDE, STEPS, GUIDANCE = 256, 20, 5.0  # Lumen's defaults
OFFSET_SCALES = np.geomspace(0.02, 1.0, 12)
Picture = NDArray[np.uint8]  # (H, W, 3)
Colour = Sequence[float]  # red, green, blue, 0…1
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


@dataclass(frozen=True)
class Row:
    """One picture to make. mean: (1, C, 1, 1), to which the channel means of the latents are moved after each step."""

    prompt: str
    latents: Tensor  # (1, C, h, w)
    mean: Tensor | None = None


class Rivals:
    """The embedded model's stock pipeline, and the ways to run it towards a colour.

    offset_scale: the constant of offset noise, in units of the colour's latent mean; see `search_offset`.
    """

    def __init__(self, offset_scale: float = math.nan) -> None:
        self._device = torch.device("cpu")
        self._pipeline = load_base(EMBEDDED_FOLDER, self._device, torch.float32).pipeline
        self._statistics: LeakStatistics = load_statistics(EMBEDDED_FOLDER / "signal_leak").leak
        self._means: dict[tuple[float, ...], Tensor] = {}
        self.offset_scale = offset_scale

    def search_offset(self, prompts: Sequence[str], colours: Sequence[Colour]) -> float:
        """The scale with the least median error of the mean over prompts and colours, among twelve; it is kept."""
        tasks = [(90_000 + i, prompt, colour) for i, prompt in enumerate(prompts) for colour in colours]
        errors = {}
        for scale in OFFSET_SCALES:
            self.offset_scale = float(scale)
            made = self.paint([self.offset(prompt, seed, colour) for seed, prompt, colour in tasks])
            got = [picture.mean() / 255 - np.mean(task[2]) for picture, task in zip(made, tasks, strict=True)]
            errors[self.offset_scale] = float(np.median(np.abs(got)))
        self.offset_scale = min(errors, key=lambda scale: errors[scale])
        return self.offset_scale

    def pictures(
        self, prompt: str, seeds: Sequence[int], asked: Mapping[str, tuple[Colour, str]]
    ) -> dict[str, list[Picture]]:
        """Pictures by way and by what is asked ("offset 20"), one for each seed. asked: name → colour, and its word."""
        rows = {}
        for name, (colour, word) in asked.items():
            rows[f"offset {name}"] = [self.offset(prompt, seed, colour) for seed in seeds]
            rows[f"signal_leak {name}"] = [self.signal_leak(prompt, seed, colour) for seed in seeds]
            rows[f"recentre {name}"] = [self.recentre(prompt, seed, colour) for seed in seeds]
            rows[f"words {name}"] = [self.words(prompt, seed, word) for seed in seeds]
        made = iter(self.paint([row for some in rows.values() for row in some]))
        return {name: [next(made) for _ in some] for name, some in rows.items()}

    def offset(self, prompt: str, seed: int, colour: Colour) -> Row:
        """Offset noise with a constant: x_S + scale · latent mean of the colour (Guttenberg 2023, without chance)."""
        return Row(prompt, self._noise(seed)[0] + self.offset_scale * self._latent_mean(colour))

    def signal_leak(self, prompt: str, seed: int, colour: Colour) -> Row:
        """Signal leak (arXiv 2309.15842) drawn from the statistics, its channel means replaced by the colour's."""
        x_s, generator = self._noise(seed)
        leak = self._statistics.sample(copy_of(generator), *x_s.shape[-2:])
        leak = leak - leak.mean((2, 3), keepdim=True) + self._latent_mean(colour)
        return Row(prompt, ode_step(leak, x_s, first_alpha_bar(self._scheduler())))

    def recentre(self, prompt: str, seed: int, colour: Colour) -> Row:
        """After each step every channel's mean is moved to the colour's, as Diffusion-CG recentres at full strength."""
        return Row(prompt, self._noise(seed)[0], self._latent_mean(colour))

    def words(self, prompt: str, seed: int, word: str) -> Row:
        """The prompt with a word for the light, and nothing else."""
        return Row(f"{prompt}, {word}" if word else prompt, self._noise(seed)[0])

    def paint(self, rows: Sequence[Row]) -> list[Picture]:
        """A picture of each row, in batches."""
        parts = chunks(len(rows), SIDE, SIDE)
        return [picture for part in parts for picture in self._paint([rows[i] for i in part])]

    def _noise(self, seed: int) -> tuple[Tensor, torch.Generator]:
        noise = draw(seed, (4, SIDE // 8, SIDE // 8), self._device, torch.float32)
        return noise.x_s, noise.generator()

    @torch.no_grad()
    def _latent_mean(self, colour: Colour) -> Tensor:
        """(1, C, 1, 1) of a flat picture of a colour in 0…1: its scaled latents' means."""
        key = tuple(colour)
        if key not in self._means:
            flat = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE) * 2 - 1
            self._means[key] = encode_pictures(self._pipeline.vae, flat).mean((2, 3), keepdim=True)
        return self._means[key]

    def _scheduler(self) -> Any:
        return make_scheduler(self._pipeline.scheduler.config, "ddim", STEPS, self._device)

    @torch.no_grad()
    def _paint(self, rows: Sequence[Row]) -> list[Picture]:
        def after_step(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
            """Diffusion-CG works on x0 + σ ε, whose mean is x0's; diffusers' x_t has √ᾱ_t times that mean."""
            following = pipe.scheduler.timesteps[step + 1 : step + 2]
            alpha_bar = float(pipe.scheduler.alphas_cumprod[int(following[0])]) if len(following) else 1.0
            x = tensors["latents"].clone()
            for i, row in enumerate(rows):
                if row.mean is not None:
                    x[i] += (math.sqrt(alpha_bar) * row.mean - x[i : i + 1].mean((2, 3), keepdim=True))[0]
            return {"latents": x}

        with recorded(self._pipeline.unet), scheduled(self._pipeline, self._scheduler()):
            out = self._pipeline(
                prompt=[row.prompt for row in rows],
                latents=torch.cat([row.latents for row in rows]),
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                height=SIDE,
                width=SIDE,
                output_type="np",
                callback_on_step_end=after_step,
            ).images
        return [np.asarray(image) for image in VaeImageProcessor.numpy_to_pil(out)]
