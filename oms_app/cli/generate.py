"""`generate`: pictures of every variant from one noise. Its options come from the table of fields and the registry."""

from __future__ import annotations

import inspect
import os
from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any

import typer

from oms_app.cli.console import output_on_stderr, print_result, table
from oms_app.cli.options import (
    CORRECTIONS_PANEL,
    DeviceOption,
    JsonOption,
    LoraOption,
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
from oms_app.cli.startup import require_writable
from oms_app.engine.picture_settings import read_picture
from oms_app.errors import StudioError, unread_notes
from oms_app.fields import REQUEST_FIELDS
from oms_app.models.catalog import open_catalog
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
        default=None,  # it may come from a picture
        annotation=Annotated[str | None, typer.Argument(help=field_help(prompt), show_default=False)],
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
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A saved picture whose settings are used, also of A1111, ComfyUI, InvokeAI or Fooocus. "
            "What else is given replaces them.",
        ),
    ] = None,
    lora: LoraOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    memory: MemoryOption = "auto",
    out: Annotated[Path | None, typer.Option(help="Output folder. Default: pictures/ in the user's folder.")] = None,
    as_json: JsonOption = False,
    **values: Any,
) -> None:
    """Pictures of every variant from one noise."""
    settings = {name: values[SETTING + name] for name in variant_settings()}
    asked = {name: values[name] for name in REQUEST_FIELDS} | {"loras": [parse_lora(text) for text in lora or ()]}
    said = ""
    if source is None:
        if asked["prompt"] is None:
            raise StudioError("the prompt is missing: describe a picture, or name one with --from")
        asked["variants"] = parse_variants(values["variants"], settings)
    else:
        origins = {name: context.get_parameter_source(name) for name in (*values, "lora")}
        given = {name for name, origin in origins.items() if origin is not None and origin.name != "DEFAULT"}
        asked, settings, said = _from_picture(source, asked, values["variants"], settings, given)
    request = GenerateRequest.model_validate(asked)
    folder = out or user_folder() / "pictures"
    if os.path.isfile(folder):  # unlike Path, it answers for names that are too long
        raise StudioError(f"--out {folder} is a file: name a folder")
    require_writable(folder)  # now, not after minutes of work
    with output_on_stderr() as progress:
        studio = open_studio(device, precision=precision, memory=memory)
        from oms_app.output import png

        result = png.save(studio.generate(request, on_progress=progress), folder)
    notes = [*([said] if said else []), *result.notes, *unread_notes(unread_settings(request.variants, settings))]
    _print(result.model_copy(update={"notes": tuple(notes)}), as_json)


def _from_picture(
    source: Path, asked: dict[str, Any], variants: str | None, settings: dict[str, Any], given: Set[str]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The fields of the request, the settings of its variants and a note: a picture's, where nothing else is given.

    given: the arguments of `generate` that were given. Raises StudioError if the picture has no settings.
    """
    found = read_picture(source, open_catalog().infos())
    if found.restored is not None:
        request, chosen = found.restored.request, found.restored.chosen
        theirs = dict(request) | {"seed": found.restored.seed, "count": 1}
        corrected = [one for one in (chosen, *request.variants) if one.is_corrected]
        light = corrected[0].model_dump(exclude={"name", "correction"}) if corrected else {}
    else:
        theirs, light = dict(found.fields), {}
        if "prompt" not in theirs and "prompt" not in given:
            raise StudioError(f"{source.name} has no prompt that can be read: give one")
    kept = given | ({"loras"} if "lora" in given else set())
    merged = asked | {name: value for name, value in theirs.items() if name not in kept}
    new = {name for name in settings if SETTING + name in given}
    if "variants" in theirs and not new and "variants" not in given:
        return merged, light, found.note
    settings = settings | {name: value for name, value in light.items() if name in settings and name not in new}
    return merged | {"variants": parse_variants(variants, settings)}, settings, found.note


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
