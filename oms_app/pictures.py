"""Pictures of anyone, opened with care: their size is checked before any pixel is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from oms_app.errors import StudioError

MAX_PIXELS = 4096 * 4096
MAX_OWN_PIXELS = 64_000_000  # of pictures that this program saved, such as sheets


@contextmanager
def open_picture(
    path: Path, formats: Sequence[str] = ("PNG", "JPEG", "WEBP"), max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """The picture, not yet decoded. Raises StudioError if it is none of the formats, damaged, or above max_pixels;
    also if that shows only in the block, while it is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about the size, which is checked here
            with Image.open(path, formats=tuple(formats)) as image:
                if not 0 < image.width * image.height <= max_pixels:
                    raise StudioError(
                        f"{path.name[:60]} has {image.width:,} × {image.height:,} pixels: take at most {max_pixels:,}"
                    )
                yield image
    except StudioError:
        raise
    except Exception as error:  # Pillow raises many types for damaged files, such as struct.error and AssertionError
        names = " or ".join(formats)
        raise StudioError(f"{path.name[:60]} cannot be read as a picture ({names}): choose another file") from error
