"""Requests to the studio and its results: frozen, validated once, then trusted.

A request is one prompt, one seed and any number of *variants*. Each variant says what happens to the noise before
the first denoising step; everything else is shared, so that the pictures can be compared.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from oms_app.fields import (
    CORRECTION_FIELD,
    LORA_FIELDS,
    MAX_SEED,
    REQUEST_FIELDS,
    VARIANT_FIELDS,
    FieldError,
    RequestField,
)
from oms_app.light import LIGHTS, SIDES, layout_text, layout_values
from oms_app.prestep.corrections import CORRECTIONS, DIAL, CorrectionSpec, variant_settings

MAX_VARIANTS = 64
RunStage = Literal["load", "encode", "correct", "denoise", "decode"]
# What the page and the command line say of them.
STAGE_TEXTS: Mapping[RunStage, str] = {
    "load": "Loading the model",
    "encode": "Encoding the prompts",
    "correct": "Correcting the noise",
    "denoise": "Denoising",
    "decode": "Decoding the pictures",
}


def draw_seed(count: int = 1) -> int:
    """A random seed that leaves room for `count` seeds in a row. Seeds are drawn nowhere else."""
    return secrets.randbelow(MAX_SEED - count + 2)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Variant(Frozen):
    """One way to start the sampler from the shared noise.

    name: shown to the user and used in file names; unique within a request.
    correction: the id of a registered correction (prestep/corrections.py). "raw" leaves the noise alone; "oms" is the
        ODE step with paired noise (OMS paper, Eq. 20).
    prompt: the OMS prompt. None means the main prompt; "" means the unconditional prompt.
    prompt_b, mix: the OMS prompt slider, x̂0 = (1 - mix) x̂0(prompt) + mix x̂0(prompt_b); mix may leave [0, 1].
    guidance_scale: OMS CFG, w of Eq. 21. 0 is the unconditional prediction, 1 the conditional one.
    module: id of the module (OMS, SingDiffusion, signal-leak statistics); None takes the one of the base model's
        latent domain.
    force: use the module even if its latent domain differs from the base model's (expect colour casts).
    offset_strength, offset_per: offset noise, x_S + strength · n, one n for each channel or for the whole picture.
    luminance: of dial, the mean of all R, G and B values in percent; None leaves it to the prompt.
    tint, tint_strength: the mean colour "#rrggbb", or, with luminance, its chromaticity. warmth: -1 cool … 1 warm.
    light, light_strength: a direction (light.LIGHTS), or the light of a picture as `light.layout_text` writes it; a
        PIL image or a Path is read. light_angle: degrees clockwise from a side (light.SIDES).
    spread: low frequencies are sampled around OMS's mean: 0 is the mean, 1 the training data's variety.
    Further keyword arguments are settings of the correction's own, validated as its registration declares them.
    A setting that the correction does not read must keep its default: no setting is silently ignored.
    """

    model_config = ConfigDict(extra="allow")  # `_own_settings_are_declared` checks what is extra

    name: Annotated[str, Field(min_length=1, max_length=60)]
    correction: str = "raw"
    prompt: Annotated[str | None, VARIANT_FIELDS["prompt"]] = None
    prompt_b: Annotated[str | None, VARIANT_FIELDS["prompt_b"]] = None
    mix: Annotated[float, VARIANT_FIELDS["mix"]] = VARIANT_FIELDS["mix"].default
    guidance_scale: Annotated[float, VARIANT_FIELDS["guidance_scale"]] = VARIANT_FIELDS["guidance_scale"].default
    module: Annotated[str | None, VARIANT_FIELDS["module"]] = None
    force: Annotated[bool, VARIANT_FIELDS["force"]] = False
    offset_strength: Annotated[float, VARIANT_FIELDS["offset_strength"]] = VARIANT_FIELDS["offset_strength"].default
    offset_per: Annotated[str, VARIANT_FIELDS["offset_per"]] = VARIANT_FIELDS["offset_per"].default
    luminance: Annotated[float | None, VARIANT_FIELDS["luminance"]] = None
    tint: Annotated[str | None, VARIANT_FIELDS["tint"]] = None
    tint_strength: Annotated[float, VARIANT_FIELDS["tint_strength"]] = VARIANT_FIELDS["tint_strength"].default
    warmth: Annotated[float, VARIANT_FIELDS["warmth"]] = VARIANT_FIELDS["warmth"].default
    light: Annotated[str | None, VARIANT_FIELDS["light"]] = None
    light_strength: Annotated[float, VARIANT_FIELDS["light_strength"]] = VARIANT_FIELDS["light_strength"].default
    light_angle: Annotated[float, VARIANT_FIELDS["light_angle"]] = VARIANT_FIELDS["light_angle"].default
    spread: Annotated[float, VARIANT_FIELDS["spread"]] = VARIANT_FIELDS["spread"].default

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, value: str) -> str:
        if not re.fullmatch(r"[\w][\w .+()-]*", value):
            raise ValueError(f"{value!r} is not a valid variant name: use letters, digits, spaces and . _ + - ( )")
        return value

    @field_validator("correction")
    @classmethod
    def _correction_is_registered(cls, value: str) -> str:
        if value not in CORRECTIONS:
            raise FieldError(CORRECTION_FIELD, value, f"choose one of {', '.join(CORRECTIONS)}")
        return value

    @field_validator("light", mode="before")
    @classmethod
    def _light_is_a_direction_or_a_layout(cls, value: Any) -> Any:
        """Only a Path is read, never a text: texts come from visitors and from pictures."""
        field = VARIANT_FIELDS["light"]
        try:
            if isinstance(value, Path | Image.Image):
                return layout_text(value)
            if isinstance(value, str) and value not in LIGHTS:
                layout_values(value)
        except (OSError, ValueError) as error:
            if isinstance(value, Path):
                raise FieldError(field, value.name, f"{error}; {field.permitted}") from error
            raise FieldError(field, value, field.permitted) from error
        return value

    @model_validator(mode="before")
    @classmethod
    def _own_settings_are_declared(cls, data: Any) -> Any:
        """Validates the settings that only a registered correction knows."""
        if not isinstance(data, Mapping):
            return data
        declared, checked = variant_settings(), dict(data)
        for name in data.keys() - cls.model_fields.keys():
            if name not in declared:
                raise ValueError(f"a variant has no setting {str(name)[:60]!r}: correct its name or leave it out")
            try:
                checked[name] = TypeAdapter(declared[name].annotation).validate_python(data[name])
            except ValidationError as error:
                remedy = declared[name].permitted or error.errors()[0]["msg"]
                raise FieldError(declared[name], data[name], remedy) from error
        return checked

    @model_validator(mode="after")
    def _mix_needs_two_prompts(self) -> Variant:
        if self.mix != 0.0 and self.prompt_b is None:
            raise FieldError(
                VARIANT_FIELDS["mix"],
                self.mix,
                "there is no second OMS prompt: give {other}, or set it to 0",
                VARIANT_FIELDS["prompt_b"],
            )
        return self

    @model_validator(mode="after")
    def _parts_have_their_whole(self) -> Variant:
        for name, field in VARIANT_FIELDS.items():
            if field.part_of and getattr(self, name) != field.default and getattr(self, field.part_of) is None:
                whole = VARIANT_FIELDS[field.part_of]
                remedy = f"there is no {whole.label.lower()}: give {{other}}, or leave this at {field.default}"
                raise FieldError(field, getattr(self, name), remedy, whole)
        return self

    @model_validator(mode="after")
    def _only_a_side_is_turned(self) -> Variant:
        if self.light_angle and self.light is not None and self.light not in SIDES:
            field, what = (
                VARIANT_FIELDS["light_angle"],
                self.light if self.light in LIGHTS else "the light of a picture",
            )
            remedy = f"{what} has no side: take {', '.join(SIDES)} for {{other}}, or leave this at {field.default}"
            raise FieldError(field, self.light_angle, remedy, VARIANT_FIELDS["light"])
        return self

    @model_validator(mode="after")
    def _settings_are_read(self) -> Variant:
        if self.correction == "raw":  # a variant that is switched off may keep its settings
            return self
        read = {field.name for field in self.spec.settings}
        for name, field in variant_settings().items():
            if name not in read and getattr(self, name, field.default) != field.default:
                raise ValueError(f"{self.correction} does not read {name}: leave it at {field.default!r}")
        return self

    @property
    def spec(self) -> CorrectionSpec:
        """The registry's entry of the correction."""
        return CORRECTIONS[self.correction]

    @property
    def is_corrected(self) -> bool:
        return self.correction != "raw"


def variant_of(correction: str, settings: Mapping[str, Any], name: str = "") -> Variant:
    """A variant with those of the settings that its correction reads, named after the correction if no name is given.

    `module` among the settings names an OMS module: corrections that need another kind take the one of the base's
    latent domain. Raises ValidationError for an unknown correction and for a setting out of range.
    """
    spec = CORRECTIONS.get(correction)
    read = {field.name for field in spec.options} if spec else set()
    kept = {key: value for key, value in settings.items() if key in read}
    return Variant.model_validate({"name": name or correction, "correction": correction, **kept})


def variants_of(corrections: Iterable[str], settings: Mapping[str, Any]) -> tuple[Variant, ...]:
    """A variant for each correction, as `variant_of`.

    Every setting is validated, even if none of the corrections reads it, so that a value out of range is never ignored.
    """
    for correction in CORRECTIONS:  # together they read every setting
        variant_of(correction, settings)
    return tuple(variant_of(correction, settings) for correction in corrections)


def unread_settings(variants: Iterable[Variant], settings: Mapping[str, Any]) -> list[RequestField]:
    """The fields whose values differ from their defaults although none of the variants reads them."""
    read = {field.name for variant in variants for field in variant.spec.options}
    return [
        field
        for name, field in variant_settings().items()
        if name not in read and settings.get(name, field.default) != field.default
    ]


RAW = Variant(name="raw", correction="raw")
OMS = Variant(name="oms", correction="oms")


def one_more_step(settings: Mapping[str, Any]) -> str:
    """The correction that reads these settings: dial if one of them is the dial's own, else oms."""
    own = CORRECTIONS[DIAL].options
    return DIAL if any(field in own for field in unread_settings((OMS,), settings)) else OMS.correction


PEFT_WEIGHTS = "adapter_model.safetensors"  # PEFT names every adapter so: the name of its folder tells them apart


class Lora(Frozen):
    """A low-rank adapter from the catalogue, and how strongly it is applied."""

    id: Annotated[str, LORA_FIELDS["id"]]
    scale: Annotated[float, LORA_FIELDS["scale"]] = LORA_FIELDS["scale"].default


class GenerateRequest(Frozen):
    """One prompt and seed, any number of variants.

    None for steps, guidance, scheduler, width or height takes the model's own default from the catalogue; None for
    the seed draws one, which the result reports. Image i of `count` has seed + i.
    guidance_rescale: φ of Lin et al. (arXiv 2305.08891, Eq. 15, 16), for models of zero terminal SNR; 0 is off.
    exact: pictures with a mean brightness or a tint are measured, and made again up to twice until they have it.
    """

    prompt: Annotated[str, REQUEST_FIELDS["prompt"]]
    negative_prompt: Annotated[str, REQUEST_FIELDS["negative_prompt"]] = ""
    model: Annotated[str, REQUEST_FIELDS["model"]] = REQUEST_FIELDS["model"].default
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=MAX_VARIANTS)] = (RAW, OMS)
    loras: tuple[Lora, ...] = ()
    seed: Annotated[int | None, REQUEST_FIELDS["seed"]] = None
    count: Annotated[int, REQUEST_FIELDS["count"]] = REQUEST_FIELDS["count"].default
    num_inference_steps: Annotated[int | None, REQUEST_FIELDS["num_inference_steps"]] = None
    guidance_scale: Annotated[float | None, REQUEST_FIELDS["guidance_scale"]] = None
    guidance_rescale: Annotated[float | None, REQUEST_FIELDS["guidance_rescale"]] = None
    scheduler: Annotated[str | None, REQUEST_FIELDS["scheduler"]] = None
    width: Annotated[int | None, REQUEST_FIELDS["width"]] = None
    height: Annotated[int | None, REQUEST_FIELDS["height"]] = None
    exact: Annotated[bool, REQUEST_FIELDS["exact"]] = False

    @field_validator("prompt")
    @classmethod
    def _prompt_is_not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the prompt is empty: describe a picture, for example 'mountains at night'")
        return value

    @model_validator(mode="after")
    def _names_and_seeds(self) -> GenerateRequest:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two variants share a name ({twice}): name each correction once, or give each its own")
        if self.seed is not None and self.seed + self.count - 1 > MAX_SEED:
            raise ValueError(f"seed {self.seed} plus {self.count} pictures passes {MAX_SEED}: take a smaller seed")
        return self


class ImageStats(Frozen):
    """Figures of one picture, from its 8-bit sRGB values. See oms_app/measure."""

    mean: float  # mean of all RGB values, 0…255 (the papers' measure)
    lightness: float  # mean CIE L*, 0…100
    p1: float  # 1st percentile of L*
    p99: float  # 99th percentile of L*
    a: float  # mean CIE a*, green (-) to red (+)
    b: float  # mean CIE b*, blue (-) to yellow (+)
    histogram: tuple[int, ...]  # pixels in 64 equal bins of L*


class Reached(Frozen):
    """One thing that was asked of a picture's light, and what its pixels have.

    asked, got: of "brightness" the mean of all R, G and B values, in percent; of "tint" the mean colour, `#rrggbb`; of
        "light" a direction and by how much L* is higher towards it, or "picture" and the correlation with its light.
    difference: |got - asked| in points of brightness, or ΔE00 of the colours; None if no target is exact.
    text, meaning: both as a sentence, and what the figures mean.
    """

    what: Literal["brightness", "tint", "light"]
    asked: float | str
    got: float | str
    difference: float | None = None
    text: str
    meaning: str


class ImageResult(Frozen):
    variant: str
    index: int  # 0 … count - 1
    seed: int
    image: Image.Image  # RGB
    stats: ImageStats
    reached: tuple[Reached, ...] = ()  # what a dial asked for and got
    path: Path | None = None  # where it was saved, if it was


class Seconds(Frozen):
    """Wall-clock seconds of each stage."""

    load: float
    encode: float
    correct: float
    denoise: float
    decode: float
    total: float


class GenerateResult(Frozen):
    """Pictures ordered by index, then by the request's variants. `request` has every default filled in.

    painted: how many pictures were generated for it; the others came from the cache.
    """

    request: GenerateRequest
    seed: int
    images: tuple[ImageResult, ...]
    seconds: Seconds
    painted: int = 0
    notes: tuple[str, ...] = ()  # for the user: unknown words, an ignored negative prompt …


class Preview(Frozen):
    """A small preview of an unfinished picture: one pixel for each cell of the latents."""

    variant: str
    index: int  # 0 … count - 1
    image: Image.Image  # RGB


class Progress(Frozen):
    """Sent while a request runs. step counts to steps; both are 0 outside denoising.

    previews: every few steps of denoising, x̂0 of the unfinished pictures; else none.
    """

    stage: RunStage
    step: int = 0
    steps: int = 0
    previews: tuple[Preview, ...] = ()


class Transfer(Frozen):
    """Sent during a download: bytes on disk, and approximately how many there will be."""

    done: int
    total: int
