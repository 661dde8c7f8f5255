"""Pictures on disk: PNG with the settings that made them, and those settings back from a PNG.

Two text chunks: `oms_studio` is versioned JSON that restores the request, `parameters` is the text that A1111 and its
kin read. What is read back is checked like any user's input: a picture may come from anyone.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from oms_app.errors import StudioError, describe
from oms_app.output.sheets import framed, labelled, notice
from oms_app.schema import Frozen, GenerateRequest, GenerateResult, ImageResult

VERSION = 1
SHEET_CELL = 512  # pixels: the largest side of a picture on a sheet
Cell = tuple[GenerateRequest, ImageResult] | str
MAX_CHUNK = 200_000  # characters; the largest request there can be takes less
SAMPLERS = {
    "ddim": "DDIM",
    "pndm": "PLMS",
    "dpm++2m": "DPM++ 2M",
    "unipc": "UniPC",
    "lcm": "LCM",
    "euler": "Euler",
    "euler-a": "Euler a",
    "heun": "Heun",
}


class Restored(Frozen):
    """What a picture says of itself: the request, and which of its pictures this one is."""

    request: GenerateRequest
    variant: str
    index: int


def save(result: GenerateResult, folder: Path) -> GenerateResult:
    """Writes every picture as PNG into the folder, which is made where needed; returns the result with the paths.

    A file is written under a temporary name and then renamed, and an existing one is never overwritten. Raises
    StudioError where the folder cannot be written to.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        images = tuple(
            image.model_copy(update={"path": _write(result.request, image, folder, stamp)}) for image in result.images
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StudioError(f"the folder {folder} cannot be written to ({reason}): name another") from error
    return result.model_copy(update={"images": images})


def save_sheet(
    cells: Sequence[Sequence[Cell]], row_labels: Sequence[str], column_labels: Sequence[str], folder: Path
) -> Path:
    """Writes a labelled grid as one PNG into the folder, which is made where needed; returns its path.

    A cell is a finished picture with its request, or the words that stand in its place. Pictures are made smaller than
    SHEET_CELL where they are larger. The text chunk `oms_studio_sheet` is versioned JSON with the labels and, of every
    cell, its settings as in a picture of its own. Raises StudioError where the folder cannot be written to.
    """
    pictures = [cell[1].image for row in cells for cell in row if not isinstance(cell, str)]
    across = min(SHEET_CELL, max((picture.width for picture in pictures), default=SHEET_CELL // 2))
    down = min(SHEET_CELL, max((picture.height for picture in pictures), default=SHEET_CELL // 2))
    tiles = [
        [
            notice(cell, (across, down)) if isinstance(cell, str) else framed(cell[1].image, (across, down))
            for cell in row
        ]
        for row in cells
    ]
    settings = [
        [{"error": cell} if isinstance(cell, str) else json.loads(settings_json(*cell)) for cell in row]
        for row in cells
    ]
    kept = {"version": VERSION, "rows": list(row_labels), "columns": list(column_labels), "cells": settings}
    info = PngInfo()
    info.add_itxt("oms_studio_sheet", json.dumps(kept), zip=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _keep(
            labelled(tiles, row_labels, column_labels), info, folder, f"{time.strftime('%Y%m%d-%H%M%S')}-sheet"
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StudioError(f"the folder {folder} cannot be written to ({reason}): name another") from error


def read(path: Path, models: Collection[str]) -> Restored:
    """The settings in a PNG. `models`: the catalogue's ids, the only ones that a picture may name.

    Raises StudioError where it is no PNG, has no settings of ours, or names what it may not.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()  # text chunks may follow the pixels
            text = getattr(image, "text", {}).get("oms_studio")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StudioError(f"{path.name} cannot be read as a PNG: choose a picture that OMS Studio saved") from error
    if text is None:
        raise StudioError(f"{path.name} carries no settings: choose a picture that OMS Studio saved")
    try:
        if len(text) > MAX_CHUNK:
            raise ValueError("too long")
        kept: Any = json.loads(text)
        version = kept["version"]
        settings = {"request": kept["request"], "variant": kept["variant"], "index": kept["index"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StudioError(f"the settings in {path.name} are damaged: choose another picture") from error
    if version != VERSION:
        raise StudioError(f"the settings in {path.name} are of version {version!r}: this OMS Studio reads {VERSION}")
    try:
        restored = Restored.model_validate(settings)
    except ValidationError as error:
        raise StudioError(f"the settings in {path.name} are not valid: {describe(error)}") from error
    asked = {restored.request.model, *(v.module for v in restored.request.variants if v.module is not None)}
    if unknown := sorted(asked - set(models)):
        raise StudioError(f"{path.name} was made with {unknown[0]!r}, which is not in the catalogue: choose another")
    return restored


def _write(request: GenerateRequest, image: ImageResult, folder: Path, stamp: str) -> Path:
    info = PngInfo()
    info.add_itxt("oms_studio", settings_json(request, image))
    info.add_itxt("parameters", a1111_text(request, image))
    return _keep(image.image, info, folder, f"{stamp}-{image.seed}-{image.variant.replace(' ', '_')}")


def _keep(picture: Image.Image, info: PngInfo, folder: Path, stem: str) -> Path:
    temporary = folder / f".{stem}-{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        picture.save(temporary, format="PNG", pnginfo=info, compress_level=4)  # a third of the time of 6, the default
        for number in range(1, 10_000):
            path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
            try:
                os.link(temporary, path)  # fails where the name is taken, even by another process this very moment
            except FileExistsError:
                continue
            except OSError:  # a file system without links
                if path.exists():
                    continue
                temporary.replace(path)
            return path
        raise StudioError(f"{folder} holds 10,000 pictures named {stem}: name another folder")
    finally:
        temporary.unlink(missing_ok=True)


def settings_json(request: GenerateRequest, image: ImageResult) -> str:
    """Restores the request. Of a model that lies in a folder only the name is kept: a picture is shown to others."""
    kept = request.model_dump(mode="json")
    kept["model"] = _name(kept["model"])
    for variant in kept["variants"]:
        variant["module"] = _name(variant["module"]) if variant["module"] else None
    return json.dumps({"version": VERSION, "request": kept, "variant": image.variant, "index": image.index})


def a1111_text(request: GenerateRequest, image: ImageResult) -> str:
    """`prompt`, `Negative prompt: …`, then one line of `Name: value` pairs."""
    variant = next(v for v in request.variants if v.name == image.variant)
    pairs = {
        "Steps": request.num_inference_steps,
        "Sampler": SAMPLERS.get(request.scheduler or "", request.scheduler),
        "CFG scale": request.guidance_scale,
        "Seed": image.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": _name(request.model),
        "OMS": variant.correction,
    }
    if variant.is_corrected:
        pairs["OMS prompt"] = json.dumps(request.prompt if variant.prompt is None else variant.prompt)
        pairs["OMS CFG"] = variant.guidance_scale
        if variant.mix:
            pairs["OMS prompt B"] = json.dumps(variant.prompt_b)
            pairs["OMS mix"] = variant.mix
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in pairs.items()))
    return "\n".join(lines)


def _name(model: str) -> str:
    return Path(model).name if ("/" in model or "\\" in model) else model
