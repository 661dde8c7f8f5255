"""The example pairs that are shipped: the settings that come with a pair make it again."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from test_app import CREATE

from oms_app import Studio
from oms_app.paths import EMBEDDED_FOLDER
from oms_app.ui import examples


@pytest.mark.parametrize("number", [0, 1])  # the page opens with the first
def test_the_settings_of_a_pair_make_it_again(number: int, embedded: Studio) -> None:
    example = examples.load(EMBEDDED_FOLDER / "examples")[number]
    defaults = next(one.defaults for one in embedded.models() if one.id == examples.MODEL)
    request = example.apply(CREATE, defaults).to_request()
    made = {image.variant: np.asarray(image.image, np.int16) for image in embedded.generate(request).images}
    for path, variant in ((example.raw, "raw"), (example.oms, example.variant.name)):
        with Image.open(path) as shown:
            assert np.abs(np.asarray(shown.convert("RGB"), np.int16) - made[variant]).max() <= 1
