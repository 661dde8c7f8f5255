"""The shipped members of Lumen's family through the engine: models of their own, which share one OMS module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from oms_app.engine.studio import Studio
from oms_app.models.catalog import Catalog
from oms_app.paths import EMBEDDED
from oms_app.schema import OMS, RAW, GenerateRequest, GenerateResult, Lora, Variant

BASES = [entry.id for entry in Catalog().entries.values() if entry.adapts == EMBEDDED]
STYLE = Lora(id="lumen-woodcut", scale=0.75)


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    yield Studio(device="cpu")


def paint(studio: Studio, model: str, prompt: str = "mountains at night", **more: Any) -> GenerateResult:
    return studio.generate(GenerateRequest.model_validate({"prompt": prompt, "model": model, "seed": 0, **more}))


def test_the_family_is_complete() -> None:
    assert BASES == ["lumen-lcm", "lumen-offset", "lumen-v", "lumen-zsnr"]


def test_each_member_paints_its_own_picture_and_all_share_one_module(studio: Studio) -> None:
    """With a base and a module loaded at first, each further base is the only new model."""
    few: dict[str, Any] = {"num_inference_steps": 4}
    seen = [np.asarray(paint(studio, EMBEDDED, **few).images[0].image, float)]
    for model in (name for name in BASES if name != "lumen-zsnr"):
        before = studio.statistics()
        result = paint(studio, model, **few)
        assert [image.variant for image in result.images] == ["raw", "oms"]
        assert result.request.variants[1].module == "lumen-oms"
        loaded = studio.statistics().misses - before.misses
        assert loaded <= 2  # the base, and once the text encoder without a LoRA, which the module names
        picture = np.asarray(result.images[0].image, float)
        assert all(np.abs(picture - other).mean() > 1 for other in seen), model
        seen.append(picture)


@pytest.mark.parametrize("model", ["lumen-lcm", "lumen-v", "lumen-offset"])
def test_black_is_black_with_lumens_module(studio: Studio, model: str) -> None:
    strong = Variant(name="oms", correction="oms", guidance_scale=2.0)
    raw, corrected = paint(studio, model, "solid black background", variants=(RAW, strong)).images
    assert corrected.stats.mean <= 15
    assert raw.stats.mean > 15 or model == "lumen-offset"  # whose own remedy makes it black


def test_the_model_that_starts_from_pure_noise_needs_no_module(studio: Studio) -> None:
    result = paint(studio, "lumen-zsnr", "solid black background")
    assert [image.variant for image in result.images] == ["raw"] and result.images[0].stats.mean <= 15
    assert any("nothing to correct" in note for note in result.notes)


def test_a_dial_reaches_its_brightness_on_each_member(studio: Studio) -> None:
    dial = Variant(name="dial", correction="dial", luminance=30.0)
    for model in BASES:
        (image,) = paint(studio, model, variants=(dial,)).images
        assert abs(image.stats.mean / 2.55 - 30) <= 4, model


def test_the_style_makes_prints_in_two_tones(studio: Studio) -> None:
    """Most pixels are near ink or paper, which those of the plain picture are not."""

    def extreme(result: GenerateResult) -> float:
        light = np.asarray(result.images[0].image, float).mean(-1)
        return float(((light < 70) | (light > 190)).mean())

    plain = paint(studio, EMBEDDED, "a house on a hill", variants=(RAW,))
    printed = paint(studio, EMBEDDED, "a house on a hill", variants=(RAW, OMS), loras=(STYLE,))
    assert extreme(printed) > 0.7 > extreme(plain)


def test_settings_of_a_member_are_in_its_picture(studio: Studio) -> None:
    result = paint(studio, "lumen-lcm", variants=(RAW,))
    assert (result.request.num_inference_steps, result.request.scheduler) == (4, "lcm")
    assert json.loads(result.request.model_dump_json())["model"] == "lumen-lcm"
