"""The objects that the stages of a request exchange. Every stage takes one of them and returns the next one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from PIL import Image

from oms_app.models.catalog import Entry
from oms_app.models.loading import LoadedBase, LoadedLeak, LoadedModule, ModelKey
from oms_app.models.text import Embedding, TextEncoder
from oms_app.prestep.dial import Steering
from oms_app.schema import GenerateRequest, ImageStats, Variant


class ResolvedRequest(GenerateRequest):
    """A request with the model's defaults and a seed applied. entry: the model's, found once."""

    entry: Entry

    seed: int
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    scheduler: str
    width: int
    height: int

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance runs, so that the negative prompt is used."""
        return self.guidance_scale > 1.0


@dataclass(frozen=True)
class ResolvedModule:
    """What a corrected variant needs: its model, that model's key in the store, and its text encoder."""

    key: ModelKey
    model: LoadedModule | LoadedLeak
    text: TextEncoder | None


@dataclass(frozen=True)
class Noise:
    """One picture's noise: x_S (1, C, h, w), and the generator's state after that draw, a (5056,) tensor of bytes."""

    x_s: torch.Tensor
    state: torch.Tensor

    def generator(self) -> torch.Generator:
        """A copy of the generator in its state after x_S: every variant gets its own, so they share all later noise."""
        generator = torch.Generator("cpu")
        generator.set_state(self.state)
        return generator


@dataclass(frozen=True)
class Job:
    """One picture to make: a variant of image `index`. `key` names all that the picture is made from.

    aim: what `exact` adds to the mean colour to reach, from what earlier runs missed.
    """

    key: Hashable
    variant: Variant
    index: int
    aim: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class FinishedPicture:
    """A picture with its figures, as the cache keeps it. blackened: by the model's safety checker."""

    image: Image.Image
    stats: ImageStats
    blackened: bool


@dataclass(frozen=True)
class Resolved:
    """After stage 1: every model is loaded and locked, and every default applied.

    modules: by the name of the variant. scheduler: a fresh one with its timesteps set. notes: for the user.
    """

    request: ResolvedRequest
    key: ModelKey
    base: LoadedBase
    modules: Mapping[str, ResolvedModule]
    scheduler: Any
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Planned(Resolved):
    """The pictures wanted, by variant and index; those already made; the jobs for the others, by index and variant."""

    keys: Mapping[tuple[Variant, int], Hashable]
    found: Mapping[Hashable, FinishedPicture]
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Encoded(Planned):
    """After stage 2. embeddings: of every text that the jobs need, by encoder key and text."""

    embeddings: Mapping[tuple[str, str], Embedding]

    def embedding(self, encoder: TextEncoder, text: str) -> Embedding:
        return self.embeddings[encoder.key, text]


@dataclass(frozen=True)
class Drawn(Encoded):
    """After stage 3. noises: by index."""

    noises: Mapping[int, Noise]


@dataclass(frozen=True)
class Corrected(Drawn):
    """After stage 4, in the order of the jobs.

    latents: the pipeline's input, (1, C, h, w) each. steerings: the feedback at the first steps, of jobs that have it.
    """

    latents: tuple[torch.Tensor, ...]
    steerings: tuple[Steering | None, ...]


Stage = TypeVar("Stage", bound=Resolved)


def extend(stage: Resolved, to: type[Stage], **more: Any) -> Stage:
    """The next stage's object: everything of `stage`, and what this stage adds."""
    kept = {field.name: getattr(stage, field.name) for field in fields(stage)}
    return to(**(kept | more))
