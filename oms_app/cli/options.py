"""Options that several commands share, options made from the table of fields, and how composite ones are read."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oms_app.errors import StudioError
from oms_app.fields import LORA_FIELDS, RequestField
from oms_app.light import light_setting
from oms_app.prestep.corrections import CORRECTIONS, DIAL
from oms_app.schema import OMS, RAW, Lora, Variant, one_more_step, variants_of

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio

CORRECTIONS_PANEL = "Corrections"  # heading of their options in the help

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else there.")]
LoraOption = Annotated[
    list[str] | None,
    typer.Option("--lora", help="A catalogue id or a .safetensors file, or ID:SCALE; may be repeated."),
]
ModelOption = Annotated[str, typer.Option("--model", help="A catalogue id, a diffusers folder or a .safetensors file.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, float32, float16 or bfloat16.")]
MemoryOption = Annotated[
    str,
    typer.Option(
        "--memory", help="auto, full, model_offload or group_offload: where the parts of a model are kept while unused."
    ),
]


def field_parameter(field: RequestField, name: str = "", panel: str | None = None) -> inspect.Parameter:
    """A command's keyword argument for a field, with the field's option, default and help. name: if not the field's.

    Only the type is checked here. The request checks the range, and its error says what is permitted.
    """
    option = field.option_name
    if field.kind is bool and field.default:
        option = f"{option}/--no-{option.removeprefix('--')}"
    kind: Any = field.kind | None if field.optional else field.kind
    annotation = Annotated[kind, typer.Option(option, help=field_help(field), rich_help_panel=panel)]
    return _parameter(name or field.name, annotation, field.default)


def field_help(field: RequestField) -> str:
    """The field's help, unit, permitted values and what absence means, as sentences. A switch begins with its label."""
    text = field.help.removesuffix(".") + (f", in {field.unit}." if field.unit else ".")
    if field.kind is bool:
        text = f"{field.label}. {text}"
    sentences = [text, field.permitted, f"absent: {field.absent}" if field.absent else ""]
    return " ".join(f"{one[0].upper()}{one[1:].removesuffix('.')}." for one in sentences if one)


def variants_parameter() -> inspect.Parameter:
    """`--variants`, whose help names the registered corrections."""
    help_text = (
        f"One or more of {', '.join(CORRECTIONS)}, separated by commas. "
        f"Absent: {RAW.name},{OMS.name}, or {RAW.name},{DIAL} with a setting of {DIAL}."
    )
    annotation = Annotated[str | None, typer.Option("--variants", help=help_text, rich_help_panel=CORRECTIONS_PANEL)]
    return _parameter("variants", annotation, None)


def with_parameters(function: Callable[..., None], parameters: Iterable[inspect.Parameter]) -> Callable[..., None]:
    """`function` with a signature for typer: its own parameters, after those that its ** argument receives.

    A parameter of the same name as one of the function's own replaces that one.
    """
    added = {parameter.name: parameter for parameter in parameters}
    own = [
        added.pop(parameter.name, parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    combined = [*added.values(), *own]

    def command(**values: Any) -> None:
        function(**values)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(combined)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in combined}
    return command


def open_studio(device: str, **settings: Any) -> Studio:
    """A Studio for one command. settings: further arguments of Studio. Imports torch."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from oms_app.engine.studio import Studio

    for library in (diffusers_logging, transformers_logging):  # an error is one line, without progress bars around it
        library.set_verbosity_error()
        library.disable_progress_bar()
    return Studio(device=device, **settings)


def parse_variants(text: str | None, settings: Mapping[str, Any]) -> tuple[Variant, ...]:
    """`raw,oms` → variants with these names, each with those of the `settings` that it reads.

    None is the default: raw and oms, or raw and dial if a setting was given that only dial of these reads.
    Raises StudioError if no name is given, ValidationError for an unknown one and for a setting out of range, even if
    no variant reads that setting: an option with an error is never ignored.
    """
    settings = dict(settings)
    if settings.get("light") is not None:
        settings["light"] = light_setting(settings["light"])
    if text is None:
        return variants_of((RAW.correction, one_more_step(settings)), settings)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise StudioError(f"--variants is empty: choose one or more of {', '.join(CORRECTIONS)}")
    return variants_of(names, settings)


def parse_lora(text: str) -> Lora:
    """`ID` or `ID:SCALE`; an id may be a path with colons. Raises StudioError if the scale is not permitted."""
    name, colon, scale = text.rpartition(":")
    if not colon or text.lower().endswith(".safetensors") or os.path.isdir(text):
        return Lora.model_validate({"id": text})
    try:
        return Lora.model_validate({"id": name, "scale": float(scale)})
    except ValueError as error:
        remedy = LORA_FIELDS["scale"].permitted
        raise StudioError(f"--lora is {text!r}: write ID or ID:SCALE, and for SCALE {remedy}") from error


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
