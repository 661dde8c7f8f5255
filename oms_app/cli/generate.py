"""`generate`: pictures of every variant from one noise. Its options come from the table of fields and the registry."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from oms_app.cli.console import output_on_stderr, print_result, table
from oms_app.cli.options import (
    CORRECTIONS_PANEL,
    DeviceOption,
    JsonOption,
    MemoryOption,
    PrecisionOption,
    field_help,
    field_parameter,
    open_studio,
    parse_lora,
    parse_variants,
    variants_parameter,
    with_parameters,
)
from oms_app.errors import StudioError, unread_notes
from oms_app.fields import REQUEST_FIELDS
from oms_app.paths import user_folder
from oms_app.prestep.corrections import variant_settings
from oms_app.schema import GenerateRequest, GenerateResult, unread_settings

SETTING = "setting_"  # prefix of the arguments for settings of variants, whose names may be those of request fields


def build_app() -> typer.Typer:
    """The command, with an option for every setting of the corrections that are registered now."""
    app = typer.Typer()
    app.command()(with_parameters(generate, _parameters()))
    return app


def _parameters() -> list[inspect.Parameter]:
    prompt = REQUEST_FIELDS["prompt"]
    argument = inspect.Parameter(
        prompt.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[str, typer.Argument(help=field_help(prompt), show_default=False)],
    )
    return [
        argument,
        *(field_parameter(field) for field in REQUEST_FIELDS.values() if field is not prompt),
        variants_parameter(),
        *(
            field_parameter(field, SETTING + name, panel=CORRECTIONS_PANEL)
            for name, field in variant_settings().items()
        ),
    ]


def generate(
    lora: Annotated[
        list[str] | None, typer.Option(help="A catalogue id or a .safetensors file, or ID:SCALE; may be repeated.")
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    memory: MemoryOption = "auto",
    out: Annotated[Path | None, typer.Option(help="Output folder. Default: pictures/ in the user's folder.")] = None,
    as_json: JsonOption = False,
    **values: Any,
) -> None:
    """Pictures of every variant from one noise."""
    settings = {name: values[SETTING + name] for name in variant_settings()}
    request = GenerateRequest.model_validate(
        {
            **{name: values[name] for name in REQUEST_FIELDS},
            "variants": parse_variants(values["variants"], settings),
            "loras": [parse_lora(text) for text in lora or ()],
        }
    )
    folder = out or user_folder() / "pictures"
    if folder.exists() and not folder.is_dir():
        raise StudioError(f"--out {folder} is a file: name a folder")
    with output_on_stderr() as progress:
        studio = open_studio(device, precision=precision, memory=memory)
        from oms_app.output import png

        result = png.save(studio.generate(request, on_progress=progress), folder)
    notes = [*result.notes, *unread_notes(unread_settings(request.variants, settings))]
    _print(result.model_copy(update={"notes": tuple(notes)}), as_json)


def _print(result: GenerateResult, as_json: bool) -> None:
    images: list[dict[str, Any]] = [
        {
            "variant": image.variant,
            "index": image.index,
            "seed": image.seed,
            "path": str(image.path),
            "mean": image.stats.mean,
            "lightness": image.stats.lightness,
            **({"reached": [one.model_dump() for one in image.reached]} if image.reached else {}),
        }
        for image in result.images
    ]
    printed = {
        "seed": result.seed,
        "model": result.request.model,
        "images": images,
        "seconds": result.seconds.model_dump(),
        "notes": list(result.notes),
    }
    rows = [(i["variant"], i["seed"], f"{i['mean']:.1f}", f"{i['lightness']:.1f}", i["path"]) for i in images]
    shown = table(("variant", "seed", "mean RGB", "L*", "file"), rows)
    asked = [f"seed {image.seed}: {one.text}" for image in result.images for one in image.reached]
    print_result(printed, as_json, shown, *asked, *result.notes, f"{result.seconds.total:.1f} s")
