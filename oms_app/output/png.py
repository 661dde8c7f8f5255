"""Pictures as PNG files with the settings that made them, and the settings read back from a PNG.

Two text chunks: `oms_studio` is versioned JSON that restores the request, `parameters` is the text that A1111 and
similar programs read. What is read back is validated like any user's input: a picture may come from anyone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import Field, ValidationError, model_validator

from oms_app.errors import StudioError, describe
from oms_app.output.new_files import new_file, timestamp, writable
from oms_app.output.sheets import framed, labelled, notice
from oms_app.output.text_chunks import read_texts
from oms_app.schedulers import SCHEDULER_SPECS
from oms_app.schema import PEFT_WEIGHTS, Frozen, GenerateRequest, GenerateResult, ImageResult, Variant

VERSION = 1
SHEET_CELL = 512  # pixels: the largest side of a picture on a sheet
Cell = tuple[GenerateRequest, ImageResult] | str
MAX_CHUNK = 200_000  # characters; the largest valid request has fewer


class Restored(Frozen):
    """What the settings in a picture contain: the request, and which of its pictures this one is."""

    request: GenerateRequest
    variant: str
    index: Annotated[int, Field(ge=0)]

    @property
    def chosen(self) -> Variant:
        return next(one for one in self.request.variants if one.name == self.variant)

    @property
    def seed(self) -> int:
        """Of this picture."""
        return (self.request.seed or 0) + self.index

    @model_validator(mode="after")
    def _it_is_one_of_the_request(self) -> Restored:
        if self.variant not in [one.name for one in self.request.variants]:
            raise ValueError(f"the variant {self.variant[:60]!r} is none of the request's")
        if self.index >= self.request.count:
            raise ValueError(f"the index is {self.index}, of {self.request.count} pictures")
        return self


def save(result: GenerateResult, folder: Path) -> GenerateResult:
    """Write every picture as PNG into the folder, which is created if needed. Returns the result with the paths.

    A file is written under a temporary name and then renamed; an existing file is never overwritten. Raises StudioError
    if the folder cannot be written to.
    """
    stamp = timestamp()
    with writable(folder):
        images = tuple(
            image.model_copy(update={"path": _write_picture(result.request, image, folder, stamp)})
            for image in result.images
        )
    return result.model_copy(update={"images": images})


def save_sheet(
    cells: Sequence[Sequence[Cell]], row_labels: Sequence[str], column_labels: Sequence[str], folder: Path
) -> Path:
    """Write a labelled grid as one PNG into the folder, which is created if needed. Returns its path.

    A cell is a finished picture with its request, or a text that stands for a picture that could not be made. Pictures
    are shrunk to SHEET_CELL if they are larger. The text chunk `oms_studio_sheet` is versioned JSON with the labels
    and, for every cell, the settings as in a single picture. Raises StudioError if the folder cannot be written to.
    """
    pictures = [cell[1].image for row in cells for cell in row if not isinstance(cell, str)]
    width = min(SHEET_CELL, max((picture.width for picture in pictures), default=SHEET_CELL // 2))
    height = min(SHEET_CELL, max((picture.height for picture in pictures), default=SHEET_CELL // 2))
    tiles = [
        [
            notice(cell, (width, height)) if isinstance(cell, str) else framed(cell[1].image, (width, height))
            for cell in row
        ]
        for row in cells
    ]
    settings = [
        [{"error": cell} if isinstance(cell, str) else json.loads(settings_json(*cell)) for cell in row]
        for row in cells
    ]
    chunk = {"version": VERSION, "rows": list(row_labels), "columns": list(column_labels), "cells": settings}
    info = PngInfo()
    info.add_itxt("oms_studio_sheet", json.dumps(chunk), zip=True)
    sheet = labelled(tiles, row_labels, column_labels)
    with writable(folder):
        return _write_new(sheet, info, folder, f"{timestamp()}-sheet")


def read(path: Path, models: Collection[str]) -> Restored:
    """The settings in a PNG. `models`: the catalogue's ids, the only ones that a picture may name.

    Raises StudioError if the file is not a PNG, has no settings of OMS Studio, or names another model.
    """
    restored = read_any(path)
    named = {restored.request.model, *(v.module for v in restored.request.variants if v.module is not None)}
    named |= {lora.id for lora in restored.request.loras}
    if unknown := sorted(named - set(models)):
        raise StudioError(f"{path.name} was made with {unknown[0]!r}, which is not in the catalogue: choose another")
    return restored


def read_any(path: Path) -> Restored:
    """As `read`, whatever models the settings name. No pixel is decoded."""
    try:
        text = read_texts(path).get("oms_studio")
    except (OSError, ValueError) as error:
        raise StudioError(f"{path.name} cannot be read as a PNG: choose a picture that OMS Studio saved") from error
    if text is None:
        raise StudioError(f"{path.name} contains no settings: choose a picture that OMS Studio saved")
    return parse_settings(text, path.name)


def parse_settings(text: str, name: str) -> Restored:
    """The settings that the chunk `oms_studio` of the file `name` holds. Raises StudioError if they are not valid."""
    try:
        if len(text) > MAX_CHUNK:
            raise ValueError("too long")
        chunk: Any = json.loads(text)
        version = chunk["version"]
        settings = {"request": chunk["request"], "variant": chunk["variant"], "index": chunk["index"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StudioError(f"the settings in {name} are damaged: choose another picture") from error
    if version != VERSION:
        raise StudioError(
            f"the settings in {name} are of version {repr(version)[:40]}: this OMS Studio reads {VERSION}"
        )
    try:
        return Restored.model_validate(settings)
    except ValidationError as error:
        raise StudioError(f"the settings in {name} are not valid: {describe(error)}") from error


def _write_picture(request: GenerateRequest, image: ImageResult, folder: Path, stamp: str) -> Path:
    info = PngInfo()
    info.add_itxt("oms_studio", settings_json(request, image))
    info.add_itxt("parameters", a1111_text(request, image))
    return _write_new(image.image, info, folder, f"{stamp}-{image.seed}-{image.variant.replace(' ', '_')}")


def _write_new(picture: Image.Image, info: PngInfo, folder: Path, stem: str) -> Path:
    def write(path: Path) -> None:
        picture.save(path, format="PNG", pnginfo=info, compress_level=4)  # three times as fast as 6, the default

    return new_file(folder, stem, ".png", write)


def settings_json(request: GenerateRequest, image: ImageResult) -> str:
    """Restores the request. Of a model's path only the last part is written: a picture is shown to others."""
    settings = request.model_dump(mode="json")
    settings["model"] = _name(settings["model"])
    for variant in settings["variants"]:
        variant["module"] = _name(variant["module"]) if variant["module"] else None
    for lora in settings["loras"]:
        lora["id"] = _name(lora["id"])
    return json.dumps({"version": VERSION, "request": settings, "variant": image.variant, "index": image.index})


def a1111_text(request: GenerateRequest, image: ImageResult) -> str:
    """`prompt`, `Negative prompt: …`, then one line of `Name: value` pairs: the settings that were used.

    LoRAs follow the prompt as A1111 writes them: `<lora:style:0.8>`.
    """
    variant = next(v for v in request.variants if v.name == image.variant)
    pairs = {
        "Steps": request.num_inference_steps,
        "Sampler": SCHEDULER_SPECS[request.scheduler].a1111_name if request.scheduler else None,
        "CFG scale": request.guidance_scale,
        "Seed": image.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": _name(request.model),
        "Correction": variant.correction,
        **variant.spec.metadata(variant, request.prompt),
    }
    loras = [f"<lora:{_name(lora.id).removesuffix('.safetensors')}:{lora.scale:g}>" for lora in request.loras]
    lines = [" ".join([request.prompt, *loras])]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in pairs.items()))
    return "\n".join(lines)


def _name(model: str) -> str:
    """A catalogue id, or the last part of a path of any system; of PEFT's adapters the folder's."""
    *_, folder, name = ["", *model.replace("\\", "/").rstrip("/").split("/")]
    return folder if folder and name.lower() == PEFT_WEIGHTS else name
