"""Light without a browser: the panel's values, paintings, looks, sweeps, and what is asked and got."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_app import CREATE
from test_explore import ask

from oms_app import GenerateRequest, Studio, Variant
from oms_app.engine.reached import reached
from oms_app.engine.service import StudioService
from oms_app.errors import StudioError
from oms_app.light import layout_picture, layout_text
from oms_app.looks import Look, LookLibrary
from oms_app.output import png
from oms_app.ui import restore, saved_settings
from oms_app.ui.grids import LIGHT_BY_SEED, SWEEPS
from oms_app.ui.light_picture import CANVAS, counts, painted
from oms_app.ui.light_values import PAINTING, PICTURE, hex_colour
from oms_app.ui.looks_panel import LookValues, look_settings, with_look

LAYOUT = layout_text(Image.linear_gradient("L"))
DIALS: dict[str, Any] = {
    "luminance_on": True, "luminance": 30.0, "tint_on": True, "tint": "#4060c0", "tint_strength": 0.5, "warmth": -0.25,
    "light": "top", "light_strength": 0.75, "light_angle": -30.0, "spread": 0.5,
}  # fmt: skip


def test_the_dials_that_are_on_make_a_dial_and_none_makes_oms() -> None:
    assert CREATE.to_request().variants[1].correction == "oms"
    dial = replace(CREATE, **DIALS, exact=True).to_request().variants[1]
    assert (dial.name, dial.correction, dial.guidance_scale) == ("dial", "dial", 1.5)
    assert (dial.luminance, dial.tint, dial.tint_strength, dial.warmth) == (30.0, "#4060c0", 0.5, -0.25)
    assert (dial.light, dial.light_strength, dial.light_angle, dial.spread) == ("top", 0.75, -30.0, 0.5)
    off = replace(CREATE, **DIALS | {"luminance_on": False, "tint_on": False, "light": "off"}).to_request().variants[1]
    assert (off.luminance, off.tint, off.tint_strength, off.light, off.light_strength) == (None, None, 1.0, None, 0.5)
    preview = replace(CREATE, **DIALS).to_preview()
    assert preview is not None and preview.variants == (dial,)


def test_a_painting_counts_only_if_something_is_painted() -> None:
    for source in (PAINTING, PICTURE):
        assert replace(CREATE, light=source).to_request().variants[1].correction == "oms"
        drawn: dict[str, Any] = {"light": source, source: LAYOUT}
        dial = replace(CREATE, **drawn).to_request().variants[1]
        assert (dial.correction, dial.light) == ("dial", LAYOUT)
    both = replace(CREATE, light=PAINTING, picture=LAYOUT)
    assert both.to_request().variants[1].correction == "oms", "the picture belongs to the other choice"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"luminance_on": True, "luminance": None}, "is missing: take 0 to 100"),
        ({"luminance_on": True, "luminance": 101}, r"Mean brightness \(average of R, G, B\) is 101"),
        ({"luminance_on": True, "luminance": "dark"}, r"is dark: take 0 to 100"),
        ({"luminance_on": True, "luminance": float("nan")}, "is nan: take 0 to 100"),
        ({"tint_on": True, "tint": None}, "Tint is missing: write #rrggbb"),
        ({"tint_on": True, "tint": "blue"}, "Tint is blue: write #rrggbb"),
        ({"tint_on": True, "tint_strength": 2}, "Tint strength is 2: take 0 to 1"),
        ({"warmth": None}, "Warmth is missing: take -1 to 1"),
        ({"warmth": [1]}, r"Warmth is \[1\]: take -1 to 1"),
        ({"light": None}, "Light is missing: choose one of left"),
        ({"light": "/etc/passwd"}, "Light is /etc/passwd: choose one of left"),
        ({"light": ["left"]}, "Light is "),
        ({"light": PAINTING, "painting": "picture:1,2"}, "Light is picture:1,2: choose one of left"),
        ({"light": "left", "light_strength": None}, "Light strength is missing: take 0 to 1"),
        ({"light": "left", "light_angle": None}, "Light angle is missing: take -180 to 180"),
    ],
)
def test_values_that_no_control_sends_are_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    for made in (values := replace(CREATE, **changes)).to_request, values.to_preview:
        with pytest.raises(StudioError, match=said) as error:
            made()
        assert "\n" not in str(error.value)


def test_colours_of_a_picker_are_read() -> None:
    assert hex_colour("rgba(48, 96, 255, 1)") == "#3060ff" == hex_colour("rgb(48.2,95.9,999)")
    assert hex_colour("#3060ff") == "#3060ff" and hex_colour("rgba(1,2)") == "rgba(1,2)"
    assert hex_colour("rgb(1.2.3, 4, 5)") == "rgb(1.2.3, 4, 5)" and hex_colour(7) == "7"


def test_a_canvas_becomes_a_layout_once_it_has_a_stroke() -> None:
    empty = Image.new("RGBA", (CANVAS, CANVAS))
    assert painted({"background": empty, "layers": [empty], "composite": empty}, 0) == ""
    stroke = empty.copy()
    ImageDraw.Draw(stroke).rectangle((0, 0, CANVAS // 4, CANVAS), fill="white")
    text = painted({"background": None, "layers": [stroke], "composite": None}, 10)
    cells = np.asarray(layout_picture(text), float)
    assert cells[:, :8].mean() > 200 and cells[:, 24:].mean() == pytest.approx(128, abs=8)
    softer = np.asarray(layout_picture(painted({"layers": [stroke]}, 50)), float)
    assert softer.std() < cells.std()
    for nonsense in (None, "text", {}, {"layers": None}, {"layers": [None, "x"]}, {"layers": 5}):
        assert painted(nonsense, None) == ""
    assert "Nothing" in counts("") and counts(None) == "" and "Nothing" in counts("<b>")


def test_the_browser_gives_the_dials_back_and_nothing_else() -> None:
    saved = DIALS | {"painting": LAYOUT, "picture": "", "exact": True}
    assert saved_settings.valid(saved, ["lumen"]) == saved
    wrong: dict[str, Any] = {
        "luminance": 101, "luminance_on": 1, "tint": "blue", "tint_strength": None, "warmth": "x", "light": "/etc",
        "light_strength": 2, "light_angle": 200, "painting": "picture:1", "picture": "a.png", "exact": "yes",
        "spread": -1,
    }  # fmt: skip
    assert saved_settings.valid(wrong, ["lumen"]) == {}


def test_a_look_keeps_the_dials(tmp_path: Path) -> None:
    library = LookLibrary(folder=tmp_path)
    values = replace(CREATE, **DIALS)
    look = library.save("my night", **look_settings(values, LookValues("my night", "", "")))
    assert json.loads((tmp_path / "my-night.json").read_text())["luminance"] == 30.0
    again = with_look(CREATE, library.find("my-night"), ("", ""))
    assert again.light_settings() == values.light_settings()
    assert again.to_request().variants == values.to_request().variants
    assert with_look(again, library.find("plain"), ("", "")).to_request().variants[1].correction == "oms"
    assert look.request().variants[0].correction == "dial"
    for bad, said in (
        ({"luminance": 120}, "luminance"),
        ({"tint_strength": 0.5}, "there is no tint"),
        ({"light": "/etc/passwd"}, "choose one of left"),
    ):
        with pytest.raises(ValueError, match=said):
            Look(id="bad", title="Bad", **bad)


def test_every_dial_can_be_swept() -> None:
    for dial, texts in SWEEPS.items():
        grid = ask(kind=LIGHT_BY_SEED, dial=dial, dial_values=texts)
        raw, *swept = grid.requests[1].variants
        assert raw.correction == "raw" and grid.requests[1].seed == 8
        assert [f"{getattr(one, dial)}".removesuffix(".0") for one in swept] == texts.split(", ")
        assert len(grid.column_labels) == 1 + len(swept)
    assert grid.column_labels[1] == "Spread 0"
    for changes, said in (
        ({"dial": "prompt"}, "the dial is 'prompt': choose one of luminance"),
        ({"dial": "luminance", "dial_values": "a"}, "has the values 'a': write numbers"),
        ({"dial": "luminance", "dial_values": "120"}, "is 120.0: take 0 to 100"),
        ({"dial": "tint", "dial_values": ""}, "Tint has no values"),
        ({"dial": "light", "dial_values": "/etc"}, "Light is /etc: choose one of left"),
        ({"dial_seeds": None}, "the number of seeds is missing"),
        ({"kind": "nonsense"}, "the grid is 'nonsense'"),
    ):
        with pytest.raises(StudioError, match=said):
            ask(**{"kind": LIGHT_BY_SEED} | changes)


def test_asked_and_got_are_those_of_the_pixels() -> None:
    dial = Variant(name="dial", correction="dial", luminance=40.0, light="left")
    image = Image.new("RGB", (8, 8), (102, 102, 102))
    image.paste((204, 204, 204), (0, 0, 4, 8))
    brightness, light = reached(dial, image)
    assert (brightness.asked, brightness.got, brightness.difference) == (40.0, 60.0, 20.0)
    assert brightness.text == "brightness asked 40 %, got 60.0 %"
    assert light.got == pytest.approx(82.0 - 43.2, abs=1) and "left half 39 L* lighter" in light.text
    (right,) = reached(Variant(name="a", correction="dial", light="right"), image)
    assert right.got == -light.got and "darker" in right.text  # type: ignore[operator]
    (turned,) = reached(Variant(name="a", correction="dial", light="top", light_angle=-90), image)
    assert turned.asked == "top -90°" and turned.got == light.got
    blue = Image.new("RGB", (8, 8), "#4060c0")
    (tint,) = reached(Variant(name="a", correction="dial", tint="#4060c0"), blue)
    assert (tint.asked, tint.got, tint.difference) == ("#4060c0", "#4060c0", 0.0)
    _, dark = reached(Variant(name="a", correction="dial", tint="#4060c0", luminance=20.0), blue)
    assert dark.asked == "#1c2a53" and dark.difference is not None and dark.difference > 10
    (half,) = reached(Variant(name="a", correction="dial", tint="#4060c0", tint_strength=0.5), blue)
    assert half.difference is None
    (painting,) = reached(Variant(name="a", correction="dial", light=LAYOUT), layout_picture(LAYOUT))
    assert painting.got == pytest.approx(1, abs=0.01)
    (even,) = reached(Variant(name="a", correction="dial", light=layout_text(blue)), layout_picture(LAYOUT))
    assert even.got == 0 and "equally light everywhere" in even.text
    for free in (Variant(name="raw"), Variant(name="oms", correction="oms"), Variant(name="d", correction="dial")):
        assert reached(free, image) == ()


def test_the_settings_of_a_saved_picture_come_back(late: StudioService, studio: Studio, tmp_path: Path) -> None:
    values = replace(CREATE, **DIALS, exact=True)
    request = values.to_request()
    result = png.save(studio.generate(request.model_copy(update={"count": 2, "exact": False})), tmp_path)
    for image in result.images:
        assert image.path is not None
        shown, after, note = restore.read(image.path, CREATE, late)
        assert shown and not note
        assert after.light_settings() == values.light_settings() and after.oms_on, image.variant
        assert (after.seed, shown.seed, after.count) == (image.seed, image.seed, 1)
        assert (shown.raw is None) == (image.variant == "dial")
    offset = GenerateRequest(
        prompt="sea", num_inference_steps=1, variants=(Variant(name="o", correction="offset_noise"),)
    )
    (other,) = png.save(studio.generate(offset), tmp_path).images
    assert other.path is not None
    with pytest.raises(StudioError, match="made with Offset noise, which Create does not have"):
        restore.read(other.path, CREATE, late)
