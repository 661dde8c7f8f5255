"""Where a picture is bright: directions by name, and the light of any picture as a short text, without torch.

The text holds the picture's lowest frequencies, so that a request carries no path and no pixels, and a saved picture
restores it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

SIDES = ("left", "right", "top", "bottom")
LIGHTS = (*SIDES, "centre", "vignette")
MODES = 4  # cosines per side
SIDE = 64  # pixels that a picture is reduced to
MAX_PIXELS = 64_000_000
PREFIX = "picture:"
GREY = (128, 128, 128)  # what nothing is painted on: neither dark nor bright


def towards(side: str, angle: float) -> tuple[float, float]:
    """Where the light of one of SIDES comes from, turned clockwise by degrees: to the right and down, of length 1."""
    x, y = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}[side]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * cos - y * sin, x * sin + y * cos


def layout_text(picture: Image.Image | Path) -> str:
    """The lowest 4 × 4 cosines of a picture's R, G and B values, in thousandths of full scale, as `picture:1,2,…`.

    Amplitudes as in prestep/leak.py, by channel, row and column; [0, 0] is the channel's mean. What is transparent
    counts as grey. Raises ValueError for a file that cannot be used; its text says why in a few words.
    """
    import numpy as np

    if isinstance(picture, Path):
        return _layout_of_file(picture)
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (*GREY, 255)), picture.convert("RGBA"))
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, np.float64).transpose(2, 0, 1) / 255
    cosines = _cosines()
    twice = np.where(np.arange(MODES) == 0, 1.0, 2.0)
    modes = np.einsum("chw,ih,jw->cij", values, cosines, cosines) / SIDE**2 * twice[:, None] * twice
    return PREFIX + ",".join(str(round(1000 * value)) for value in modes.ravel())


def _layout_of_file(path: Path) -> str:
    if not os.path.isfile(path):  # unlike Path, it answers for names that are too long
        raise ValueError("no such file")
    picture = None
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height <= MAX_PIXELS:
                opened.load()
                picture = ImageOps.exif_transpose(opened)  # as viewers show it: a camera may turn it
    except Image.DecompressionBombError:
        pass
    except UnidentifiedImageError as error:
        raise ValueError("not a picture") from error
    except Exception as error:  # Pillow raises many types for damaged files
        raise ValueError("a file that is damaged or cannot be read") from error
    if picture is None:
        raise ValueError(f"a picture of more than {MAX_PIXELS:,} pixels")
    return layout_text(picture)


def layout_values(text: str) -> Sequence[float]:
    """The 3 · 4 · 4 amplitudes in a text of `layout_text`, in full scale. Raises ValueError for another text."""
    numbers = text.removeprefix(PREFIX).split(",")
    if not text.startswith(PREFIX) or len(numbers) != 3 * MODES * MODES:
        raise ValueError(f"{text[:40]!r} is not the light of a picture")
    found = [int(number) for number in numbers]
    if any(abs(value) > 4000 for value in found):
        raise ValueError(f"{text[:40]!r} has values out of range")
    return [value / 1000 for value in found]


def is_layout(value: object) -> bool:
    """Whether it is a text of `layout_text`."""
    try:
        return isinstance(value, str) and bool(layout_values(value))
    except ValueError:
        return False


def layout_picture(text: str) -> Image.Image:
    """The light that a text of `layout_text` says, as a picture of SIDE pixels. Raises ValueError for another text."""
    import numpy as np

    modes = np.array(layout_values(text)).reshape(3, MODES, MODES)
    values = np.einsum("cij,ih,jw->hwc", modes, _cosines(), _cosines())
    return Image.fromarray(np.asarray((255 * values).round().clip(0, 255), np.uint8))


def _cosines() -> Any:
    """(MODES, SIDE): the cosines of one side."""
    import numpy as np

    return np.cos(np.pi * np.arange(MODES)[:, None] * (np.arange(SIDE) + 0.5) / SIDE)


def light_setting(text: str) -> Any:
    """What the command line gives a variant for --light TEXT: a direction or layout as it is, else a Path to read."""
    return text if text in LIGHTS or text.startswith(PREFIX) else Path(text)
