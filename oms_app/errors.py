"""Errors that a user can correct, and the only code that phrases validation errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from oms_app.fields import LORA_FIELDS, REQUEST_FIELDS, VARIANT_FIELDS, FieldError, RequestField


class StudioError(ValueError):
    """Something the user can correct. The message is one line: the value, the permitted range, the remedy."""


class Stopped(StudioError):
    """The user pressed Stop. Nothing was lost; nothing is wrong."""


def one_line(error: BaseException) -> str:
    """A library's message on one line of at most 200 characters, to be quoted in a StudioError."""
    return " ".join(str(error).split())[:200]


def without_paths(text: str, folders: Iterable[Path]) -> str:
    """A message without these folders of the server, for visitors who are not its owner: `pictures/x.png` stays."""
    for folder in sorted({str(folder) for folder in folders}, key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(f"{folder}{os.sep}", "").replace(folder, os.path.basename(folder))
    return text


def option_of(field: RequestField) -> str:
    """How the command line names a field."""
    return "the prompt" if field is REQUEST_FIELDS["prompt"] else field.option_name


def label_of(field: RequestField) -> str:
    """How the page names a field."""
    return field.label


def argument_of(field: RequestField) -> str:
    """How the HTTP API names a field."""
    return field.argument_name


def describe(error: ValidationError, name_of: Callable[[RequestField], str] = option_of) -> str:
    """The first error that pydantic found, on one line: `--steps is 0: take 1 to 200`.

    name_of: how the reader knows a field: `option_of`, `label_of` or `argument_of`.
    """
    first = error.errors()[0]
    fault = first.get("ctx", {}).get("error")
    if isinstance(fault, FieldError):
        other = name_of(fault.other) if fault.other else ""
        return f"{name_of(fault.field)} is {_short(fault.value)}: {fault.remedy.replace('{other}', other)}"
    if first["type"] == "value_error":  # one of our validators, whose message is complete
        return str(first["msg"]).removeprefix("Value error, ")
    path = tuple(str(part) for part in first["loc"])
    field = _table(error.title, path).get(path[-1] if path else "")
    name = name_of(field) if field else ".".join(map(_short, path)) or "the request"
    value = first["input"]
    if first["type"] == "missing":
        return f"{name} is missing: give one"
    if first["type"] == "string_too_long":
        return f"{name} has {len(value):,} characters: take at most {first['ctx']['max_length']:,}"
    remedy = (field.permitted if field else "") or first["msg"]
    return f"{name} is {_short(value)}: {remedy}"


def unread_notes(fields: Iterable[RequestField], name_of: Callable[[RequestField], str] = option_of) -> list[str]:
    """A note for each setting that was given although no variant reads it."""
    return [f"{name_of(field)} has no effect: none of the chosen corrections reads it" for field in fields]


def _short(value: object) -> str:
    """A value of anyone's in a message: on one line, and short."""
    return " ".join(str(value)[:200].split())[:60]


def _table(model: str, path: tuple[str, ...]) -> Mapping[str, RequestField]:
    """The fields of the model that pydantic validated, or of the one inside it that the path leads to."""
    if model == "Variant" or "variants" in path[:-1]:
        return VARIANT_FIELDS
    if model == "Lora" or "loras" in path[:-1]:
        return LORA_FIELDS
    return REQUEST_FIELDS


def describe_entry(error: ValidationError) -> str:
    """The first error in a JSON file or entry that is not a request: `title: field required`."""
    first: Any = error.errors()[0]
    where = ".".join(map(_short, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return message if first["type"] == "value_error" or not where else f"{where}: {message}"
