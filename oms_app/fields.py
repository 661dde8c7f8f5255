"""The fields of a request, in one table: type, range, unit, label and help.

Validation (schema.py), error messages (errors.py), the page's controls, the command line's options and the API's
documentation all read it, so each range and label is defined once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from oms_app.light import LIGHTS
from oms_app.paths import EMBEDDED
from oms_app.schedulers import SCHEDULERS

MAX_PROMPT_CHARACTERS = 2_000
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class RequestField:
    """One field of a request, of a variant or of a LoRA.

    label, help: what the page and the command line's help show. low, high: the permitted range, both inclusive.
    slider: the narrower range that the page's slider offers, if any. step: of the page's control.
    multiple_of: permitted values are multiples of it. optional: None is allowed. absent: what None means.
    option: the command line's name, if it is not the field's. metadata: the field's name in a picture's text chunk; ""
    leaves it out. chooses_model: the engine reads it to choose a model; it is not a setting of the correction itself.
    pattern, form: a regular expression that a text must match, and what it asks for as an instruction.
    part_of: the setting without which this one has no effect, so that it must keep its default.
    """

    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    label: str
    help: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    slider: tuple[float, float] | None = None
    step: float | None = None
    multiple_of: int | None = None
    choices: tuple[str, ...] = ()
    min_length: int | None = None
    max_length: int | None = None
    unit: str = ""
    optional: bool = False
    absent: str = ""
    option: str = ""
    metadata: str = ""
    chooses_model: bool = False
    pattern: str | None = None
    form: str = ""
    part_of: str = ""

    @property
    def argument_name(self) -> str:
        """Its name among the arguments of the HTTP API, such as `oms_prompt`."""
        return self.option_name.removeprefix("--").replace("-", "_") if self.option.startswith("--oms-") else self.name

    @property
    def option_name(self) -> str:
        """Such as `--oms-prompt`."""
        return self.option or "--" + self.name.replace("_", "-")

    @property
    def annotation(self) -> Any:
        """The type as pydantic validates it, with its bounds."""
        if self.choices:
            checked: Any = Literal[self.choices]
        else:
            bounds: dict[str, Any] = {"ge": self.low, "le": self.high, "multiple_of": self.multiple_of}
            if self.kind is str:
                bounds = {"min_length": self.min_length, "max_length": self.max_length, "pattern": self.pattern}
            elif self.kind is float:
                bounds["allow_inf_nan"] = False
            given = {name: value for name, value in bounds.items() if value is not None}
            checked = Annotated[self.kind, Field(**given)] if given else self.kind
        return checked | None if self.optional else checked

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """As the second argument of `Annotated`, the field brings its own validation."""
        return handler.generate_schema(self.annotation)

    @property
    def required(self) -> RequestField:
        """The same field where None is not permitted."""
        return replace(self, optional=False)

    @property
    def on_page(self) -> RequestField:
        """The same field with the page's narrower range, which saved looks keep to."""
        low, high = self.slider or (self.low, self.high)
        return replace(self, low=low, high=high)

    @property
    def permitted(self) -> str:
        """What a value may be, as an instruction: "take 1 to 200". Empty if anything of the type is permitted."""
        if self.form:
            return self.form
        if self.choices:
            return f"choose one of {', '.join(self.choices)}"
        if self.low is None or self.high is None:
            return ""
        steps = f" in steps of {self.multiple_of}" if self.multiple_of else ""
        return f"take {plain_number(self.low)} to {plain_number(self.high)}{steps}"


class FieldError(ValueError):
    """A value that a field does not permit, for a validator to raise; errors.py words it for each reader.

    remedy: what to do, where "{other}" stands for the name of the field `other`.
    """

    def __init__(self, field: RequestField, value: Any, remedy: str, other: RequestField | None = None) -> None:
        super().__init__(f"{field.name} is {str(value)[:60]}: {remedy.replace('{other}', other.name if other else '')}")
        self.field, self.value, self.remedy, self.other = field, value, remedy, other


def plain_number(number: float) -> str:
    """2.0 → "2", 0.5 → "0.5"."""
    return str(int(number)) if number == int(number) else str(number)


def _table(*fields: RequestField) -> Mapping[str, RequestField]:
    return MappingProxyType({field.name: field for field in fields})


REQUEST_FIELDS = _table(
    RequestField("prompt", str, "Prompt", "What the picture shows.", max_length=MAX_PROMPT_CHARACTERS),
    RequestField(
        "negative_prompt",
        str,
        "Negative prompt",
        "What the picture should not show; needs a CFG above 1.",
        default="",
        max_length=MAX_PROMPT_CHARACTERS,
    ),
    RequestField(
        "model",
        str,
        "Model",
        "A catalogue id, a diffusers folder or a .safetensors file.",
        default=EMBEDDED,
        min_length=1,
        max_length=1_000,
    ),
    RequestField(
        "seed",
        int,
        "Seed",
        "The same seed gives the same noise.",
        low=0,
        high=MAX_SEED,
        optional=True,
        absent="random, and reported",
    ),
    RequestField(
        "count", int, "Pictures", "Pictures of each variant; picture i has seed + i.", default=1, low=1, high=16, step=1
    ),
    RequestField(
        "num_inference_steps",
        int,
        "Steps",
        "More steps are finer and slower.",
        low=1,
        high=200,
        optional=True,
        absent="the model's default",
        option="--steps",
    ),
    RequestField(
        "guidance_scale",
        float,
        "CFG (guidance scale)",
        "How closely the whole picture follows the prompt; 5 to 8 is usual.",
        low=0.0,
        high=30.0,
        step=0.5,
        optional=True,
        absent="the model's default",
    ),
    RequestField(
        "guidance_rescale",
        float,
        "Guidance rescale",
        "For zero-SNR models, 0.7 is usual; 0 is off.",
        low=0.0,
        high=1.0,
        step=0.05,
        optional=True,
        absent="the model's default",
    ),
    RequestField(
        "scheduler",
        str,
        "Scheduler",
        "The sampling method.",
        choices=SCHEDULERS,
        optional=True,
        absent="the model's default",
    ),
    RequestField(
        "width",
        int,
        "Width",
        "Width of the picture.",
        low=64,
        high=2048,
        multiple_of=8,
        step=8,
        unit="pixels",
        optional=True,
        absent="the model's default",
    ),
    RequestField(
        "height",
        int,
        "Height",
        "Height of the picture.",
        low=64,
        high=2048,
        multiple_of=8,
        step=8,
        unit="pixels",
        optional=True,
        absent="the model's default",
    ),
    RequestField(
        "exact",
        bool,
        "Exact",
        "The picture with dials is measured and made again, at most twice, until brightness and tint are as set.",
        default=False,
    ),
)

CORRECTION_FIELD = RequestField(
    "correction", str, "Correction", "What happens to the starting noise.", default="raw", option="--variants"
)

# Settings of a variant: each correction names those that it reads (prestep/corrections.py).
VARIANT_FIELDS = _table(
    RequestField(
        "prompt",
        str,
        "OMS prompt",
        'Words for light and colour, such as "pitch black".',
        max_length=MAX_PROMPT_CHARACTERS,
        optional=True,
        absent='the main prompt; "" is the unconditional prompt',
        option="--oms-prompt",
        metadata="OMS prompt",
    ),
    RequestField(
        "prompt_b",
        str,
        "Second OMS prompt",
        "The other end of the OMS prompt slider.",
        max_length=MAX_PROMPT_CHARACTERS,
        optional=True,
        option="--oms-prompt-b",
        metadata="OMS prompt B",
    ),
    RequestField(
        "mix",
        float,
        "OMS prompt slider",
        "Share of the second OMS prompt: 0 is the first prompt, 1 the second.",
        default=0.0,
        low=-1.0,
        high=2.0,
        slider=(0.0, 1.0),
        step=0.05,
        option="--oms-mix",
        metadata="OMS mix",
    ),
    RequestField(
        "guidance_scale",
        float,
        "OMS CFG",
        "Strength of the OMS prompt: 1 is natural, higher is stronger, 0 ignores the words.",
        default=1.0,
        low=0.0,
        high=30.0,
        slider=(0.0, 4.0),
        step=0.1,
        option="--oms-guidance-scale",
        metadata="OMS CFG",
    ),
    RequestField(
        "module",
        str,
        "OMS module",
        "A catalogue id or a folder.",
        optional=True,
        absent="the module of the base model's latent domain",
        option="--oms-module",
        chooses_model=True,
    ),
    RequestField(
        "force",
        bool,
        "Use a module of another latent domain",
        "Colours will be wrong: black may turn red.",
        default=False,
        chooses_model=True,
    ),
    RequestField(
        "offset_strength",
        float,
        "Offset strength",
        "Strength of the offset noise.",
        default=0.1,
        low=0.0,
        high=2.0,
        slider=(0.0, 1.0),
        step=0.05,
        metadata="Offset strength",
    ),
    RequestField(
        "offset_per",
        str,
        "Offset per",
        "One random offset for each latent channel, or one for the whole picture.",
        default="channel",
        choices=("channel", "picture"),
        metadata="Offset per",
    ),
    RequestField(
        "luminance",
        float,
        "Mean brightness (average of R, G, B)",
        "Mean of all R, G and B values of the picture: 0 is black, 100 white; 2 is the least aimed at, 98 the most.",
        low=0.0,
        high=100.0,
        step=1.0,
        unit="percent",
        optional=True,
        absent="as the prompt says",
        metadata="Mean brightness",
    ),
    RequestField(
        "tint",
        str,
        "Tint",
        "Mean colour of the picture; with a mean brightness, its colour at that brightness.",
        optional=True,
        pattern=r"^#[0-9a-fA-F]{6}$",
        form="write #rrggbb, such as #3060ff",
        absent="as the prompt says",
    ),
    RequestField(
        "tint_strength",
        float,
        "Tint strength",
        "How far the mean colour is moved to the tint: 0 leaves it, 1 sets it.",
        default=1.0,
        low=0.0,
        high=1.0,
        step=0.05,
        part_of="tint",
    ),
    RequestField(
        "warmth",
        float,
        "Warmth",
        "Colour of the light: -1 is cold, as of 20000 K, 1 is warm, as of 2800 K, 0 is as the prompt says.",
        default=0.0,
        low=-1.0,
        high=1.0,
        step=0.05,
    ),
    RequestField(
        "light",
        str,
        "Light",
        "Where the picture is bright: a side, or the light and colour of a picture.",
        max_length=1_000,
        optional=True,
        form=f"choose one of {', '.join(LIGHTS)}, or a picture file",
        absent="as the prompt says",
    ),
    RequestField(
        "light_strength",
        float,
        "Light strength",
        "Of a direction, 0.5 is 30 percent of full scale from the middle to the edge; of a picture, its share.",
        default=0.5,
        low=0.0,
        high=1.0,
        step=0.05,
        part_of="light",
    ),
    RequestField(
        "light_angle",
        float,
        "Light angle",
        "Turns the light of a side clockwise, in degrees: left with 45 is light from the upper left.",
        default=0.0,
        low=-180.0,
        high=180.0,
        slider=(-90.0, 90.0),
        step=5.0,
        part_of="light",
    ),
    RequestField(
        "spread",
        float,
        "Spread",
        "How much the light varies from seed to seed: 0 is the prompt's mean, 1 the variety of the training data. "
        "Needs an OMS module with a spread head.",
        default=0.0,
        low=0.0,
        high=2.0,
        slider=(0.0, 1.5),
        step=0.05,
    ),
)

LORA_FIELDS = _table(
    RequestField(
        "id",
        str,
        "LoRA",
        "A catalogue id, a .safetensors file, or the folder of a PEFT adapter.",
        min_length=1,
        max_length=1_000,
        option="--lora",
    ),
    RequestField(
        "scale",
        float,
        "LoRA strength",
        "1 is as trained, 0 is off; below 0, the opposite.",
        default=1.0,
        low=-4.0,
        high=4.0,
        slider=(-2.0, 2.0),
        step=0.05,
        option="--lora",
    ),
)
