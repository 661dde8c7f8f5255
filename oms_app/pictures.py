"""Pictures of anyone, opened with care: their size is checked before any pixel is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from oms_app import light
from oms_app.errors import StudioError

MAX_PIXELS = 4096 * 4096
MAX_OWN_PIXELS = light.MAX_PIXELS  # of pictures that this program saved, such as sheets
FORMATS = ("PNG", "JPEG", "WEBP")


@contextmanager
def open_picture(path: Path, formats: Sequence[str] = FORMATS, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The picture, not yet decoded. Raises StudioError if it is none of the formats, damaged, or above max_pixels.

    Some damage shows only when more of the file is read: see `reading`.
    """
    with reading(path, formats):
        opened = Image.open(path, formats=tuple(formats))
    with opened:
        if not 0 < opened.width * opened.height <= max_pixels:
            raise StudioError(
                f"{path.name[:60]} has {opened.width:,} × {opened.height:,} pixels: take at most {max_pixels:,}"
            )
        yield opened


def saved_picture(path: Path) -> Image.Image:
    """The pixels, in RGB, of a PNG that this program saved. Raises StudioError if it is damaged, or too large."""
    with open_picture(path, ("PNG",), MAX_OWN_PIXELS) as opened, reading(path, ("PNG",)):
        return opened.convert("RGB")


@contextmanager
def reading(path: Path, formats: Sequence[str] = FORMATS) -> Iterator[None]:
    """A block in which only Pillow reads the file: whatever else than StudioError is raised means that the file is
    damaged. Raises StudioError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about the size, which `open_picture` checks
            yield
    except StudioError:  # the block's own
        raise
    except Exception as error:  # Pillow raises many types for damaged files, such as struct.error and AssertionError
        names = " or ".join(formats)
        raise StudioError(f"{path.name[:60]} cannot be read as a picture ({names}): choose another file") from error
