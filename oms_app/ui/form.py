"""The values of the fields of Create and Compare, and the requests that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from oms_app.errors import StudioError, describe, label_of
from oms_app.fields import LORA_FIELDS, REQUEST_FIELDS, VARIANT_FIELDS, RequestField
from oms_app.schema import RAW, GenerateRequest, Lora, Variant, one_more_step, variant_of, variants_of
from oms_app.ui import markup
from oms_app.ui.light_values import LIGHT_FIELDS, LightValues, with_light
from oms_app.ui.seed_field import RANDOM, SEED, is_random

MAX_COMPARED = 12  # pictures of the Compare tab
ONE_PROMPT = "One OMS prompt"
BETWEEN_TWO = "Slide between two"
OMS_MODES = (ONE_PROMPT, BETWEEN_TWO)
COUNT = replace(REQUEST_FIELDS["count"], high=8, help="With seeds in a row. Choose among them below.")
PLAIN = "oms-no-cfg"  # the variant with OMS but without its CFG

# The field of the request that a field of Create is about.
CREATE_FIELDS: Mapping[str, RequestField] = MappingProxyType(
    {
        **{
            name: REQUEST_FIELDS[name]
            for name in ("prompt", "negative_prompt", "width", "height", "scheduler", "guidance_scale",
                         "num_inference_steps")
        },
        "seed": SEED,
        "count": COUNT,
        "oms_prompt": VARIANT_FIELDS["prompt"],
        "oms_prompt_left": VARIANT_FIELDS["prompt"],
        "oms_prompt_right": VARIANT_FIELDS["prompt_b"],
        "oms_mix": VARIANT_FIELDS["mix"],
        "oms_guidance_scale": VARIANT_FIELDS["guidance_scale"],
        "lora_scale": LORA_FIELDS["scale"],
        **LIGHT_FIELDS,
    }
)  # fmt: skip


@dataclass(frozen=True)
class CreateValues(LightValues):
    """The fields of Create, with those of its Light panel. Numbers are None if the field is empty.

    oms_mode: one of OMS_MODES. oms_plain: OMS without CFG as a third picture.
    """

    prompt: str
    negative_prompt: str
    oms_on: bool
    oms_mode: str
    oms_prompt: str
    oms_prompt_left: str
    oms_prompt_right: str
    oms_mix: float
    oms_guidance_scale: float
    oms_plain: bool
    model: str | None
    loras: list[str]
    lora_scale: float
    width: float | None
    height: float | None
    scheduler: str
    guidance_scale: float
    num_inference_steps: float | None
    seed: float | None
    count: float | None

    def to_request(self) -> GenerateRequest:
        """Raises StudioError, in one line, if a value is missing or out of range."""
        model = require_model(self.model)
        seed = seed_of(self.seed)
        try:
            return GenerateRequest.model_validate(
                {
                    "prompt": self.prompt,
                    "negative_prompt": self.negative_prompt,
                    "model": model,
                    "variants": (RAW, *self._corrected()) if self.oms_on else (RAW,),
                    "loras": tuple(Lora(id=one, scale=self.lora_scale) for one in self.loras),
                    "seed": seed,
                    "count": required("count", self.count),
                    "num_inference_steps": required("num_inference_steps", self.num_inference_steps),
                    "guidance_scale": self.guidance_scale,
                    "scheduler": self.scheduler,
                    "width": required("width", self.width),
                    "height": required("height", self.height),
                    "exact": bool(self.exact),
                }
            )
        except ValidationError as error:
            raise StudioError(describe(error, label_of)) from error

    def to_preview(self) -> GenerateRequest | None:
        """The request for the OMS preview; None if there are no words yet.

        The seed is the one in the field, or 0 for a random one. Raises StudioError as `to_request` does.
        """
        model = require_model(self.model)
        seed = seed_of(self.seed) or 0
        try:
            oms = self._oms()
            # The main prompt is read only if an OMS prompt is empty, so an OMS prompt alone is enough.
            prompt = self.prompt.strip() or oms.prompt
            if not prompt:
                return None
            return GenerateRequest.model_validate(
                {
                    "prompt": prompt,
                    "model": model,
                    "variants": (oms,),
                    "seed": seed,
                    "width": required("width", self.width),
                    "height": required("height", self.height),
                }
            )
        except ValidationError as error:
            raise StudioError(describe(error, label_of)) from error

    def with_picture(self, request: GenerateRequest, variant: Variant) -> CreateValues:
        """The settings of a finished picture: its request, with every default applied, and its variant.

        The OMS fields stay as they are if the picture is raw.
        """
        values = replace(
            self,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            model=request.model,
            loras=[lora.id for lora in request.loras],
            lora_scale=request.loras[0].scale if request.loras else self.lora_scale,
            width=request.width,
            height=request.height,
            scheduler=request.scheduler or self.scheduler,
            guidance_scale=self.guidance_scale if request.guidance_scale is None else request.guidance_scale,
            num_inference_steps=request.num_inference_steps,
            seed=request.seed,
            count=1,
            exact=request.exact,
            oms_on=variant.is_corrected,
        )
        return values.with_oms(variant) if variant.is_corrected else values

    def with_oms(self, variant: Variant) -> CreateValues:
        """With One More Step on and its light set, as a variant has them."""
        values = with_light(replace(self, oms_on=True, oms_guidance_scale=variant.guidance_scale), variant)
        if variant.prompt_b is None:
            return replace(values, oms_mode=ONE_PROMPT, oms_prompt=variant.prompt or "")
        return replace(
            values,
            oms_mode=BETWEEN_TWO,
            oms_prompt_left=variant.prompt or "",
            oms_prompt_right=variant.prompt_b,
            oms_mix=variant.mix,
        )

    def _corrected(self) -> tuple[Variant, ...]:
        """OMS with the dials, and the same without OMS CFG if it is chosen and differs."""
        oms = self._oms()
        if not self.oms_plain or oms.guidance_scale == 1.0:
            return (oms,)
        return (oms, oms.model_copy(update={"name": PLAIN, "guidance_scale": 1.0}))

    def _oms(self) -> Variant:
        settings: dict[str, Any] = {"guidance_scale": self.oms_guidance_scale, **self.light_settings()}
        if self.oms_mode == BETWEEN_TWO:
            # An empty end means the main prompt; in a request None says so for the left end only.
            settings |= {"prompt": self.oms_prompt_left.strip() or None, "mix": self.oms_mix}
            settings["prompt_b"] = self.oms_prompt_right.strip() or self.prompt
        else:
            settings["prompt"] = self.oms_prompt.strip() or None
        return variant_of(one_more_step(settings), settings)


@dataclass(frozen=True)
class CompareValues:
    """The fields of Compare. corrections, loras: ids. settings: of the corrections, by name. Size and scheduler are
    0, None or "" for each model's own."""

    prompt: str
    corrections: list[str]
    models: list[str]
    settings: Mapping[str, Any]
    seed: float | None
    count: int
    loras: list[str]
    lora_scale: float
    width: float | None
    height: float | None
    scheduler: str | None

    def to_requests(self) -> list[GenerateRequest]:
        """A request for every model, each with every correction. Raises StudioError as `CreateValues.to_request`."""
        pictures = len(self.corrections) * len(self.models) * int(self.count)
        if not 1 <= pictures <= MAX_COMPARED:
            product = f"{markup.count(len(self.corrections), 'correction')} × {markup.count(len(self.models), 'model')}"
            product += f" × {markup.count(int(self.count), 'seed')}" if self.count != 1 else ""
            raise StudioError(f"{product} = {markup.count(pictures)}: choose 1 to {MAX_COMPARED} pictures")
        seed = seed_of(self.seed)
        settings = {
            name: value.strip() or None if isinstance(value, str) else value for name, value in self.settings.items()
        }
        try:
            variants = variants_of(self.corrections, settings)
            return [
                GenerateRequest.model_validate(
                    {
                        "prompt": self.prompt,
                        "model": model,
                        "variants": variants,
                        "seed": seed,
                        "count": int(self.count),
                        "loras": tuple(Lora(id=one, scale=self.lora_scale) for one in self.loras),
                        "width": self.width or None,
                        "height": self.height or None,
                        "scheduler": self.scheduler or None,
                    }
                )
                for model in self.models
            ]
        except ValidationError as error:
            raise StudioError(describe(error, label_of)) from error


def require_model(model: str | None) -> str:
    if not model:
        raise StudioError("no model is available: download or add one in the tab Models")
    return model


def required(name: str, value: float | None) -> float:
    """The value of a field of the request. Raises StudioError if it is None, which would mean a default."""
    if value is None:
        field = REQUEST_FIELDS[name]
        raise StudioError(f"{field.label} is missing: {field.permitted}")
    return value


def seed_of(value: float | None) -> float | None:
    """The seed of a field; None for a random one. Raises StudioError if it is missing or no seed."""
    if is_random(value):
        return None
    field = REQUEST_FIELDS["seed"]
    if value is None or (isinstance(value, int | float) and value < 0):
        remedy = f"{field.permitted}, or {RANDOM} for a random one"
        raise StudioError(
            f"{field.label} is missing: {remedy}" if value is None else f"{field.label} is {value:g}: {remedy}"
        )
    return value
