"""What may be asked of the studio and what it answers: frozen, validated once, trusted inside.

A request is one prompt, one seed and any number of *variants*. Each variant says what happens to the noise before
the first denoising step; everything else is shared, so that the pictures can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from oms_app.schedulers import SCHEDULERS as SCHEDULERS
from oms_app.schedulers import SchedulerName as SchedulerName

MAX_PROMPT_CHARACTERS = 2_000
MAX_SEED = 2**32 - 1
MAX_COUNT = 16
MAX_VARIANTS = 64
PREVIEW_PATIENCE = 0.2  # seconds that a preview waits for the device: a running generation goes first

CorrectionName = Literal["raw", "oms", "oms-sde", "oms-reference", "singdiffusion", "offset_noise", "signal_leak"]
# Which of a variant's settings each correction reads; what it does not read must not be set.
SETTINGS: Mapping[CorrectionName, frozenset[str]] = MappingProxyType(
    {
        "raw": frozenset(),
        **dict.fromkeys(
            ("oms", "oms-sde", "oms-reference"),
            frozenset({"prompt", "prompt_b", "mix", "guidance_scale", "module", "force"}),
        ),
        "singdiffusion": frozenset({"prompt", "prompt_b", "mix", "module", "force"}),
        "offset_noise": frozenset({"offset_strength", "offset_per"}),
        "signal_leak": frozenset({"module", "force"}),
    }
)
CORRECTIONS: tuple[CorrectionName, ...] = tuple(SETTINGS)

Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
Guidance = Annotated[float, Field(ge=0.0, le=30.0, allow_inf_nan=False)]


class StudioError(ValueError):
    """Something the user can mend. The message names the value, the permitted range and the remedy, in one line."""


def one_line(error: BaseException) -> str:
    """What a library says, for the brackets of a StudioError."""
    return " ".join(str(error).split())[:200]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Variant(Frozen):
    """One way to start the sampler from the shared noise.

    name: shown to the user and used in file names; unique within a request.
    correction: "raw" leaves the noise alone; "oms" is the ODE step with paired noise (OMS paper, Eq. 20);
        "oms-sde" draws fresh noise (Eq. 17); "oms-reference" repeats the published code's arithmetic;
        "singdiffusion", "offset_noise" and "signal_leak" are the remedies of others (prestep/corrections.py).
    prompt: the OMS prompt. None means the main prompt; "" means the unconditional prompt.
    prompt_b, mix: the OMS prompt slider, x̂0 = (1 - mix) x̂0(prompt) + mix x̂0(prompt_b); mix may leave [0, 1].
    guidance_scale: OMS CFG, w of Eq. 21. 0 is the unconditional prediction, 1 the conditional one.
    module: id of the module (OMS, SingDiffusion, signal-leak statistics); None takes the one of the base model's
        latent domain.
    force: use the module even where its latent domain differs from the base model's (colour casts are to be expected).
    offset_strength, offset_per: offset noise, x_S + strength · n, one n for each channel or for the whole picture.
    A setting that the correction does not read (see SETTINGS) must stay as it is: nothing is passed over in silence.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    correction: CorrectionName = "raw"
    prompt: Prompt | None = None
    prompt_b: Prompt | None = None
    mix: Annotated[float, Field(ge=-1.0, le=2.0, allow_inf_nan=False)] = 0.0
    guidance_scale: Guidance = 1.0
    module: str | None = None
    force: bool = False
    offset_strength: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] = 0.1
    offset_per: Literal["channel", "picture"] = "channel"

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, value: str) -> str:
        if not re.fullmatch(r"[\w][\w .+()-]*", value):
            raise ValueError(f"{value!r} is no variant name: use letters, digits, spaces and . _ + - ( )")
        return value

    @model_validator(mode="after")
    def _mix_needs_two_prompts(self) -> Variant:
        if self.mix != 0.0 and self.prompt_b is None:
            raise ValueError(f"mix is {self.mix} but there is no second OMS prompt: give prompt_b, or set mix to 0")
        return self

    @model_validator(mode="after")
    def _settings_are_read(self) -> Variant:
        if self.correction == "raw":  # a switched-off variant may keep its settings
            return self
        for name, field in type(self).model_fields.items():
            read = name in ("name", "correction") or name in SETTINGS[self.correction]
            if not read and getattr(self, name) != field.default:
                raise ValueError(f"{self.correction} does not read {name}: leave it at {field.default!r}")
        return self

    @property
    def is_corrected(self) -> bool:
        return self.correction != "raw"


def variant_of(correction: str, settings: Mapping[str, Any]) -> Variant:
    """A variant named as its correction, with those of the settings that it reads.

    `module` among the settings names an OMS module: other corrections take what is of the base's latent domain.
    Raises ValidationError for an unknown correction and for a setting out of range.
    """
    reads = {str(name): read for name, read in SETTINGS.items()}.get(correction, frozenset())
    read = {
        name: value
        for name, value in settings.items()
        if name in reads and (name != "module" or correction.startswith("oms"))
    }
    return Variant.model_validate({"name": correction, "correction": correction, **read})


RAW = Variant(name="raw", correction="raw")
OMS = Variant(name="oms", correction="oms")


class Lora(Frozen):
    """A low-rank adapter from the catalogue, and how strongly it is applied."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    scale: Annotated[float, Field(ge=-4.0, le=4.0, allow_inf_nan=False)] = 1.0


class GenerateRequest(Frozen):
    """One prompt and seed, any number of variants.

    None for steps, guidance, scheduler, width or height takes the model's own default from the catalogue; None for
    the seed draws one, which the result reports. Image i of `count` has seed + i.
    guidance_rescale: φ of Lin et al. (arXiv 2305.08891, Eq. 15, 16), for models of zero terminal SNR; 0 is off.
    """

    prompt: Prompt
    negative_prompt: Prompt = ""
    model: Annotated[str, Field(min_length=1, max_length=1_000)] = "lumen"
    variants: Annotated[tuple[Variant, ...], Field(min_length=1, max_length=MAX_VARIANTS)] = (RAW, OMS)
    loras: tuple[Lora, ...] = ()
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1
    num_inference_steps: Annotated[int, Field(ge=1, le=200)] | None = None
    guidance_scale: Guidance | None = None
    guidance_rescale: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    scheduler: SchedulerName | None = None
    width: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] | None = None
    height: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] | None = None

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
            raise ValueError(f"two variants share a name ({', '.join(names)}): give each its own")
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


class ImageResult(Frozen):
    variant: str
    index: int  # 0 … count - 1
    seed: int
    image: Image.Image  # RGB
    stats: ImageStats
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

    painted: how many pictures were made for it; the others were kept from before.
    """

    request: GenerateRequest
    seed: int
    images: tuple[ImageResult, ...]
    seconds: Seconds
    painted: int = 0
    notes: tuple[str, ...] = ()  # what the user should know: unknown words, an ignored negative prompt …


class Preview(Frozen):
    """What a picture is becoming, in small: one pixel for each cell of the latents."""

    variant: str
    index: int  # 0 … count - 1
    image: Image.Image  # RGB


class Progress(Frozen):
    """Sent while a request runs. step counts to steps; both are 0 outside denoising.

    previews: every few steps of denoising, x̂0 of the pictures that are being made; else none.
    """

    stage: Literal["load", "encode", "correct", "denoise", "decode"]
    step: int = 0
    steps: int = 0
    previews: tuple[Preview, ...] = ()


class Transfer(Frozen):
    """Sent while files are fetched: bytes that are here, and about how many there will be."""

    done: int
    total: int


class Stopped(StudioError):
    """The user pressed Stop. Nothing was lost; nothing is wrong."""
