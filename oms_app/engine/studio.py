"""Studio.generate: how a request becomes pictures, in numbered stages.

A *job* is one picture still to be made: a variant of one of the request's images. All jobs of a request share model,
scheduler, steps, guidance and size, so they run as one batch. Whatever was made before (embeddings, OMS predictions,
whole pictures) is found in caches by what it was made from; a request that differs from the last one only in its OMS
settings therefore reuses the raw picture.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from oms_app.engine import denoise as denoising
from oms_app.engine import preview as previewing
from oms_app.engine.caches import ByteCache
from oms_app.engine.correct import CorrectionRunner, Job, module_texts, settings
from oms_app.engine.inspection import describe
from oms_app.engine.resolve import ResolvedModule, ResolvedRequest, Resolver, fill
from oms_app.engine.run import Run
from oms_app.measure.picture import measure
from oms_app.models.catalog import Catalog, Entry, ModelInfo, open_catalog
from oms_app.models.loading import Base, Key, choose_device, load, read_vocabulary
from oms_app.models.memory import (
    OOM_NOTES,
    AskedMode,
    OomFallback,
    Policy,
    Precision,
    automatic_device_budget,
    give_back,
    is_out_of_memory,
)
from oms_app.models.store import Statistics, Store
from oms_app.models.text import Embedding, TextEncoder, unknown_words
from oms_app.paths import user_folder
from oms_app.prestep.schedule import is_flow_matching
from oms_app.prestep.step import check_hand_over, check_prediction, check_terminal_snr
from oms_app.schema import (
    PREVIEW_PATIENCE,
    GenerateRequest,
    GenerateResult,
    ImageResult,
    ImageStats,
    Progress,
    StudioError,
    one_line,
)

MiB = 2**20


@dataclass(frozen=True)
class Made:
    """A finished picture, as the cache keeps it."""

    image: Image.Image
    stats: ImageStats
    blackened: bool  # by the model's safety checker


class Studio:
    """The engine. Safe under threads: one request at a time has the device, others wait and can be stopped meanwhile.

    home: the user's folder (else $OMS_HOME, else the system's place). device: "auto", "cpu", "cuda", "cuda:1", "mps".
    presets: the catalogue's folder (else $OMS_PRESETS, else the shipped one). budget, device_budget: bytes of
    the host's memory and of the device's own that models may fill; None takes what is free, less some to work in.
    precision: "auto", "float32", "float16", "bfloat16". memory: "auto", "full", "model_offload", "group_offload".
    catalog: one that is open already, so that what is added to it is known here too.
    Raises StudioError where one of them is not to be had.
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
        memory: AskedMode = "auto",
        catalog: Catalog | None = None,
    ) -> None:
        self.home = user_folder(home)
        self.device, self.device_reason = choose_device(device)
        self.catalog = catalog or open_catalog(presets, home)
        room = automatic_device_budget(self.device) if device_budget is None else device_budget
        self.policy = Policy(self.device, precision, memory, room)
        self._store = Store(load, budget, room)
        self._resolver = Resolver(self.catalog, self._store, self.policy)
        self._reliefs: dict[
            Hashable, OomFallback
        ] = {}  # what it took to fit a model and a size, once memory has run out
        self._embeddings: ByteCache[Embedding] = ByteCache(64 * MiB)
        self._predictions: ByteCache[torch.Tensor] = ByteCache(64 * MiB)
        self._pictures: ByteCache[Made] = ByteCache(256 * MiB)
        self._device_lock = threading.RLock()

    def models(self) -> list[ModelInfo]:
        """The catalogue, with what is on this machine."""
        return self.catalog.infos()

    def inspect(self, model_id: str) -> dict[str, Any]:
        """The schedule's ᾱ and SNR at T and at the first timestep, radii, latent domain and OMS modules of a base."""
        entry = self.catalog.find(model_id, "base")
        with self._device_lock, self._store.use(self._resolver.base_key(entry)) as base:
            modules = self._resolver.modules_for(entry, base)
            return describe(entry, base, self._resolver.domain(entry, base).name, [module.id for module in modules])

    def unknown_words(self, model_id: str, *texts: str) -> tuple[str, ...]:
        """Words that a model with a small vocabulary does not know, each once. Cheap: no weights are loaded."""
        entry = self.catalog.find(model_id, "base")
        return unknown_words(read_vocabulary(self.catalog.folder(entry)), *texts)

    def statistics(self) -> Statistics:
        """Of the store of loaded models."""
        return self._store.statistics()

    def forget(self, *, models: bool = False) -> None:
        """Empties the caches of embeddings, predictions and pictures, and of loaded models too where asked."""
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
        """Pictures of every variant, all of an image's variants from one noise. Writes nothing: see gallery.py.

        Image i of the request has seed + i. Raises StudioError for what the user can mend, and Stopped within one
        step of should_stop() turning true.
        """
        run = Run(on_progress, should_stop)
        entry = self.catalog.find(request.model, "base")
        filled = fill(request, entry)
        with run.holding(self._device_lock):
            return self._relieved(filled, lambda relief: self._paint(filled, entry, run, relief))

    def _relieved(self, request: ResolvedRequest, paint: Callable[[OomFallback], GenerateResult]) -> GenerateResult:
        """paint(relief), and again with more relief where memory runs out; what helped is begun with the next time.

        Pictures that were finished before it ran out are in the cache, and not painted twice.
        """
        what = (request.model, request.loras, request.width, request.height)
        relief: OomFallback | None = self._reliefs.get(what, OomFallback.NONE)
        while relief is not None:
            try:
                result = paint(relief)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = one_line(error)
            else:
                if relief == OomFallback.NONE:
                    return result
                if relief > OomFallback.EVICT:
                    self._reliefs[what] = relief
                return result.model_copy(update={"notes": (*result.notes, OOM_NOTES[relief])})
            # Only here, outside the handler, the error is gone, and with it every tensor that its frames held.
            relief = relief.next(self.device)
            self._embeddings.clear()
            self._predictions.clear()
            self._store.clear()
            give_back(self.device)
        raise StudioError(
            f"memory ran out, whatever was put away ({reason}): take a smaller picture or another model, or close "
            "other programs that use the memory"
        )

    def _paint(self, filled: ResolvedRequest, entry: Entry, run: Run, relief: OomFallback) -> GenerateResult:
        """The numbered stages."""
        singly = relief >= OomFallback.ONE_BY_ONE
        key = self._resolver.base_key(entry, filled.loras, relief)
        with ExitStack() as used:
            # 1 resolve
            with run.stage("load"):
                base: Base = used.enter_context(self._store.use(key))
                filled, correctors, notes = self._resolver.correctors(filled, entry, base, used)
                scheduler = self._scheduler(filled, base)
            keys = self._picture_keys(filled, replace(key, mode="full"), correctors)
            jobs = {key: Job(key, variant, index) for (variant, index), key in reversed(keys.items())}
            found = {key: self._pictures.get(key) for key in jobs}
            made = {key: picture for key, picture in found.items() if picture is not None}
            todo = sorted((job for key, job in jobs.items() if key not in made), key=_order(filled))

            # 2 encode
            with run.stage("encode"):
                notes += self._text_notes(filled, entry, base, correctors)
                self._encode_all(filled, todo, base, correctors)

            # 3 draw
            shape = _latent_shape(filled, base)
            indices = {job.index for job in todo}
            dtype = base.pipeline.unet.dtype  # as the stock pipeline draws it
            noises = {i: denoising.draw(filled.seed + i, shape, self.device, dtype) for i in indices}

            # 4 correct
            with run.stage("correct"):
                correcting = CorrectionRunner(
                    filled, correctors, noises, self._predictions, self._hidden, singly=singly
                )
                looking = previewing.StepPreviewer(base, scheduler)
                latents = correcting.start_all(todo, scheduler) if todo else []

            for part in denoising.chunks(len(todo), filled.width, filled.height, singly=singly):
                batch = [todo[i] for i in part]
                # 5 denoise
                with run.stage("denoise"):
                    clean = denoising.denoise(
                        base.pipeline,
                        scheduler,
                        torch.cat([latents[i] for i in part]),
                        [noises[job.index].generator() for job in batch],
                        self._embedding(base.text, filled.prompt),
                        self._embedding(base.text, filled.negative_prompt) if filled.guided else None,
                        steps=filled.num_inference_steps,
                        guidance_scale=filled.guidance_scale,
                        guidance_rescale=filled.guidance_rescale,
                        on_step=run.counter(len(todo), part, partial(looking.previews, batch)),
                        should_stop=run.should_stop,
                    )
                with run.stage("decode"):
                    # 6 decode
                    pictures, blackened = denoising.decode(base.pipeline, clean, tiled=singly)
                    # 7 measure
                    for job, picture, black in zip(batch, pictures, blackened, strict=True):
                        made[job.key] = self._keep(job, picture, black)
            # 8 keep: gallery.save, by whoever asked
        if any(picture.blackened for picture in made.values()):
            notes.append("the model's safety checker blackened a picture: that black is no light of the scene")
        images = tuple(
            ImageResult(
                variant=variant.name,
                index=index,
                seed=filled.seed + index,
                image=made[key].image.copy(),  # the caller may draw on it; the cache's must stay as it is
                stats=made[key].stats,
            )
            for (variant, index), key in keys.items()
        )
        done = GenerateRequest(**{name: getattr(filled, name) for name in GenerateRequest.model_fields})
        return GenerateResult(
            request=done,
            seed=filled.seed,
            images=images,
            seconds=run.seconds(),
            painted=len(todo),
            notes=tuple(notes),
        )

    def preview(self, request: GenerateRequest) -> tuple[ImageResult, ...] | None:
        """The light that each corrected variant will bring to the request's first picture: its x̂0, decoded.

        It costs one pass of the module and one of the VAE; the module's is kept, and `generate` finds it. Variants
        without an x̂0 (raw, offset noise) have no preview. None where a running request has the device: that goes
        first. Raises StudioError as `generate` does.
        """
        entry = self.catalog.find(request.model, "base")
        filled = fill(request.model_copy(update={"count": 1}), entry)
        if not self._device_lock.acquire(timeout=PREVIEW_PATIENCE):
            return None
        try:
            with ExitStack() as used:
                base: Base = used.enter_context(self._store.use(self._resolver.base_key(entry, request.loras)))
                filled, correctors, _ = self._resolver.correctors(filled, entry, base, used)
                self._scheduler(filled, base)  # refuses what cannot be corrected
                jobs = [Job(variant.name, variant, 0) for variant in filled.variants]
                self._encode_all(filled, jobs, base, correctors)
                shape, dtype = _latent_shape(filled, base), base.pipeline.unet.dtype
                noises = {0: denoising.draw(filled.seed, shape, self.device, dtype)}
                correcting = CorrectionRunner(filled, correctors, noises, self._predictions, self._hidden)
                return previewing.light(base, filled, correcting)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise StudioError("memory is too short for a preview: painting may still work") from error
        finally:
            self._device_lock.release()

    def _scheduler(self, request: ResolvedRequest, base: Base) -> Any:
        own = base.pipeline.scheduler
        if is_flow_matching(own):
            raise StudioError(
                f"{request.model!r} is a flow-matching model ({type(own).__name__}): it starts from pure noise, so no "
                f"correction applies, and the scheduler {request.scheduler} cannot run it; choose another model"
            )
        if not hasattr(own, "alphas_cumprod"):
            raise StudioError(
                f"{request.model!r} was trained with {type(own).__name__}, whose noise levels have no ᾱ: x̃_T cannot be "
                f"handed to it exactly, and the scheduler {request.scheduler} cannot run it; choose another model"
            )
        scheduler = denoising.make_scheduler(
            base.pipeline.scheduler.config, request.scheduler, request.num_inference_steps, self.device
        )
        if any(variant.is_corrected for variant in request.variants):
            try:
                check_terminal_snr(scheduler)
                check_hand_over(scheduler)
            except ValueError as error:
                raise StudioError(str(error)) from error
        try:
            check_prediction(scheduler)
        except ValueError as error:
            raise StudioError(f"{request.model!r}: {error}") from error
        return scheduler

    def _picture_keys(
        self, request: ResolvedRequest, base: Key, correctors: Mapping[str, ResolvedModule]
    ) -> dict[tuple[Any, int], Hashable]:
        """(variant, index) → all that its picture is made from, by index and then in the request's order."""
        shared = (
            base,
            request.prompt,
            request.negative_prompt if request.guided else None,
            request.num_inference_steps,
            request.guidance_scale,
            request.guidance_rescale if request.guided else 0.0,
            request.scheduler,
            request.width,
            request.height,
        )
        own = {variant: settings(variant, request.prompt, correctors.get(variant.name)) for variant in request.variants}
        return {
            (variant, index): (*shared, request.seed + index, own[variant])
            for index in range(request.count)
            for variant in request.variants
        }

    def _encode_all(
        self, request: ResolvedRequest, todo: Sequence[Job], base: Base, correctors: Mapping[str, ResolvedModule]
    ) -> None:
        """Embeds every text that the jobs need: those not in the cache go through each encoder as one batch."""
        wanted: dict[TextEncoder, list[str]] = {}
        if todo:
            wanted[base.text] = [request.prompt, *([request.negative_prompt] if request.guided else [])]
        for job in todo:
            if (corrector := correctors.get(job.variant.name)) and corrector.text:
                wanted.setdefault(corrector.text, []).extend(module_texts(job.variant, request))
        for encoder, texts in wanted.items():
            missing = [text for text in dict.fromkeys(texts) if self._embeddings.get((encoder.key, text)) is None]
            if missing:
                for text, embedding in zip(missing, encoder.embed(missing), strict=True):
                    self._embeddings.put((encoder.key, text), embedding, embedding.nbytes)

    def _embedding(self, encoder: TextEncoder, text: str) -> Embedding:
        found = self._embeddings.get((encoder.key, text))
        return encoder.embed([text])[0] if found is None else found

    def _hidden(self, encoder: TextEncoder, text: str) -> torch.Tensor:
        """(1, L, D)."""
        return self._embedding(encoder, text).hidden

    def _keep(self, job: Job, picture: Image.Image, blackened: bool) -> Made:
        stats = ImageStats(**asdict(measure(np.asarray(picture))))
        made = Made(picture, stats, blackened)
        self._pictures.put(job.key, made, picture.width * picture.height * 3)
        return made

    def _text_notes(
        self, request: ResolvedRequest, entry: Entry, base: Base, correctors: Mapping[str, ResolvedModule]
    ) -> list[str]:
        """What the user should know of the words: unknown ones, ignored ones, ones that did not fit."""
        notes = []
        asked = {request.prompt: base.text, request.negative_prompt: base.text}
        for variant in request.variants:
            if (corrector := correctors.get(variant.name)) and corrector.text:
                asked |= dict.fromkeys(module_texts(variant, request), corrector.text)
        if unknown := unknown_words(base.vocabulary, *asked):
            notes.append(f"{entry.title} does not know: {', '.join(unknown)}")
        for text, encoder in asked.items():
            if rest := encoder.beyond(text):
                short = rest if len(rest) <= 60 else rest[:57] + "…"
                notes.append(f"a prompt is longer than {encoder.max_tokens} tokens; truncated, not read: {short!r}")
        if request.guidance_rescale and not request.guided:
            notes.append(f"guidance rescale is ignored at CFG {request.guidance_scale:g}: it needs a CFG above 1")
        if request.negative_prompt and not request.guided:
            notes.append(f"the negative prompt is ignored at CFG {request.guidance_scale:g}: it needs a CFG above 1")
        elif request.negative_prompt and base.pipeline.unet.config.time_cond_proj_dim is not None:
            notes.append(f"the negative prompt is ignored: {entry.title} has its guidance built in")
        return notes


def _latent_shape(request: ResolvedRequest, base: Base) -> tuple[int, int, int]:
    factor = base.pipeline.vae_scale_factor
    return (int(base.pipeline.unet.config.in_channels), request.height // factor, request.width // factor)


def _order(request: ResolvedRequest) -> Callable[[Job], tuple[int, int]]:
    """By image, then in the request's order of variants."""
    places = {variant: place for place, variant in enumerate(request.variants)}
    return lambda job: (job.index, places[job.variant])
