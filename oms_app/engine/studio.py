"""Studio.generate: how a request becomes pictures, in numbered stages.

A *job* is one picture still to be made: a variant of one of the request's images. All jobs of a request share model,
scheduler, steps, guidance and size, so they run as one batch. Earlier results (embeddings, OMS predictions,
whole pictures) are cached by what they depend on; a request that differs from the last one only in its OMS
settings therefore reuses the raw picture.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from oms_app.engine.caches import ByteCache
from oms_app.engine.correct import correct, picture_settings
from oms_app.engine.decode import decode
from oms_app.engine.denoise import call_for, chunks, denoise, draw
from oms_app.engine.drafts import MOST_BYTES_ON_CPU, in_few_steps
from oms_app.engine.encode import encode, text_notes
from oms_app.engine.exact import ExactRuns
from oms_app.engine.image_stats import image_stats
from oms_app.engine.inspection import describe
from oms_app.engine.observe import StepObserver
from oms_app.engine.preview import preview_x0
from oms_app.engine.reached import reached
from oms_app.engine.resolve import Resolver, apply_defaults
from oms_app.engine.run import Run
from oms_app.engine.stages import (
    Corrected,
    Drawn,
    Encoded,
    FinishedPicture,
    Job,
    Planned,
    Resolved,
    ResolvedRequest,
    extend,
)
from oms_app.engine.worker import CallerThread, Worker
from oms_app.errors import Stopped, StudioError, one_line
from oms_app.models.catalog import Catalog, ModelInfo, open_catalog
from oms_app.models.failures import is_out_of_memory
from oms_app.models.loading import ModelKey, choose_device, expected_bytes, load
from oms_app.models.memory import (
    OOM_NOTES,
    OomFallback,
    Policy,
    Precision,
    RequestedMode,
    automatic_device_budget,
    give_back,
    share_one_arena,
    size_on_disk,
)
from oms_app.models.reading import read_vocabulary
from oms_app.models.store import Store, StoreStatistics
from oms_app.models.text import Embedding, unknown_words
from oms_app.newest import Newest
from oms_app.paths import user_folder
from oms_app.prompt_hints import nearest, without_syntax
from oms_app.schema import GenerateRequest, GenerateResult, ImageResult, Progress

MiB = 2**20
MAX_FALLBACKS = 256
DRAFT_PATIENCE = 3.0  # seconds that a draft waits for the device: the first preview loads the models
PREVIEW_PATIENCE = 0.2  # seconds that a preview waits for the device: a running generation has priority


class Studio:
    """The engine. Threads may share it: one request at a time uses the device, others wait and can be stopped.

    home: the user's folder (else $OMS_HOME, else the system's place). device: "auto", "cpu", "cuda", "cuda:1", "mps".
    presets: the catalogue's folder (else $OMS_PRESETS, else the shipped one). budget, device_budget: bytes of
    the host's memory and of the device's own that models may fill; None uses the free memory minus some working memory.
    precision: "auto", "float32", "float16", "bfloat16". memory: "auto", "full", "model_offload", "group_offload".
    catalog: an open one to share, including models added to it later.
    worker: runs the work on the device; by default the calling thread.
    Raises StudioError if one of them is not available.
    """

    def __init__(
        self,
        *,
        home: Path | None = None,
        device: str = "auto",
        presets: Path | None = None,
        budget: int | None = None,
        device_budget: int | None = None,
        precision: Precision = "auto",
        memory: RequestedMode = "auto",
        catalog: Catalog | None = None,
        worker: Worker | None = None,
    ) -> None:
        share_one_arena()
        self.home = user_folder(home)
        self.device, self.device_reason = choose_device(device)
        self.catalog = catalog or open_catalog(presets, home)
        room = automatic_device_budget(self.device) if device_budget is None else device_budget
        self.policy = Policy(self.device, precision, memory, room)
        self._worker = worker or CallerThread()
        self._store = Store(load, budget, room, expected_bytes, ModelKey.is_stale)
        self._resolver = Resolver(self.catalog, self._store, self.policy)
        # By model and size: the last that worked.
        self._fallbacks: Newest[Hashable, OomFallback] = Newest(MAX_FALLBACKS)
        self._embeddings: ByteCache[Embedding] = ByteCache(64 * MiB)
        self._predictions: ByteCache[torch.Tensor] = ByteCache(64 * MiB)
        self._pictures: ByteCache[FinishedPicture] = ByteCache(256 * MiB)

    def models(self) -> list[ModelInfo]:
        """The catalogue, and which of its models are on this machine."""
        return self.catalog.infos()

    def inspect(self, model_id: str) -> dict[str, Any]:
        """The schedule's ᾱ and SNR at T and at the first timestep, radii, latent domain and OMS modules of a base."""
        return self._worker.run(partial(self._inspect, model_id))

    def _inspect(self, model_id: str) -> dict[str, Any]:
        entry = self.catalog.find(model_id, "base")
        with self._store.use(self._resolver.base_key(entry)) as base:
            modules = self._resolver.modules_for(entry, base)
            found = describe(entry, base, self._resolver.domain(entry, base).name, [module.id for module in modules])
        del base
        self._store.release_evicted()
        return found

    def unknown_words(self, model_id: str, *texts: str) -> tuple[str, ...]:
        """Words that a model with a small vocabulary does not know, each once. Fast: no weights are loaded."""
        entry = self.catalog.find(model_id, "base")
        return unknown_words(read_vocabulary(self.catalog.weights(entry)), *texts)

    def word_suggestions(self, model_id: str, *texts: str) -> dict[str, tuple[str, ...]]:
        """The unknown words of the texts, each with the known words nearest to it."""
        vocabulary = read_vocabulary(self.catalog.weights(self.catalog.find(model_id, "base")))
        return {word: nearest(word, vocabulary) for word in unknown_words(vocabulary, *map(without_syntax, texts))}

    def statistics(self) -> StoreStatistics:
        """Of the store of loaded models."""
        return self._store.statistics()

    def forget(self, *, models: bool = False) -> None:
        """Empties the caches of embeddings, predictions and pictures, and unloads the models too if `models`."""
        for cache in (self._embeddings, self._predictions, self._pictures):
            cache.clear()
        if models:
            self._store.clear()

    def generate(
        self,
        request: GenerateRequest,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> GenerateResult:
        """Pictures of every variant, all of an image's variants from one noise. Writes nothing: see output/png.py.

        Image i of the request has seed + i. Raises StudioError for what the user can correct, and Stopped within one
        step of should_stop() turning true.
        """
        run = Run(on_progress, should_stop)
        return self._worker.run(partial(self.paint, self.complete(request), run), run.should_stop)

    def complete(self, request: GenerateRequest) -> ResolvedRequest:
        """The request with the model's defaults and a seed, without waiting for the device.

        Raises StudioError for an unknown model and for a size that it cannot paint.
        """
        return apply_defaults(request, self.catalog.find(request.model, "base"))

    def paint(self, complete: ResolvedRequest, run: Run) -> GenerateResult:
        """As `generate`, on the calling thread, which must be the one that uses the device.

        If memory runs out it tries again with the next fallback. Later calls start with the fallback that worked.
        Pictures that were finished before are in the cache, and are not generated twice.
        """
        what = (complete.model, complete.loras, complete.width, complete.height)
        fallback: OomFallback | None = self._fallbacks.get(what, OomFallback.NONE)
        while fallback is not None:
            try:
                result, last = self._paint(complete, run, fallback)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = one_line(error)
            else:
                self._store.release_evicted()  # the stages, which held the models, are gone
                if last == OomFallback.NONE:
                    return result
                if last > OomFallback.EVICT:
                    self._fallbacks[what] = last
                return result.model_copy(update={"notes": (*result.notes, OOM_NOTES[last])})
            # Outside the handler the error is released, and with it every tensor in its frames.
            fallback = fallback.next(self.device)
            self._unload_others()
        raise StudioError(
            f"memory ran out even after everything else was unloaded ({reason}): choose a smaller picture or another "
            "model, or close other programs that use the memory"
        )

    def _unload_others(self) -> None:
        """Empties the caches of tensors, and unloads every model that is not in use."""
        self._embeddings.clear()
        self._predictions.clear()
        self._store.clear()
        give_back(self.device)

    def _paint(self, request: ResolvedRequest, run: Run, fallback: OomFallback) -> tuple[GenerateResult, OomFallback]:
        """The numbered stages. Each takes the object of the stage before and returns its own (stages.py).

        Also returns the last fallback that was used: decoding may need more memory than denoising.
        """
        one_by_one = fallback >= OomFallback.ONE_BY_ONE
        with ExitStack() as used:
            with run.stage("load"):
                resolved = self._resolver.resolve(request, used, fallback)  # 1
                planned = self._plan(resolved)
            with run.stage("encode"):
                notes = [*resolved.notes, *text_notes(resolved)]
                encoded = encode(planned, self._embeddings)  # 2
            drawn = self._draw(encoded)  # 3
            with run.stage("correct"):
                corrected = correct(drawn, self._predictions, one_by_one=one_by_one)  # 4
            made, fallback = self._run(corrected, run, fallback)
            if request.exact:
                exact = ExactRuns()
                while again := exact.measure(corrected, made):
                    with run.stage("correct"):
                        corrected = correct(replace(drawn, jobs=again), self._predictions, one_by_one=one_by_one)
                    more, fallback = self._run(corrected, run, fallback)
                    made |= more
                for key, picture in exact.best.items():
                    made[key] = picture
                    self._pictures.put(key, picture, request.width * request.height * 3)
                notes += exact.notes
        # 8 keep: output/png.py, by the caller
        return self._result(planned, {**planned.found, **made}, notes, run), fallback

    def _run(
        self, corrected: Corrected, run: Run, fallback: OomFallback
    ) -> tuple[dict[Hashable, FinishedPicture], OomFallback]:
        """Stages 5 to 7 of all jobs, in chunks; and the last fallback that was used."""
        made: dict[Hashable, FinishedPicture] = {}
        request, base, scheduler = corrected.request, corrected.base, corrected.scheduler
        one_by_one = fallback >= OomFallback.ONE_BY_ONE
        with StepObserver(base, scheduler) as observer:
            for part in chunks(len(corrected.jobs), request.width, request.height, one_by_one=one_by_one):
                jobs = [corrected.jobs[i] for i in part]
                with run.stage("denoise"):
                    observer.begin(jobs, [corrected.steerings[i] for i in part])
                    count = run.counter(len(corrected.jobs), part, observer.previews)
                    clean = denoise(base.pipeline, scheduler, call_for(corrected, part), count, run.should_stop)  # 5
                with run.stage("decode"):
                    finished, fallback = self._finish(corrected, jobs, clean, fallback)  # 6, 7
                    made |= finished
        return made, fallback

    def _plan(self, resolved: Resolved) -> Planned:
        """The pictures that the request wants, those that are cached, and the jobs for the others."""
        request = resolved.request
        shared = (
            replace(resolved.key, mode="full"),  # where a model's parts wait does not change its pictures
            request.prompt,
            request.negative_prompt if request.guided else None,
            request.num_inference_steps,
            request.guidance_scale,
            request.guidance_rescale if request.guided else 0.0,
            request.scheduler,
            request.width,
            request.height,
        )
        settings = {
            variant: picture_settings(variant, request.prompt, resolved.modules.get(variant.name))
            for variant in request.variants
        }
        keys: dict[tuple[Any, int], Hashable] = {
            (variant, index): (*shared, request.seed + index, settings[variant], request.exact and variant.spec.steers)
            for index in range(request.count)
            for variant in request.variants
        }
        found = {key: picture for key in keys.values() if (picture := self._pictures.get(key)) is not None}
        jobs: dict[Hashable, Job] = {}
        for (variant, index), key in keys.items():
            if key not in found:
                jobs.setdefault(key, Job(key, variant, index))  # equal settings under two names are one picture
        return extend(resolved, Planned, keys=keys, found=found, jobs=tuple(jobs.values()))

    def _draw(self, encoded: Encoded) -> Drawn:
        """Stage 3: one noise for each index, the same on every device and in every precision."""
        request, pipeline = encoded.request, encoded.base.pipeline
        factor = pipeline.vae_scale_factor
        shape = (int(pipeline.unet.config.in_channels), request.height // factor, request.width // factor)
        indices = {job.index for job in encoded.jobs}
        noises = {i: draw(request.seed + i, shape, self.device, pipeline.unet.dtype) for i in indices}
        return extend(encoded, Drawn, noises=noises)

    def _finish(
        self, resolved: Resolved, jobs: list[Job], clean: torch.Tensor, fallback: OomFallback
    ) -> tuple[dict[Hashable, FinishedPicture], OomFallback]:
        """Stages 6 and 7: the pictures of clean latents (B, C, h, w), measured and cached.

        If memory runs out the latents are kept, and decoded again with the next fallback, finally in tiles. Also
        returns the fallback that was used.
        """
        decoded = None
        while decoded is None:
            try:
                decoded = decode(resolved.base.pipeline, clean, tiled=fallback >= OomFallback.ONE_BY_ONE)
            except (RuntimeError, MemoryError) as error:
                if fallback >= OomFallback.ONE_BY_ONE or not is_out_of_memory(error):
                    raise
            if decoded is None:  # outside the handler, so that the error's frames are released
                fallback = OomFallback(fallback + 1)
                self._unload_others()
        pictures, blackened = decoded
        finished = {}
        for job, image, black in zip(jobs, pictures, blackened, strict=True):
            stats = image_stats(image)
            finished[job.key] = FinishedPicture(image, stats, black)
            if not (resolved.request.exact and job.variant.spec.steers):  # of those, only the closest one is cached
                self._pictures.put(job.key, finished[job.key], image.width * image.height * 3)
        return finished, fallback

    def _result(
        self, planned: Planned, made: dict[Hashable, FinishedPicture], notes: list[str], run: Run
    ) -> GenerateResult:
        request = planned.request
        if any(picture.blackened for picture in made.values()):
            notes = [*notes, "the model's safety checker blackened a picture; the model did not generate this black"]
        images = tuple(
            ImageResult(
                variant=variant.name,
                index=index,
                seed=request.seed + index,
                image=made[key].image.copy(),  # the caller may draw on it; the cache's must not change
                stats=made[key].stats,
                reached=reached(variant, made[key].image),
            )
            for (variant, index), key in planned.keys.items()
        )
        return GenerateResult(
            request=GenerateRequest(**{name: getattr(request, name) for name in GenerateRequest.model_fields}),
            seed=request.seed,
            images=images,
            seconds=run.seconds(),
            painted=len(planned.jobs),
            notes=tuple(notes),
        )

    def preview(self, request: GenerateRequest) -> tuple[ImageResult, ...] | None:
        """The decoded x̂0 of each corrected variant of the request's first picture.

        It costs one pass of the module, which `generate` reuses, and one of the VAE. Variants without an x̂0 (raw,
        offset noise) have no preview. None if a running request uses the device. Raises StudioError as
        `generate` does.
        """
        complete = self.complete(request.model_copy(update={"count": 1}))
        try:
            return self._worker.run_soon(partial(self._preview, complete), PREVIEW_PATIENCE)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise StudioError("there is not enough memory for a preview; generating may still work") from error

    def draft(self, request: GenerateRequest, *, whole: bool = False) -> GenerateResult | None:
        """As `generate`, in few steps (drafts.py) or `whole` in all of them; it makes way for anything else.

        None if the device is in use, if other work came, or if the model is too big for drafts on this device.
        """
        complete = self.complete(request)
        if self.device.type == "cpu" and size_on_disk(self.catalog.weights(complete.entry)).total > MOST_BYTES_ON_CPU:
            return None
        run = Run(None, self._worker.is_wanted)
        work = partial(self.paint, complete if whole else in_few_steps(complete), run)
        try:
            return self._worker.run_soon(work, DRAFT_PATIENCE, draft=True)
        except Stopped:
            return None

    def _preview(self, request: ResolvedRequest) -> tuple[ImageResult, ...]:
        with ExitStack() as used:
            resolved = self._resolver.resolve(request, used)
            jobs = tuple(Job(v.name, v, 0) for v in resolved.request.variants if v.spec.has_x0)
            planned = extend(resolved, Planned, keys={}, found={}, jobs=jobs)
            return preview_x0(self._draw(encode(planned, self._embeddings)), self._predictions)
