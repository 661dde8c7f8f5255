"""pydantic's complaints about a request as one line: the option, its value, the permitted range."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from oms_app.schema import GenerateRequest, Variant

OPTIONS = {
    "num_inference_steps": "--steps",
    "guidance_scale": "--guidance-scale",
    "negative_prompt": "--negative-prompt",
    "variants": "--variants",
    "loras": "--lora",
}
VARIANT_OPTIONS = {
    "prompt": "--oms-prompt",
    "prompt_b": "--oms-prompt-b",
    "mix": "--oms-mix",
    "guidance_scale": "--oms-guidance-scale",
    "module": "--oms-module",
    "correction": "--variants",
    "name": "--variants",
}


def one_line(error: ValidationError) -> str:
    """The first complaint, as the command line says it: `--steps is 0: take 1 to 200`."""
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else ""
    of_variant = error.title == "Variant"
    if first["type"] == "value_error":  # our own validators, which speak plainly already
        return first["msg"].removeprefix("Value error, ").replace("prompt_b", "--oms-prompt-b")
    options = VARIANT_OPTIONS if of_variant else OPTIONS
    option = "the prompt" if name == "prompt" and not of_variant else options.get(name, "--" + name.replace("_", "-"))
    if first["type"] == "string_too_long":
        limit = first["ctx"]["max_length"]
        return f"{option} has {len(first['input']):,} characters: take at most {limit:,}"
    remedy = permitted(Variant if of_variant else GenerateRequest, name) or first["msg"]
    return f"{option} is {str(first['input'])[:60]}: {remedy}"


def permitted(model: type[GenerateRequest] | type[Variant], name: str) -> str:
    """What a field may be, from its own declaration, so that the message cannot drift from the check."""
    field = model.model_json_schema()["properties"].get(name, {})
    for schema in [field, *field.get("anyOf", [])]:
        if "enum" in schema:
            return "choose one of " + ", ".join(map(str, schema["enum"]))
        if "minimum" in schema:
            step = schema.get("multipleOf")
            kind = f" in steps of {step}" if step else ""
            return f"take {_plain(schema['minimum'])} to {_plain(schema['maximum'])}{kind}"
    return ""


def _plain(number: Any) -> str:
    return str(int(number)) if number == int(number) else str(number)
