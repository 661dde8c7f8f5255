"""What stands in the page's fields, as a request; and what is wrong with it, in words for the person at the screen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from oms_app.errors import StudioError
from oms_app.fields import MAX_PROMPT_CHARACTERS, MAX_SEED
from oms_app.schema import RAW, GenerateRequest, Lora, Variant, variant_of

MAX_COMPARED = 6  # pictures of the Compare tab
# The corrections in an artist's words.
METHODS: dict[str, str] = {
    "raw": "Raw",
    "oms": "One More Step",
    "oms-sde": "OMS, fresh noise",
    "oms-reference": "OMS, published code",
    "singdiffusion": "SingDiffusion",
    "offset_noise": "Offset noise",
    "signal_leak": "Signal leak",
}
ONE_PROMPT = "One OMS prompt"
BETWEEN_TWO = "Slide between two"
PLAIN = "oms-no-cfg"  # the variant with OMS but without its CFG

# What the fields are called on the page, by their name in the request.
LABELS = {
    "prompt": "The prompt",
    "negative_prompt": "The negative prompt",
    "prompt_b": "The OMS prompt at the right end",
    "mix": "The OMS slider",
    "model": "The model",
    "seed": "The seed",
    "count": "The number of pictures",
    "num_inference_steps": "The number of steps",
    "guidance_scale": "The prompt strength (CFG)",
    "scheduler": "The scheduler",
    "width": "The width",
    "height": "The height",
    "scale": "The LoRA strength",
}
RANGES = {
    "seed": f"0 to {MAX_SEED}",
    "num_inference_steps": "1 to 200",
    "guidance_scale": "0 to 30",
    "mix": "-1 to 2",
    "scale": "-4 to 4",
    "width": "64 to 2048, in steps of 8",
    "height": "64 to 2048, in steps of 8",
}


def to_request(values: Mapping[str, Any]) -> GenerateRequest:
    """The request that the fields ask for. values: see `create_tab.FIELDS`.

    Raises StudioError with one plain line where a value is missing or out of range.
    """
    _require_model(values)
    seed = None if values["random_seed"] else whole("seed", values["seed"], "type one, or tick Random")
    try:
        variants = (RAW, *_corrected(values)) if values["oms_on"] else (RAW,)
        return GenerateRequest(
            prompt=values["prompt"] or "",
            negative_prompt=values["negative_prompt"] or "",
            model=values["model"],
            variants=variants,
            loras=tuple(Lora(id=one, scale=values["lora_scale"]) for one in values.get("loras") or ()),
            seed=seed,
            num_inference_steps=whole("num_inference_steps", values["num_inference_steps"]),
            guidance_scale=values["guidance_scale"],
            scheduler=values["scheduler"],
            width=whole("width", values["width"]),
            height=whole("height", values["height"]),
        )
    except ValidationError as error:
        raise StudioError(explain(error)) from error


def to_preview(values: Mapping[str, Any]) -> GenerateRequest | None:
    """The request for the light that OMS will bring; None where no words are there to bring any.

    values: those of `light.FIELDS`. The seed is the one in the field; while Random is on it stands for those to come,
    and 0 for one that cannot be. Raises StudioError as `to_request` does.
    """
    _require_model(values)
    try:
        seed = whole("seed", values["seed"], "type one, or tick Random")
    except StudioError:
        if not values["random_seed"]:
            raise
        seed = 0
    if values["random_seed"] and not 0 <= seed <= MAX_SEED:
        seed = 0
    try:
        oms = _oms(values)
        # The main prompt is read only where an OMS prompt is empty; words for the light alone are enough.
        prompt = (values["prompt"] or "").strip() or oms.prompt
        if not prompt:
            return None
        return GenerateRequest(
            prompt=prompt,
            model=values["model"],
            variants=(oms,),
            seed=seed,
            width=whole("width", values["width"]),
            height=whole("height", values["height"]),
        )
    except ValidationError as error:
        raise StudioError(explain(error)) from error


def to_comparison(values: Mapping[str, Any]) -> list[GenerateRequest]:
    """A request for every model chosen, each with every method chosen. values: see `compare_tab.FIELDS`.

    Raises StudioError with one plain line where a value is missing or out of range.
    """
    methods, models = values["methods"], values["models"]
    count = len(methods) * len(models)
    if not 1 <= count <= MAX_COMPARED:
        asked = f"{len(methods)} remedies by {len(models)} models are {count} pictures"
        raise StudioError(f"{asked}: choose so that there are 1 to {MAX_COMPARED}.")
    seed = None if values["random_seed"] else whole("seed", values["seed"], "type one, or tick Random")
    settings = {
        "prompt": (values["oms_prompt"] or "").strip() or None,
        "guidance_scale": values["oms_guidance_scale"],
        "offset_strength": values["offset_strength"],
        "module": values["oms_module"] or None,
        "force": values["force"],
    }

    try:
        variants = tuple(variant_of(method, settings) for method in methods)
        return [
            GenerateRequest(prompt=values["prompt"] or "", model=model, variants=variants, seed=seed)
            for model in models
        ]
    except ValidationError as error:
        raise StudioError(explain(error)) from error


def to_fields(request: GenerateRequest, variant: Variant) -> dict[str, Any]:
    """What stands in the fields of Create for one picture: the way back from `to_request`. Every default is filled in.

    Where the picture is raw, the fields of One More Step are left out: they stay as they are.
    """
    names = ("prompt", "negative_prompt", "model", "width", "height", "scheduler", "guidance_scale",
             "num_inference_steps", "seed")  # fmt: skip
    fields = {name: getattr(request, name) for name in names} | {"random_seed": False, "oms_on": variant.is_corrected}
    if not variant.is_corrected:
        return fields
    fields["oms_guidance_scale"] = variant.guidance_scale
    if variant.prompt_b is None:
        return fields | {"oms_mode": ONE_PROMPT, "oms_prompt": variant.prompt or ""}
    ends = {"oms_prompt_left": variant.prompt or "", "oms_prompt_right": variant.prompt_b, "oms_mix": variant.mix}
    return fields | {"oms_mode": BETWEEN_TWO} | ends


def _corrected(values: Mapping[str, Any]) -> tuple[Variant, ...]:
    """OMS, and beside it OMS without CFG where that is asked for and is another picture."""
    oms = _oms(values)
    if not values.get("oms_plain") or oms.guidance_scale == 1.0:
        return (oms,)
    return (oms, oms.model_copy(update={"name": PLAIN, "guidance_scale": 1.0}))


def _require_model(values: Mapping[str, Any]) -> None:
    if not values["model"]:
        raise StudioError("No model is here yet: download one in the tab Models, or add one of your own there.")


def _oms(values: Mapping[str, Any]) -> Variant:
    strength = values["oms_guidance_scale"]
    if values["oms_mode"] == BETWEEN_TWO:
        # An empty end means the main prompt, as an empty OMS prompt does; the engine knows that for the left end only.
        right = values["oms_prompt_right"].strip() or values["prompt"]
        return Variant(
            name="oms",
            correction="oms",
            prompt=values["oms_prompt_left"].strip() or None,
            prompt_b=right,
            mix=values["oms_mix"],
            guidance_scale=strength,
        )
    prompt = (values["oms_prompt"] or "").strip() or None
    return Variant(name="oms", correction="oms", prompt=prompt, guidance_scale=strength)


def whole(name: str, value: Any, remedy: str = "type a whole number") -> int:
    allowed = f"allowed is {RANGES[name]}"
    if value is None:
        raise StudioError(f"{LABELS[name]} is missing ({allowed}): {remedy}.")
    if not math.isfinite(value) or value != int(value):
        raise StudioError(f"{LABELS[name]} is {value}, which is no whole number ({allowed}): type another one.")
    return int(value)


def explain(error: ValidationError) -> str:
    """The first complaint of pydantic as one plain line: the value, the permitted range, the remedy."""
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else ""
    inside_oms = error.title == "Variant"
    label = LABELS.get(name, name.replace("_", " ").capitalize() or "The request")
    if inside_oms and name in ("prompt", "guidance_scale"):
        label = "The OMS prompt" if name == "prompt" else "The OMS strength (CFG)"
    value = first["input"]
    if first["type"] == "string_too_long":
        return f"{label} has {len(value):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are allowed: shorten it."
    if first["type"] == "value_error":  # our own validators, which already speak plainly
        message = first["msg"].removeprefix("Value error, ")
        return message[:1].upper() + message[1:] + "."
    if name in RANGES:
        return f"{label} is {value}; allowed is {RANGES[name]}: choose a value in that range."
    return f"{label}: {first['msg'][:1].lower()}{first['msg'][1:]} (it is {str(value)[:60]!r}): please change it."
