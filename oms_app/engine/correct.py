"""Stage 4: each job's x_S becomes its x̃_T. Predictions of the modules are batched, and cached for the next request."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import cast

import torch

from oms_app.engine.caches import ByteCache
from oms_app.engine.decode import require_finite
from oms_app.engine.denoise import chunks
from oms_app.engine.stages import Corrected, Drawn, Job, ResolvedModule, ResolvedRequest, extend
from oms_app.models.loading import LoadedBase, LoadedLeak, LoadedModule, ModelKey
from oms_app.models.vae import colour_map_of, rgb_map_of
from oms_app.prestep.colour import ColourMap
from oms_app.prestep.corrections import SteeringCorrection, X0Correction
from oms_app.prestep.dial import Steering
from oms_app.prestep.methods import Start
from oms_app.prestep.schedule import first_alpha_bar
from oms_app.prestep.spread import generator_of
from oms_app.prestep.step import for_scheduler
from oms_app.schema import Variant


def module_texts(variant: Variant, request: ResolvedRequest) -> tuple[str, ...]:
    """The texts whose predictions the variant's correction uses."""
    return variant.spec.make(variant).texts(request.prompt, request.guidance_scale)


def picture_settings(variant: Variant, prompt: str, module: ResolvedModule | None) -> Hashable:
    """Every setting of a variant that affects its picture: variants with equal settings give one picture."""
    used = variant.spec.used(variant, prompt)
    return (variant.correction, module.key if module else None, *sorted(used.items()))


def correct(drawn: Drawn, cache: ByteCache[torch.Tensor], *, one_by_one: bool = False) -> Corrected:
    """Stage 4. one_by_one: the modules predict for one text at a time, which takes less memory."""
    runner = CorrectionRunner(drawn, cache, one_by_one=one_by_one)
    return extend(
        drawn,
        Corrected,
        latents=tuple(map(runner.latents, drawn.jobs)),
        steerings=tuple(map(runner.steering, drawn.jobs)),
    )


def colour_map_for(base: LoadedBase) -> ColourMap:
    """The colour map of a base's VAE, fitted when it is first needed."""
    if base.colour_map is None:
        base.colour_map = colour_map_of(base.pipeline, rgb_map_for(base))
    return base.colour_map


def rgb_map_for(base: LoadedBase) -> torch.Tensor:
    """The map of a base's VAE that previews use, fitted when it is first needed."""
    if base.rgb_map is None:
        base.rgb_map = rgb_map_of(base.pipeline)
    return base.rgb_map


class CorrectionRunner:
    """Runs the corrections of a request's jobs. The modules predict when it is made, for all jobs at once."""

    def __init__(self, drawn: Drawn, cache: ByteCache[torch.Tensor], *, one_by_one: bool = False) -> None:
        self._drawn = drawn
        self._cache = cache
        self._one_by_one = one_by_one
        self._alpha_bar = first_alpha_bar(drawn.scheduler)
        self._predictions: dict[Hashable, torch.Tensor] = {}  # kept for this request, even if the cache evicts them
        self._predict(drawn.jobs)

    def latents(self, job: Job) -> torch.Tensor:
        """The pipeline's input latents, (1, C, h, w)."""
        corrected = job.variant.spec.make(job.variant).correct(self._start(job))
        return for_scheduler(corrected, self._drawn.scheduler) if job.variant.is_corrected else corrected

    def steering(self, job: Job) -> Steering | None:
        """The job's feedback at the first steps, if its correction has one."""
        if not job.variant.spec.steers:
            return None
        return cast(SteeringCorrection, job.variant.spec.make(job.variant)).steering(self._start(job))

    def x0(self, job: Job) -> torch.Tensor:
        """x̂0 (1, C, h, w) of a job whose correction has one."""
        return cast(X0Correction, job.variant.spec.make(job.variant)).x0(self._start(job))

    def _start(self, job: Job) -> Start:
        request, noise = self._drawn.request, self._drawn.noises[job.index]
        module = self._drawn.modules.get(job.variant.name)
        statistics = module.model.leak if module and isinstance(module.model, LoadedLeak) else None
        return Start(
            x_s=noise.x_s.float(),
            alpha_bar=self._alpha_bar,
            generator=noise.generator(),
            prompt=request.prompt,
            guidance_scale=request.guidance_scale,
            predict=(lambda text: self._predictions[self._key(job, module, text)]) if module else None,
            deviation=self._deviation(job, module),
            statistics=statistics,
            colours=colour_map_for(self._drawn.base) if job.variant.spec.steers else None,
            aim=torch.tensor(job.aim),
        )

    def _deviation(self, job: Job, module: ResolvedModule | None) -> Callable[[str], torch.Tensor] | None:
        if module is None or module.text is None or not isinstance(module.model, LoadedModule):
            return None
        head, encoder, x_s = module.model.spread, module.text, self._drawn.noises[job.index].x_s
        if head is None:
            return None
        seed = self._drawn.request.seed + job.index

        def sample(text: str) -> torch.Tensor:
            drawn = head.sample(self._drawn.embedding(encoder, text).hidden, generator_of(seed), *x_s.shape[-2:])
            return drawn.to(x_s.device)

        return sample

    def _key(self, job: Job, module: ResolvedModule, text: str) -> Hashable:
        request = self._drawn.request
        encoder = module.text.key if module.text else None
        return (module.key, encoder, text, request.seed + job.index, request.width, request.height)

    def _predict(self, jobs: Sequence[Job]) -> None:
        """The network's output for every text of every job, one batch per module; guidance and mix add no pass."""
        missing: dict[ModelKey, dict[Hashable, tuple[torch.Tensor, torch.Tensor]]] = {}
        networks: dict[ModelKey, LoadedModule] = {}
        for job in jobs:
            module = self._drawn.modules.get(job.variant.name)
            if module is None or not isinstance(module.model, LoadedModule) or module.text is None:
                continue
            networks[module.key] = module.model
            for text in module_texts(job.variant, self._drawn.request):
                key = self._key(job, module, text)
                found = self._cache.get(key)
                if found is not None:
                    self._predictions[key] = found
                else:
                    hidden = self._drawn.embedding(module.text, text).hidden
                    missing.setdefault(module.key, {})[key] = (self._drawn.noises[job.index].x_s, hidden)
        for module_key, pairs in missing.items():
            self._predict_batch(networks[module_key], pairs)

    def _predict_batch(self, network: LoadedModule, pairs: dict[Hashable, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """pairs: x_S (1, C, h, w) and embedding (1, L, D), by the key of the prediction."""
        keys, request = list(pairs), self._drawn.request
        for part in chunks(len(keys), request.width, request.height, one_by_one=self._one_by_one):
            batch = [pairs[keys[i]] for i in part]
            output = network.predict(torch.cat([x for x, _ in batch]), torch.cat([c for _, c in batch]))
            require_finite(output, "the module's predictions")
            for i, one in zip(part, output.split(1), strict=True):
                # A copy, because a view would keep the whole batch alive in the cache. The step itself is in float32.
                self._predictions[keys[i]] = one.to(torch.float32, copy=True)
                self._cache.put(keys[i], self._predictions[keys[i]], self._predictions[keys[i]].nbytes)
