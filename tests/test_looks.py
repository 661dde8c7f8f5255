"""Looks: the shipped ones, and those that a user saves and reads back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_app import CREATE

from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.looks import SHIPPED, THUMBNAIL, Look, LookLibrary
from oms_app.models.text import unknown_words
from oms_app.paths import user_folder
from oms_app.ui.form import BETWEEN_TWO
from oms_app.ui.looks_panel import LookValues, cards, look_settings, unwrap, with_look

ROOT = Path(__file__).resolve().parents[1]
BLUE = Image.new("RGB", (300, 200), (0, 0, 200))


@pytest.fixture
def library(own_home: Path) -> LookLibrary:
    return LookLibrary(folder=own_home / "looks")


def test_sixteen_looks_are_shipped_with_pictures_and_words_that_the_embedded_model_knows() -> None:
    looks = LookLibrary().looks()
    assert len(looks) >= 16
    assert looks[0][0].id == "plain" and looks[0][0].wrap("hills") == "hills"
    vocabulary = frozenset(json.loads((ROOT / "assets/lumen/vocabulary.json").read_text(encoding="utf-8"))["words"])
    for look, picture in looks:
        texts = (look.wrap(""), look.oms_prompt or "", look.oms_prompt_b or "")
        assert unknown_words(vocabulary, *texts) == (), look.id
        assert look.description and look.request().variants[0].correction == "oms"
        assert picture is not None and picture.stat().st_size <= 10 * 1024
        with Image.open(picture) as image:
            assert image.size == (THUMBNAIL, THUMBNAIL)
    assert len({look.title.casefold() for look, _ in looks}) == len(looks)


def test_a_look_goes_around_the_prompt_and_comes_off_again() -> None:
    look = Look(id="x", title="x", prefix="a photo of", suffix="at night", sample="a lake")
    assert look.wrap("  hills ") == "a photo of hills at night"
    assert look.wrap(" ") == "a photo of a lake at night", "an empty prompt gets the look's own subject"
    assert unwrap(look.wrap("hills"), look.prefix, look.suffix) == "hills"
    assert unwrap("hills at nightfall", "", "at night") == "hills at nightfall"
    assert unwrap("hills at night", "a photo of", "at night") == "hills at night", "someone has changed the words"
    assert unwrap("at night", "", "at night") == ""


def test_a_saved_look_is_there_at_once_and_in_another_studio(library: LookLibrary, own_home: Path) -> None:
    settings = {"suffix": "at night", "oms_prompt": "dark", "oms_prompt_b": "light", "mix": 0.3}
    saved = library.save("  My   night ", BLUE, **settings)
    assert (saved.id, saved.title, saved.mix) == ("my-night", "My night", 0.3)
    for other in (library, LookLibrary(folder=own_home / "looks"), StudioService(home=own_home).looks):
        look, picture = other.looks()[-1]
        assert look == saved and picture is not None
        assert other.find("my-night") == saved
    with Image.open(own_home / "looks/my-night.jpg") as image:
        red, green, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
        assert image.size == (THUMBNAIL, THUMBNAIL) and blue > 180 and red + green < 20
    assert {path.name for path in (own_home / "looks").iterdir()} == {"my-night.json", "my-night.jpg"}
    assert library.save("夜の湖").title == "夜の湖"
    assert library.save("夜の海").title == "夜の海"
    assert len(library.looks()) == len(LookLibrary().looks()) + 3


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("", "has no name yet"),
        (" \n ", "has no name yet"),
        ("Night", "named 'Night' exists already: choose another name"),
        ("nIGHT", "exists already"),
        ("golden-hour", "exists already"),
        ("../../etc/passwd", "is not a valid name of a look: take up to 40 letters"),
        ("<script>alert(1)</script>", "is not a valid name of a look"),
        ("a\x00b", "is not a valid name of a look"),
        ("x" * 41, "is not a valid name of a look"),
    ],
)
def test_a_name_that_cannot_be_is_refused(library: LookLibrary, title: str, said: str) -> None:
    with pytest.raises(StudioError, match=said) as refusal:
        library.save(title)
    assert "\n" not in str(refusal.value)
    assert not (user_folder() / "looks").exists(), "nothing was written"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mix": 0.5}, "no second OMS prompt"),
        ({"oms_guidance_scale": 9.0}, "oms_guidance_scale: .*less than or equal to 4"),
        ({"suffix": "x" * 201}, "suffix: .*at most 200"),
    ],
)
def test_settings_out_of_range_are_refused(library: LookLibrary, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(StudioError, match=said):
        library.save("mine", **settings)


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[" * 100_000,
        '{"id": "other", "title": "Other"}',
        '{"id": "bad", "title": "<b>"}',
        '{"id": "bad", "title": "Bad", "thumbnail": "../../secret.png"}',
        '{"id": "bad", "title": "Bad", "mix": NaN}',
        '{"id": "bad", "title": "Bad", "code": "rm"}',
        '{"id": "night", "title": "Bad"}',
        "",
        '"' + "x" * 70_000,
    ],
)
def test_a_broken_look_of_the_users_is_passed_over_and_a_shipped_one_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")
    assert len(LookLibrary(folder=tmp_path).looks()) == len(LookLibrary().looks())
    with pytest.raises(
        StudioError, match=r"bad\.json is not a valid look \(.*: correct the file, or delete it"
    ) as error:
        LookLibrary(shipped=tmp_path)
    assert "\n" not in str(error.value)


def test_where_visitors_are_strangers_nothing_is_saved(tmp_path: Path, own_home: Path) -> None:
    looks = StudioService(pictures=tmp_path).looks  # as on a Space
    assert not looks.can_save and len(looks.looks()) == len(LookLibrary(SHIPPED).looks())
    with pytest.raises(StudioError, match="cannot be saved on a shared page"):
        looks.save("mine")
    assert not own_home.exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "looks").write_text("a file")
    with pytest.raises(StudioError, match="cannot be written to"):
        LookLibrary(folder=tmp_path / "looks").save("mine")


def test_the_fields_of_create_make_a_look_and_a_look_fills_them_in(library: LookLibrary) -> None:
    values = replace(CREATE, prompt="hills at night", oms_prompt=" dark ", oms_mix=0.4)
    look = library.save("one", **look_settings(values, LookValues("one", "", "at night")))
    assert (look.sample, look.oms_prompt, look.oms_prompt_b, look.mix) == ("hills", "dark", None, 0.0)
    filled = with_look(CREATE, look, ("", ""))
    assert (filled.prompt, filled.oms_prompt) == (CREATE.prompt, "dark"), "its words are around the prompt already"
    assert filled.oms_guidance_scale == 1.5
    two = library.save("two", **look_settings(replace(values, oms_mode=BETWEEN_TWO), LookValues("two", "a", "")))
    filled = with_look(replace(filled, prompt="sea at night", oms_on=False), two, ("", "at night"))
    assert (filled.prompt, filled.oms_on, filled.oms_mode) == ("a sea", True, BETWEEN_TWO)
    assert (filled.oms_prompt_left, filled.oms_prompt_right, filled.oms_mix) == ("dark", "light", 0.4)
    with pytest.raises(StudioError, match="One More Step is off"):
        look_settings(replace(values, oms_on=False), LookValues("three", "", ""))
    html = cards([(look.model_copy(update={"description": "<img src=x onerror=1>"}), None)])
    assert "<img src=x" not in html and 'data-look="one"' in html
