"""Settings from a picture of this program or another: dropped anywhere on Create, it fills the fields again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.pictures import saved_picture
from oms_app.prestep.corrections import DIAL
from oms_app.schema import OMS, GenerateRequest, Variant
from oms_app.ui import markup
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues
from oms_app.ui.model_choice import available_models
from oms_app.ui.result_view import Picture, ShownResult
from oms_app.ui.seed_field import RANDOM

if TYPE_CHECKING:
    from oms_app.engine.picture_settings import PictureSettings

KNOWN = (OMS.correction, DIAL)  # corrections that Create has fields for


def build() -> gr.File:
    """The place for a picture; drop.js passes on what is dropped elsewhere on Create."""
    return gr.File(
        label="Settings from a picture: drop it anywhere on this page",
        file_types=[".png", ".jpg", ".jpeg", ".webp"],
        type="filepath",
        height=132,
        elem_id="restore",
    )


def connect(
    upload: gr.File,
    fields: FieldSet[CreateValues],
    service: StudioService,
    show: Callable[[ShownResult, Updates], Updates],
    status: Component,
    outputs: list[Component],
) -> None:
    """show: updates that show the picture, and the fields that come with it; they are among the outputs."""

    def restore(data: Mapping[Component, Any]) -> Updates:
        if not data[upload]:
            return {status: gr.skip()}
        empty = {upload: None}  # ready for the next picture
        try:
            shown, after, note = read(Path(str(data[upload])), fields.read(data), service)
        except StudioError as error:
            return {status: markup.alert(str(error)), **empty}
        changes = fields.changes(fields.read(data), after)
        return {**(show(shown, changes) if shown else {**changes, status: markup.note(note)}), **empty}

    upload.upload(restore, {upload, *fields.components}, [*outputs, upload], **QUICK)


def read(path: Path, values: CreateValues, service: StudioService) -> tuple[ShownResult | None, CreateValues, str]:
    """What a picture of ours shows, the fields that made it and its pair, and a note.

    Raises StudioError if it has no settings, or Create cannot make it on this machine.
    """
    found = service.read_picture(path)
    after = values_of(found, values, service)
    if found.restored is None:
        return None, after, found.note
    corrected = found.restored.chosen.is_corrected
    image = saved_picture(path)
    picture = Picture(path, service.measure(image), service.reached(found.restored.chosen, image))
    shown = ShownResult(
        prompt=found.restored.request.prompt,
        seed=found.restored.seed,
        raw=None if corrected else picture,
        oms=picture if corrected else None,
        details=("from a saved picture",),
        notes=("These are the picture's settings. Press Generate for the pair.",),
    )
    return shown, after, ""


def values_of(found: PictureSettings, values: CreateValues, service: StudioService) -> CreateValues:
    """The fields with the settings in a picture. Raises StudioError if Create cannot make it on this machine."""
    if found.restored is None:
        given = dict(found.fields)
        loras = given.pop("loras", ())
        given.pop("guidance_rescale", None)
        if loras:
            given["lora_scale"] = loras[0].scale
        given.setdefault("seed", RANDOM)
        return replace(values, **given, loras=[one.id for one in loras], count=1)
    request = found.restored.request.model_copy(update={"seed": found.restored.seed, "count": 1})
    _require_models(request, service)
    return values.with_picture(request, _corrected(request, found.restored.chosen))


def _corrected(request: GenerateRequest, chosen: Variant) -> Variant:
    """The variant whose settings the fields take: for a raw picture that of its pair, if it has one."""
    pair = [one for one in request.variants if one.correction in KNOWN]
    variant = chosen if chosen.is_corrected or not pair else pair[0]
    if variant.is_corrected and variant.correction not in KNOWN:
        raise StudioError(f"this picture was made with {variant.spec.title}, which Create does not have: open Compare")
    return variant


def _require_models(request: GenerateRequest, service: StudioService) -> None:
    for kind, names in (("base", [request.model]), ("lora", [lora.id for lora in request.loras])):
        here = {info.id for info in available_models(service, kind)}
        for name in names:
            if name not in here:
                raise StudioError(f"this picture needs {name!r}, which is not on this machine: see the tab Models")
