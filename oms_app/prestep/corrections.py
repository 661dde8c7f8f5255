"""The registry of corrections: everything that the rest of the program needs to know about each correction.

A correction is one class (methods.py) and one entry here. Validation, the command line, the page, the API, picture
metadata, evaluation and the documents derive everything else from the entry. Importing this file does not load torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from oms_app.fields import REQUEST_FIELDS, VARIANT_FIELDS, RequestField

if TYPE_CHECKING:
    from torch import Tensor

    from oms_app.prestep.dial import Steering
    from oms_app.prestep.methods import Start

ModelKind = Literal["oms", "singdiffusion", "signal_leak"]  # kinds of models that predict x̂0, as in the catalogue


class Correction(Protocol):
    """What happens to the noise of one picture before the first denoising step. Built from the variant's settings."""

    def texts(self, prompt: str, guidance_scale: float) -> tuple[str, ...]:
        """The texts whose predictions `correct` will need, so that they can be computed in one batch.

        prompt, guidance_scale: the request's main prompt and CFG.
        """

    def correct(self, start: Start) -> Tensor:
        """x̃_T (1, C, h, w): the first input of the denoising UNet."""


class X0Correction(Correction, Protocol):
    """A correction with an x̂0 that can be previewed."""

    def x0(self, start: Start) -> Tensor:
        """x̂0 (1, C, h, w) in scaled latents: the light and colour that `correct` brings into the noise."""


class SteeringCorrection(Correction, Protocol):
    """A correction that also moves x̂0 at the first steps of the sampler."""

    def steering(self, start: Start) -> Steering | None:
        """The feedback of one run; None if these settings need none."""

    def notes(self, steps: int, reason: str, starts_from_noise: bool) -> tuple[str, ...]:
        """What the user should know of these settings. Raises ValueError if they could not change the picture.

        steps: of the sampler. reason: why there is no module; "" if there is one. starts_from_noise: at zero terminal
        SNR, where nothing of x̂0 remains at the start.
        """


@dataclass(frozen=True)
class CorrectionSpec:
    """One correction.

    id: its name in requests and in `--variants`. title, description: for the page and the documents.
    build: makes the correction from its settings, given as keyword arguments.
    settings: the fields of a variant that it reads; fields of the table VARIANT_FIELDS, or new ones of its own.
    needs: the kind of model that its predictions come from; None if it needs none.
    has_x0: it is an `X0Correction`.
    steers: it is a `SteeringCorrection`.
    without_model: it also runs without the model that it `needs`, and at zero terminal SNR, where nothing leaks.
    """

    id: str
    title: str
    description: str
    build: Callable[..., Correction]
    settings: tuple[RequestField, ...] = ()
    needs: ModelKind | None = None
    has_x0: bool = False
    without_model: bool = False
    steers: bool = False

    @property
    def options(self) -> tuple[RequestField, ...]:
        """The settings that a command or a page offers for it. Its module is chosen there only among OMS modules."""
        return tuple(field for field in self.settings if field.name != "module" or self.needs == "oms")

    def read(self, variant: Any) -> dict[str, Any]:
        """The values of its settings in a variant, by name."""
        return {field.name: getattr(variant, field.name, field.default) for field in self.settings}

    def _own(self, variant: Any) -> dict[str, Any]:
        """As `read`, without the settings that choose the model."""
        chosen = {field.name for field in self.settings if field.chooses_model}
        return {name: value for name, value in self.read(variant).items() if name not in chosen}

    def make(self, variant: Any) -> Correction:
        """The correction with the variant's settings."""
        return self.build(**self._own(variant))

    def used(self, variant: Any, prompt: str) -> dict[str, Any]:
        """The settings that affect the picture, by name, without those that choose the model.

        prompt: the request's main prompt, which takes the place of an absent OMS prompt.
        """
        values = self._own(variant)
        if values.get("mix") == 0:
            del values["mix"]
            values.pop("prompt_b", None)
        for field in self.settings:
            if field.part_of and values.get(field.part_of) is None:
                values.pop(field.name, None)
        if "prompt" in values and values["prompt"] is None:
            values["prompt"] = prompt
        return values

    def metadata(self, variant: Any, prompt: str) -> dict[str, Any]:
        """What a picture's text chunk says of the settings that were used. prompt: the request's main prompt."""
        used = self.used(variant, prompt)
        fields = [field for field in self.settings if used.get(field.name) is not None]
        # Texts are quoted, because the chunk separates its pairs by commas.
        return {
            field.metadata or field.label: json.dumps(used[field.name], ensure_ascii=False)
            if field.kind is str and not field.choices
            else used[field.name]
            for field in fields
        }


_registry: dict[str, CorrectionSpec] = {}
CORRECTIONS: Mapping[str, CorrectionSpec] = MappingProxyType(_registry)  # by id, in the order of registration


def register(spec: CorrectionSpec) -> CorrectionSpec:
    """Adds a correction. Raises ValueError if its id is taken, or a setting has the name of another field."""
    if spec.id in _registry:
        raise ValueError(f"a correction named {spec.id!r} is registered already: choose another id")
    known = dict(VARIANT_FIELDS) | {field.name: field for other in _registry.values() for field in other.settings}
    reserved = {"name", "correction"}
    for field in spec.settings:
        if field.name in reserved or known.get(field.name, field) != field:
            raise ValueError(f"{spec.id!r} reads a setting named {field.name!r}, which is another field: rename it")
        if field.name not in VARIANT_FIELDS and field.option_name in _option_names():
            raise ValueError(f"{spec.id!r}: the option {field.option_name} exists already: rename {field.name!r}")
    _registry[spec.id] = spec
    return spec


def unregister(correction_id: str) -> None:
    """Removes a correction that was added with `register`, for tests."""
    del _registry[correction_id]


def variant_settings() -> dict[str, RequestField]:
    """Every setting that some registered correction reads, by name, in the order of registration."""
    return {field.name: field for spec in _registry.values() for field in spec.settings}


def _option_names() -> set[str]:
    return {field.option_name for table in (REQUEST_FIELDS, VARIANT_FIELDS) for field in table.values()}


def _method(name: str) -> Callable[..., Correction]:
    """Builds a class of methods.py, which imports torch, only when it is needed."""

    def build(**settings: Any) -> Correction:
        from oms_app.prestep import methods

        made: Correction = getattr(methods, name)(**settings)
        return made

    return build


def _dial(**settings: Any) -> Correction:
    from oms_app.prestep.dial import Dial

    return Dial(**settings)


def _fields(*names: str) -> tuple[RequestField, ...]:
    return tuple(VARIANT_FIELDS[name] for name in names)


DIAL = "dial"
_CENTRE_NOISE = RequestField(
    "centre_noise",
    bool,
    "Centre the noise",
    "With a mean brightness or a tint, the noise loses the mean of each channel, which varies from seed to seed.",
    default=True,
)
_OMS_SETTINGS = _fields("prompt", "prompt_b", "mix", "guidance_scale", "module", "force")

register(CorrectionSpec("raw", "Raw", "The unchanged noise, as in the stock sampler.", _method("Raw")))
register(
    CorrectionSpec(
        "oms",
        "One More Step",
        "Adds the mean picture of the OMS prompt to the noise and keeps the noise, so the composition stays (Eq. 20).",
        _method("Oms"),
        _OMS_SETTINGS,
        "oms",
        has_x0=True,
    )
)
register(
    CorrectionSpec(
        "oms-sde",
        "OMS (fresh noise)",
        "One More Step with a second draw of noise, so that the composition changes (Eq. 17).",
        _method("OmsSde"),
        _OMS_SETTINGS,
        "oms",
        has_x0=True,
    )
)
register(
    CorrectionSpec(
        "oms-reference",
        "OMS (published code)",
        "The arithmetic of the published code, for comparison.",
        _method("OmsReference"),
        _OMS_SETTINGS,
        "oms",
        has_x0=True,
    )
)
register(
    CorrectionSpec(
        "singdiffusion",
        "SingDiffusion",
        "Starts from a predicted mean picture, guided with the base model's CFG (arXiv 2403.08381).",
        _method("SingDiffusion"),
        _fields("prompt", "prompt_b", "mix", "module", "force"),
        "singdiffusion",
        has_x0=True,
    )
)
register(
    CorrectionSpec(
        "offset_noise",
        "Offset noise",
        "Adds one random value to each latent channel: random brightness and tint (Guttenberg 2023).",
        _method("OffsetNoise"),
        _fields("offset_strength", "offset_per"),
    )
)
register(
    CorrectionSpec(
        "signal_leak",
        "Signal leak",
        "Adds low frequencies drawn from statistics of many pictures, whatever the prompt (arXiv 2309.15842).",
        _method("SignalLeak"),
        _fields("module", "force"),
        "signal_leak",
        has_x0=True,
    )
)
register(
    CorrectionSpec(
        DIAL,
        "Dial",
        "Sets mean brightness, tint and direction of light by number: One More Step, then feedback in the first steps.",
        _dial,
        _OMS_SETTINGS
        + _fields("luminance", "tint", "tint_strength", "warmth", "light", "light_strength", "light_angle", "spread")
        + (_CENTRE_NOISE,),
        "oms",
        has_x0=True,
        without_model=True,
        steers=True,
    )
)
