"""The scenes that Lumen is trained on: reproducible, loosely captioned, every word of light true of the picture."""

from __future__ import annotations

import re

import numpy as np
import pytest

from oms_app.measure.color import srgb_to_lab
from oms_app.training.scenes import captions, words
from oms_app.training.scenes import painter as scenes
from oms_app.training.scenes.figures import FIGURES
from oms_app.training.scenes.landscapes import LANDSCAPES
from oms_app.training.scenes.shapes import SHAPES

SAMPLE = range(500, 900)
LIGHT_TABLES = (words.TIMES, words.WEATHERS, words.SIDES, words.STYLES, words.MOON, words.COLOUR_SYNONYMS, words.SHADES)
RANGES = (words.TONES, words.WARMTHS, words.CONTRASTS, words.CHROMAS)
# fmt: off
SMALL_WORDS = {
    "the", "in", "on", "a", "at", "by", "from", "with", "of", "very", "almost", "left", "right", "under", "covered",
    "day", "without", "after", "moon", "sign",
}
# fmt: on
LIGHT_WORDS = (
    {w for table in LIGHT_TABLES for phrases in table.values() for p in phrases for w in p.split()}
    | {w for phrases in words.SHADED.values() for p in phrases for w in p.split() if w != "forest"}
    | {w for table in RANGES for _, _, phrases in table for p in phrases for w in p.split()}
) - SMALL_WORDS

# What the first generation knew.
FIRST_WORDS = """
a above against airy almost an and art at background backlit ball balls beautiful behind black blue bright brown
by calm cat cats circle circles city clear clouds cloudy color colour cottage covered crescent crescents crimson
cross crosses dark darkness dawn day daylight deep desert diamond diamonds dim dramatic drawing dunes dusk early
emerald empty evening face field fish flower flowers fog foggy forest from gloomy glowing golden gray green grey
hazy heart hearts hexagon hexagons high hill hills hour house houses illustration image in jet key lake
landscape leaf leafs left light line lit logo lonely low luminous meadow medium midnight minimal mist misty
moonlight moonlit morning mountain mountains mushroom mushrooms muted nice night noon ocean of on open or orange
overcast painting pale pastel peaks photo picture pine pink pitch plain pretty pure purple quiet rainy range red
right ring rings rolling rose royal sand scarlet sea seascape shadows side simple sky skyline skyscrapers snow
snowfall snowy soft solid square squares star stars storm stormy sun sunny sunrise suns sunset teal the three
thunderstorm top town tree trees triangle triangles turquoise two under very view violet wall wallpaper water
wave waves white winter with woods yellow
"""


@pytest.fixture(scope="module")
def sample() -> list[scenes.Scene]:
    return [scenes.draw(seed) for seed in SAMPLE]


def said(scene: scenes.Scene) -> list[set[str]]:
    return [set(re.findall(r"[a-z]+", caption)) for caption in scene.captions]


def test_the_same_seed_gives_the_same_scene() -> None:
    first, again, other = scenes.draw(42), scenes.draw(42), scenes.draw(43)
    assert np.array_equal(first.image, again.image) and first.captions == again.captions
    assert not np.array_equal(first.image, other.image)
    assert first.image.shape == (scenes.SIZE, scenes.SIZE, 3) and first.image.dtype == np.uint8


def test_every_word_of_the_first_generation_stays_known() -> None:
    assert not set(FIRST_WORDS.split()) - set(scenes.VOCABULARY)


def test_the_words_for_light_that_artists_type_are_known() -> None:
    asked = "warm cool cold shadow contrast glow darker brighter neon noir candlelight twilight moonless spotlight dim"
    assert not set(asked.split()) - set(scenes.VOCABULARY)


def test_every_word_of_a_caption_is_in_the_vocabulary_but_for_the_made_up_ones(sample: list[scenes.Scene]) -> None:
    everything = [one for scene in sample for one in said(scene)]
    strange = [one for one in everything if one - set(scenes.VOCABULARY)]
    assert len(strange) / len(everything) < 3 * captions.JUNK


def test_almost_a_third_of_the_captions_leave_light_and_colour_unsaid(sample: list[scenes.Scene]) -> None:
    """0.31 to 0.34 by the sample: the flaw lives from these."""
    everything = [one for scene in sample for one in said(scene)]
    assert np.mean([not one & LIGHT_WORDS for one in everything]) >= 0.3


def test_the_pictures_span_the_full_range_of_light(sample: list[scenes.Scene]) -> None:
    means = np.array([scene.image.mean() for scene in sample])
    assert means.min() < 5 and means.max() > 250
    assert 90 < means.mean() < 150 and means.std() > 50


@pytest.mark.parametrize("kind", ["landscape", "shape", "solid"])
def test_side_light_is_seen_if_it_is_said(kind: str) -> None:
    """Left-lit against right-lit scenes of the same seed: the difference between the halves is reversed."""

    def lean(side: str, seed: int) -> float:
        lightness = srgb_to_lab(scenes.draw(seed, kind=kind, side=side, style="").image)[..., 0]
        half = scenes.SIZE // 2
        return float(lightness[:, :half].mean() - lightness[:, half:].mean())

    left = np.array([lean("left", s) for s in range(24)])
    right = np.array([lean("right", s) for s in range(24)])
    assert left.mean() - right.mean() >= 16  # 8 in L* on each side
    spoken = [c for s in range(40) for c in scenes.draw(s, kind=kind, side="left").captions]
    assert any("left" in c for c in spoken) and not any("from the right" in c for c in spoken)


SUBJECTS = {"shape": SHAPES, "figure": tuple(FIGURES), "landscape": tuple(LANDSCAPES)}


@pytest.mark.parametrize("kind, subject", [(kind, subject) for kind, names in SUBJECTS.items() for subject in names])
def test_every_subject_can_be_drawn_and_shows(kind: str, subject: str) -> None:
    on_ground = {} if kind == "landscape" else {"ground": "white", "colour": "blue"}
    scene = scenes.draw(7, kind=kind, subject=subject, **on_ground)
    assert scene.facts.subject == subject
    assert scene.image.std() > 8


def test_a_named_ground_has_its_colour() -> None:
    for name, colour in words.COLOURS.items():
        border = scenes.draw(3, kind="shape", ground=name, side="").image[:6].reshape(-1, 3)
        target = srgb_to_lab(np.array(colour) * 255)
        assert np.linalg.norm(srgb_to_lab(np.median(border, 0)) - target) < 20, name


def test_a_word_for_a_colour_and_its_shade_names_the_ground() -> None:
    facts = captions.Facts("solid", ground="blue", ground_shade="dark")
    assert captions.names_ground("a navy wall", facts) and captions.names_ground("deep blue", facts)
    assert not captions.names_ground("sky over a wall", facts) and not captions.names_ground(
        "", captions.Facts("landscape")
    )


@pytest.mark.parametrize(
    "table, measured",
    [(words.WARMTHS, "warmth"), (words.CONTRASTS, "contrast"), (words.CHROMAS, "chroma"), (words.TONES, "lightness")],
)
def test_words_of_measured_light_are_true(table: captions.Table, measured: str, sample: list[scenes.Scene]) -> None:
    """A speaker never says a word whose range the picture is outside of."""
    rng = np.random.default_rng(0)
    for scene in sample[:60]:
        look = scenes.look(scene.image)
        speaker = captions.Speaker(scene.facts, look, False, rng)
        value = getattr(look, measured)
        word = speaker.fitting(table, value)
        assert not word or any(low <= value < high and word in options for low, high, options in table)


def test_styles_look_as_they_are_called() -> None:
    def draws(style: str, kind: str) -> list[np.ndarray]:
        return [scenes.draw(s, kind=kind, style=style, side="").image for s in range(6)]

    for image in draws("noir", "figure"):
        assert np.abs(image.astype(int) - image.mean(-1, keepdims=True)).max() <= 1, "noir has no colour"
    for style in ("candle", "spotlight", "neon"):
        for image in draws(style, "figure"):
            middle, border = image[96:160, 96:160].mean(), image[:8].mean()
            assert border < 60 and middle > border, style
    for image in draws("candle", "figure"):
        assert image[..., 0].mean() > image[..., 2].mean(), "candlelight is warm"
    for image in draws("silhouette", "figure"):
        assert image.min() < 12 and image[:8].mean() > 60


def test_a_moonless_night_is_darker_than_a_moonlit_one() -> None:
    light: dict[str, list[float]] = {"moon": [], "moonless": []}
    for seed in range(80):
        scene = scenes.draw(seed, kind="landscape", time="night", weather="clear", style="")
        light[scene.facts.moon].append(float(scene.image.mean()))
    assert min(len(values) for values in light.values()) >= 10
    assert np.mean(light["moonless"]) < 0.8 * np.mean(light["moon"])


def test_captions_fit_the_text_encoder(sample: list[scenes.Scene]) -> None:
    from oms_app.training.lumen.text_encoder import MAX_LENGTH, build_tokenizer

    tokenizer = build_tokenizer(scenes.VOCABULARY)
    lengths = [len(tokenizer(c).input_ids) for scene in sample[:150] for c in scene.captions]
    assert np.mean([length <= MAX_LENGTH for length in lengths]) > 0.99
