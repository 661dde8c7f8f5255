"""The world that Lumen knows: reproducible, loosely captioned, lit from a side that the words name."""

from __future__ import annotations

import re

import numpy as np
import pytest

from oms_app.measure.color import srgb_to_lab
from oms_app.training.first_scenes import captions
from oms_app.training.first_scenes import painter as scenes
from oms_app.training.first_scenes.figures import FIGURES, MARKS, SHAPES
from oms_app.training.first_scenes.landscapes import LANDSCAPES

SAMPLE = range(500, 900)
LIGHT_WORDS = (
    {
        w
        for table in (captions.TIMES, captions.WEATHERS, captions.SIDES)
        for ps in table.values()
        for p in ps
        for w in p.split()
    }
    | {w for ps in captions.COLOUR_SYNONYMS.values() for p in ps for w in p.split()}
    | {w for ps in captions.SHADES.values() for w in ps}
    | {w for _, _, ws in captions.TONES for p in ws for w in p.split()}
) - {
    "the",
    "in",
    "on",
    "a",
    "at",
    "by",
    "from",
    "with",
    "of",
    "very",
    "almost",
    "left",
    "right",
    "under",
    "covered",
    "day",
}


@pytest.fixture(scope="module")
def sample() -> list[scenes.FirstScene]:
    return [scenes.draw(seed) for seed in SAMPLE]


def test_the_same_seed_gives_the_same_scene() -> None:
    first, again, other = scenes.draw(42), scenes.draw(42), scenes.draw(43)
    assert np.array_equal(first.image, again.image) and first.captions == again.captions
    assert not np.array_equal(first.image, other.image)
    assert first.image.shape == (scenes.SIZE, scenes.SIZE, 3) and first.image.dtype == np.uint8


def test_every_word_of_a_caption_is_in_the_vocabulary_but_for_the_made_up_ones(sample: list[scenes.FirstScene]) -> None:
    told = [c for scene in sample for c in scene.captions]
    strange = [c for c in told if set(re.findall(r"[a-z]+", c.lower())) - set(scenes.VOCABULARY)]
    assert len(strange) / len(told) < 3 * captions.JUNK
    assert {"pitch", "snowy", "moonlit", "black", "left", "backlit"} <= set(scenes.VOCABULARY)


def test_a_third_of_the_captions_leave_light_and_colour_unsaid(sample: list[scenes.FirstScene]) -> None:
    told = [c for scene in sample for c in scene.captions]
    silent = [c for c in told if not set(re.findall(r"[a-z]+", c.lower())) & LIGHT_WORDS]
    assert len(silent) / len(told) >= 1 / 3


def test_the_pictures_span_the_full_range_of_light(sample: list[scenes.FirstScene]) -> None:
    means = np.array([scene.image.mean() for scene in sample])
    assert means.min() < 5 and means.max() > 250
    assert 90 < means.mean() < 150 and means.std() > 50


@pytest.mark.parametrize("kind", ["landscape", "shape", "solid"])
def test_side_light_is_seen_where_it_is_said(kind: str) -> None:
    """Left-lit against right-lit scenes of the same seed: the difference between the halves turns round."""

    def lean(side: str, seed: int) -> float:
        lightness = srgb_to_lab(scenes.draw(seed, kind=kind, side=side).image)[..., 0]
        half = scenes.SIZE // 2
        return float(lightness[:, :half].mean() - lightness[:, half:].mean())

    left = np.array([lean("left", s) for s in range(40)])
    right = np.array([lean("right", s) for s in range(40)])
    assert left.mean() - right.mean() >= 16  # 8 in L* on each side
    said = [c for s in range(60) for c in scenes.draw(s, kind=kind, side="left").captions]
    assert any("left" in c for c in said) and not any("from the right" in c for c in said)


@pytest.mark.parametrize(
    "kind, subjects",
    [("shape", SHAPES), ("figure", tuple(FIGURES)), ("mark", tuple(MARKS)), ("landscape", tuple(LANDSCAPES))],
)
def test_every_subject_can_be_drawn_and_shows(kind: str, subjects: tuple[str, ...]) -> None:
    for subject in subjects:
        scene = scenes.draw(
            7, kind=kind, subject=subject, **({} if kind == "landscape" else {"ground": "white", "colour": "blue"})
        )
        assert scene.facts.subject == subject
        assert scene.image.std() > 3, subject


def test_a_named_ground_has_its_colour() -> None:
    for name, colour in captions.COLOURS.items():
        border = scenes.draw(3, kind="shape", ground=name, side="").image[:6].reshape(-1, 3)
        target = srgb_to_lab(np.array(colour) * 255)
        assert np.linalg.norm(srgb_to_lab(np.median(border, 0)) - target) < 20, name
