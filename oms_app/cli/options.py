"""Options that several commands share, and how the composite ones are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oms_app.errors import StudioError
from oms_app.prestep.corrections import CORRECTIONS
from oms_app.schema import Lora, Variant, variant_of

if TYPE_CHECKING:
    from oms_app.engine.studio import Studio

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout and nothing else there.")]
ModelOption = Annotated[str, typer.Option("--model", help="A catalogue id, a diffusers folder or a .safetensors file.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, float32, float16 or bfloat16.")]
MemoryOption = Annotated[
    str,
    typer.Option(
        "--memory", help="auto, full, model_offload or group_offload: where the parts of a model are kept while unused."
    ),
]
VariantsOption = Annotated[
    str, typer.Option("--variants", help="One or more of " + ", ".join(CORRECTIONS) + ", separated by commas.")
]


def open_studio(device: str, **settings: Any) -> Studio:
    """A Studio for one command. settings: further arguments of Studio. Imports torch."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from oms_app.engine.studio import Studio

    for library in (diffusers_logging, transformers_logging):  # an error is one line, without progress bars around it
        library.set_verbosity_error()
        library.disable_progress_bar()
    return Studio(device=device, **settings)


def parse_variants(text: str, settings: Mapping[str, Any]) -> tuple[Variant, ...]:
    """`raw,oms` → variants with these names, each with those of the `settings` that it reads.

    Raises ValidationError for an unknown name or a setting out of range, even if no variant reads that setting: an
    option with an error is never ignored. Raises StudioError if no variant is named.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise StudioError(f"--variants is empty: name one or more of {', '.join(CORRECTIONS)}")

    for correction in ("oms", "offset_noise"):  # between them they read every setting
        variant_of(correction, settings)
    return tuple(variant_of(name, settings) for name in names)


def parse_lora(text: str) -> Lora:
    """`ID` or `ID:SCALE`. Raises StudioError if the scale is not a number from -4 to 4."""
    name, colon, scale = text.rpartition(":")
    if not colon:
        return Lora.model_validate({"id": text})
    try:
        return Lora.model_validate({"id": name, "scale": float(scale)})
    except ValueError as error:
        raise StudioError(f"--lora is {text!r}: write ID or ID:SCALE, with a scale of -4 to 4") from error
