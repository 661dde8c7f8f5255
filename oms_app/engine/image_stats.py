"""The figures of a picture, as a result carries them."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from PIL import Image

from oms_app.measure.picture import measure
from oms_app.schema import ImageStats


def image_stats(image: Image.Image) -> ImageStats:
    """Of a picture in any mode, which is read as RGB."""
    return ImageStats(**asdict(measure(np.asarray(image.convert("RGB")))))
