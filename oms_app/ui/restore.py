"""Settings from a saved picture: a PNG of OMS Studio that is dropped or chosen fills the fields of Create again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.prestep.corrections import DIAL
from oms_app.schema import OMS, GenerateRequest, Variant
from oms_app.ui import markup
from oms_app.ui.events import QUICK, Component, Updates
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import CreateValues
from oms_app.ui.model_choice import available_models
from oms_app.ui.result_view import Picture, ShownResult

if TYPE_CHECKING:
    from oms_app.output.png import Restored

KNOWN = (OMS.correction, DIAL)  # corrections that Create has fields for


def build() -> gr.File:
    return gr.File(
        label="Settings from a saved picture (PNG)", file_types=[".png"], type="filepath", height=132, elem_id="restore"
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
        try:
            shown, after = read(Path(str(data[upload])), fields.read(data), service)
        except StudioError as error:
            return {status: markup.alert(str(error))}
        return show(shown, fields.changes(fields.read(data), after))

    upload.upload(restore, {upload, *fields.components}, outputs, **QUICK)


def read(path: Path, values: CreateValues, service: StudioService) -> tuple[ShownResult, CreateValues]:
    """What a saved picture shows, and the fields that made it and its pair.

    Raises StudioError if it has no settings, or Create cannot make it on this machine.
    """
    restored = service.read_settings(path)
    after = values_of(restored, values, service)
    corrected = restored.chosen.is_corrected
    with Image.open(path) as file:
        image = file.convert("RGB")
    picture = Picture(path, service.measure(image))
    shown = ShownResult(
        prompt=restored.request.prompt,
        seed=restored.seed,
        raw=None if corrected else picture,
        oms=picture if corrected else None,
        details=("from a saved picture",),
        notes=("These are the picture's settings. Press Generate for the pair.",),
    )
    return shown, after


def values_of(restored: Restored, values: CreateValues, service: StudioService) -> CreateValues:
    """The fields with the settings in a picture. Raises StudioError if Create cannot make it on this machine."""
    request = restored.request.model_copy(update={"seed": restored.seed, "count": 1})
    _require_models(request, service)
    return values.with_picture(request, _corrected(request, restored.chosen))


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
