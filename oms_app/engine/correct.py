"""Stage 4: each job's x_S becomes its x̃_T. The OMS modules' predictions are batched, and kept for the next request."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from oms_app.engine.caches import ByteCache
from oms_app.engine.denoise import Noise, chunks, require_finite
from oms_app.engine.resolve import ResolvedModule, ResolvedRequest
from oms_app.models.loading import Key, Module, Statistics
from oms_app.prestep.corrections import CORRECTIONS, Start
from oms_app.prestep.schedule import first_alpha_bar
from oms_app.prestep.step import for_scheduler, guide, mix, normalised_guide, predicted_x0
from oms_app.schema import SETTINGS, Variant


@dataclass(frozen=True)
class Job:
    """One picture to make: a variant of image `index`. `key` says all that the picture is made from."""

    key: Hashable
    variant: Variant
    index: int


def first_prompt(variant: Variant, prompt: str) -> str:
    """The variant's own prompt for light and colour, or the main one where it has none."""
    return prompt if variant.prompt is None else variant.prompt


def module_texts(variant: Variant, request: ResolvedRequest) -> tuple[str, ...]:
    """The texts whose predictions the variant's x̂0 is made of, "" among them where its guidance needs it."""
    if "prompt" not in SETTINGS[variant.correction]:
        return ()
    texts = [first_prompt(variant, request.prompt)]
    if variant.mix != 0.0 and variant.prompt_b is not None:
        texts.append(variant.prompt_b)
    guided = request.guided if variant.correction == "singdiffusion" else variant.guidance_scale != 1.0
    if guided:
        texts.append("")
    return tuple(dict.fromkeys(texts))


def settings(variant: Variant, prompt: str, corrector: ResolvedModule | None) -> Hashable:
    """All of a variant that reaches its picture: variants of other names but equal settings are one picture."""
    kept: dict[str, Any] = {name: getattr(variant, name) for name in SETTINGS[variant.correction]}
    kept["module"] = corrector.key if corrector else None
    if "prompt" in kept:
        kept["prompt"] = first_prompt(variant, prompt)
    if variant.mix == 0.0:
        kept.pop("prompt_b", None)
    kept.pop("force", None)
    return (variant.correction, *sorted(kept.items()))


class CorrectionRunner:
    """The corrections of one request. embed(encoder, text) gives (1, L, D)."""

    def __init__(
        self,
        request: ResolvedRequest,
        correctors: Mapping[str, ResolvedModule],
        noises: Mapping[int, Noise],
        predictions: ByteCache[torch.Tensor],
        embed: Callable[[Any, str], torch.Tensor],
        *,
        singly: bool = False,
    ) -> None:
        self._request = request
        self._correctors = correctors
        self._noises = noises
        self._cache = predictions
        self._embed = embed
        self._singly = singly
        self._v: dict[Hashable, torch.Tensor] = {}  # this request's own predictions, which no eviction can take away

    def start_all(self, jobs: Sequence[Job], scheduler: Any) -> list[torch.Tensor]:
        """What the pipeline is given for each job, (1, C, h, w) each."""
        self._predict(jobs)
        alpha_bar = first_alpha_bar(scheduler)
        return [self._start(job, alpha_bar, scheduler) for job in jobs]

    def x0s(self, jobs: Sequence[Job]) -> list[torch.Tensor]:
        """x̂0 of each job, (1, C, h, w): the light that `start_all` brings into its noise. For corrections with one."""
        self._predict(jobs)
        return [self._x0(job, self._noises[job.index]) for job in jobs]

    def _key(self, job: Job, text: str) -> Hashable:
        corrector, request = self._correctors[job.variant.name], self._request
        encoder = corrector.text.key if corrector.text else None
        return (corrector.key, encoder, text, request.seed + job.index, request.width, request.height)

    def _predict(self, jobs: Sequence[Job]) -> None:
        """ψ(x_S, c) for every text of every job, one batch per module; guidance and mix cost no further pass."""
        missing: dict[Key, dict[Hashable, tuple[torch.Tensor, torch.Tensor]]] = {}
        networks: dict[Key, Module] = {}
        for job in jobs:
            corrector = self._correctors.get(job.variant.name)
            if corrector is None or not isinstance(corrector.model, Module) or corrector.text is None:
                continue
            networks[corrector.key] = corrector.model
            for text in module_texts(job.variant, self._request):
                key = self._key(job, text)
                found = self._cache.get(key)
                if found is not None:
                    self._v[key] = found
                else:
                    pair = (self._noises[job.index].x_s, self._embed(corrector.text, text))
                    missing.setdefault(corrector.key, {})[key] = pair
        for module_key, pairs in missing.items():
            keys = list(pairs)
            for part in chunks(len(keys), self._request.width, self._request.height, singly=self._singly):
                batch = [pairs[keys[i]] for i in part]
                v = networks[module_key].predict(torch.cat([x for x, _ in batch]), torch.cat([c for _, c in batch]))
                require_finite(v, "the module's predictions of light")
                for i, one in zip(part, v.split(1), strict=True):
                    # A copy: a view would keep the whole batch alive in the cache. The step itself is in float32.
                    self._v[keys[i]] = one.to(torch.float32, copy=True)
                    self._cache.put(keys[i], self._v[keys[i]], self._v[keys[i]].nbytes)

    def _start(self, job: Job, alpha_bar: float, scheduler: Any) -> torch.Tensor:
        variant, noise = job.variant, self._noises[job.index]
        start = Start(
            x_s=noise.x_s.float(),
            alpha_bar=alpha_bar,
            generator=noise.generator(),
            predict=lambda: self._x0(job, noise),
        )
        own = {"strength": variant.offset_strength, "per": variant.offset_per}
        correction = CORRECTIONS[variant.correction](**(own if variant.correction == "offset_noise" else {}))
        corrected = correction.correct(start)
        return for_scheduler(corrected, scheduler) if variant.is_corrected else corrected

    def _x0(self, job: Job, noise: Noise) -> torch.Tensor:
        """x̂0 (1, C, h, w): guided and mixed from a network's predictions, or drawn from statistics."""
        variant, model = job.variant, self._correctors[job.variant.name].model
        if isinstance(model, Statistics):
            height, width = noise.x_s.shape[-2:]
            return model.leak.sample(noise.generator(), height, width).to(noise.x_s.device)

        def x0(text: str) -> torch.Tensor:
            made = self._v[self._key(job, text)]
            if variant.correction == "singdiffusion":
                none = self._v.get(self._key(job, ""), made)
                return normalised_guide(none, made, self._request.guidance_scale)
            w = variant.guidance_scale
            return predicted_x0(made if w == 1.0 else guide(self._v[self._key(job, "")], made, w))

        first = x0(first_prompt(variant, self._request.prompt))
        if variant.mix == 0.0 or variant.prompt_b is None:
            return first
        return mix([first, x0(variant.prompt_b)], [1.0 - variant.mix, variant.mix])
