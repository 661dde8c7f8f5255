"""The Light panel in a real browser, with the embedded model: brightness, direction, painting, tint, settings back."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, PROMPT, browser, go_to, picture, shared_tab, short, tab, unfold

pytestmark = pytest.mark.browser
__all__ = ["browser", "shared_tab", "tab"]  # fixtures of this module too


def mean(image: Image.Image) -> float:
    """Mean brightness in percent."""
    return float(np.asarray(image.convert("RGB"), np.float64).mean()) / 2.55


def begin(view: Page) -> None:
    """Create without a light from anywhere, a brightness or drafts, whatever the tests before have set."""
    view.get_by_role("tab", name="Create").click()
    view.get_by_label("Live").uncheck()
    view.locator("#light-pad").get_by_label("Off").check()
    view.get_by_label("Mean brightness (average of R, G, B)", exact=True).uncheck()


def generate(view: Page, seed: int = 7, prompt: str = "mountains") -> Image.Image:
    """The right picture."""
    view.locator(PROMPT).fill(prompt)
    view.locator("#seed input").fill(str(seed))
    before = view.locator("#oms-image img").get_attribute("src") or ""
    view.get_by_role("button", name="Generate").click()
    expect(view.locator("#oms-image img")).not_to_have_attribute("src", before, timeout=PATIENCE)
    expect(view.get_by_role("button", name="Stop")).to_be_disabled(timeout=PATIENCE)
    expect(view.locator("#summary")).to_contain_text(f"seed {seed}", timeout=PATIENCE)
    return picture(view, "oms")


def settled(view: Page, selector: str) -> str:
    """A hidden field's text, once it has one."""
    field = view.locator(f"{selector} textarea, {selector} input")
    expect(field).to_have_value(re.compile(r"^picture:"))
    return field.input_value()


@pytest.mark.shared_tab
def test_a_brightness_that_is_set_is_reached_and_said(tab: Page) -> None:
    tab.locator("#luminance input[type=number]").fill("20")
    begin(tab)
    slider = tab.get_by_label("range slider for Mean brightness")
    slider.press("ArrowRight")  # a dial that is moved is on
    expect(tab.get_by_label("Mean brightness (average of R, G, B)", exact=True)).to_be_checked()
    slider.press("ArrowLeft")
    light = tab.locator("#light img")
    image = generate(tab)
    assert mean(image) == pytest.approx(20, abs=3)
    assert mean(picture(tab, "raw")) > 40, "the raw picture has no dial"
    figures = tab.locator("#oms-figures")
    expect(figures).to_contain_text(f"brightness asked 20 %, got {mean(image):.1f} %")
    expect(light).to_have_accessible_name(re.compile(r"mean L\* [12]\d,"))
    tab.get_by_label("Mean brightness (average of R, G, B)", exact=True).uncheck()
    assert mean(generate(tab, seed=8)) > 25
    expect(figures).not_to_contain_text("asked")


@pytest.mark.shared_tab
def test_the_pad_moves_by_the_arrow_keys_and_the_light_comes_from_there(tab: Page) -> None:
    begin(tab)
    short(tab)
    pad = tab.locator("#light-pad")
    tab.locator(".oms-dial:has(+ #light-where) input[type=range]").focus()
    tab.keyboard.press("Tab")
    expect(pad.get_by_label("Off")).to_be_focused()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowRight"):
        tab.keyboard.press(key)
    expect(pad.get_by_label("Left")).to_be_focused()
    expect(pad.get_by_label("Left")).to_be_checked()
    assert pad.locator("input:checked").count() == 1
    tab.keyboard.press("Tab")  # one stop for the whole pad
    expect(pad.locator("input:focus")).to_have_count(0)
    values = np.asarray(generate(tab).convert("L"), float)
    middle = values.shape[1] // 2
    assert values[:, :middle].mean() > values[:, middle:].mean() + 20
    expect(tab.locator("#oms-figures")).to_contain_text(
        re.compile(r"light asked left, got the left half \d+ L\* lighter")
    )


@pytest.mark.shared_tab
def test_only_what_is_painted_counts(tab: Page) -> None:
    begin(tab)
    short(tab)
    tab.locator("#light-pad").get_by_label("Painting").check()
    canvas = tab.locator("#light-canvas canvas").first
    expect(canvas).to_be_visible()
    expect(tab.locator("#light-counts")).to_contain_text("Nothing is painted")
    nothing = generate(tab)
    expect(tab.locator("#oms-figures")).not_to_contain_text("asked")
    canvas.scroll_into_view_if_needed()
    tab.wait_for_timeout(500)  # the canvas follows the scrolling
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x + 90, y - 100)
    tab.mouse.down()
    tab.mouse.move(x + 90, y + 100, steps=8)
    tab.mouse.up()
    layout = settled(tab, "#light-of-painting")
    expect(tab.locator("#light-counts img")).to_be_visible()
    tab.locator("#light-strength input[type=number]").fill("1")
    generate(tab)
    expect(tab.locator("#oms-figures")).to_contain_text("light asked as in the picture", timeout=PATIENCE)
    bright = picture(tab, "oms")
    right, before = (np.asarray(one.convert("L"), float)[:, -60:].mean() for one in (bright, nothing))
    assert right > before + 20
    assert f'"{layout}"' in bright.info["oms_studio"]
    tab.locator("#light-pad").get_by_label("Top").check()
    tab.locator("#light-pad").get_by_label("Painting").check()  # the strokes are still there
    expect(tab.locator("#light-canvas canvas").first).to_be_visible()
    tab.wait_for_timeout(1000)
    assert settled(tab, "#light-of-painting") == layout


def test_a_tint_and_the_settings_come_back_from_the_saved_picture(tab: Page, tmp_path: Path) -> None:
    tab.locator("#tint-on").get_by_role("checkbox").check()
    tab.locator("#luminance-on").get_by_role("checkbox").check()
    tab.locator("#luminance input[type=number]").fill("40")
    tab.locator("#light-pad").get_by_label("Top").check()
    tab.locator("#oms-prompt textarea, #oms-prompt input").fill("dark")
    image = generate(tab, seed=11, prompt="the sea")
    red, green, blue = np.asarray(image.convert("RGB"), float).mean((0, 1))
    assert blue > green > red and mean(image) == pytest.approx(40, abs=4)
    expect(tab.locator("#oms-figures")).to_contain_text(re.compile(r"tint asked #\w{6}, got #\w{6} \(ΔE00 \d"))
    source = tab.locator("#oms-image img").get_attribute("src")
    assert source is not None
    with urllib.request.urlopen(source, timeout=60) as file:
        (tmp_path / "saved.png").write_bytes(file.read())
    tab.evaluate("localStorage.removeItem('oms-studio-create'); sessionStorage.clear()")
    tab.goto(tab.url)
    expect(tab.locator(PROMPT)).not_to_have_value("the sea")
    tab.locator("#restore input[type=file]").set_input_files(tmp_path / "saved.png")
    expect(tab.locator(PROMPT)).to_have_value("the sea")
    expect(tab.locator("#tint-on").get_by_role("checkbox")).to_be_checked()
    expect(tab.locator("#luminance-on").get_by_role("checkbox")).to_be_checked()
    expect(tab.locator("#luminance input[type=number]")).to_have_value("40")
    expect(tab.locator("#light-pad").get_by_label("Top")).to_be_checked()
    expect(tab.locator("#seed input")).to_have_value("11")
    tab.get_by_role("button", name="Generate").click()
    expect(tab.locator("#summary")).to_contain_text("steps", timeout=PATIENCE)
    again = np.asarray(picture(tab, "oms").convert("RGB"), int)
    assert np.abs(again - np.asarray(image.convert("RGB"), int)).max() <= 1
    (tmp_path / "other.png").write_bytes(b"no picture")
    tab.locator("#restore input[type=file]").set_input_files(tmp_path / "other.png")
    expect(tab.get_by_text("other.png cannot be read as a picture")).to_be_visible()


@pytest.mark.shared_tab
def test_a_sweep_of_brightness_gets_lighter_and_opens_in_create(tab: Page) -> None:
    go_to(tab, "Explore")
    tab.get_by_label("Light × seed").check()
    tab.locator("#explore-dial-values textarea, #explore-dial-values input").fill("15, 75")
    tab.locator("#explore-dial-seeds input[type=number]").fill("1")
    tab.locator("#explore-seed input").fill("7")
    expect(tab.locator("#explore-plan")).to_contain_text("3 pictures")
    tab.locator("button#explore").click()
    cells = tab.locator("#explore-table button")
    expect(cells).to_have_count(3, timeout=PATIENCE)
    got = [float(re.findall(r"got ([\d.]+)", cell.inner_text())[0]) for cell in cells.all()[1:]]
    assert got == pytest.approx([15, 75], abs=3)
    expect(tab.locator("button#explore")).to_be_enabled(timeout=PATIENCE)
    cells.nth(2).click()
    expect(tab.locator("#luminance input[type=number]")).to_have_value("75")
    expect(tab.locator("#luminance-on").get_by_role("checkbox")).to_be_checked()
    expect(tab.locator("#oms-figures")).to_contain_text("brightness asked 75 %")


@pytest.mark.shared_tab
def test_compare_shows_the_dial_beside_the_others_with_asked_and_got(tab: Page) -> None:
    go_to(tab, "Compare")
    tab.locator("#compare-prompt textarea").fill("hills")
    boxes = tab.locator("#compare-methods")
    for box in boxes.get_by_role("checkbox").all():
        box.uncheck()
    boxes.get_by_label("Raw").check()
    boxes.get_by_label("Dial").check()
    unfold(tab.locator("#compare-settings"))
    tab.locator("#compare-luminance input").fill("25")
    tab.locator("button#compare").click()
    expect(tab.locator("#compared-figures-1")).to_contain_text("brightness asked 25 %, got 2", timeout=PATIENCE)
    expect(tab.locator("#compared-figures-0")).not_to_contain_text("asked")


def test_the_endpoint_sets_the_light_and_answers_with_asked_and_got(page: str) -> None:
    studio = Client(page, verbose=False)
    answer = studio.predict(prompt="mountains", luminance=20, light="left", seed=7, api_name="/generate")
    raw, dial = answer["images"]
    assert (raw["variant"], dial["variant"], raw["reached"]) == ("raw", "dial", [])
    brightness, light = dial["reached"]
    assert (brightness["what"], brightness["asked"]) == ("brightness", 20.0)
    with Image.open(dial["image"]) as image:
        assert brightness["got"] == pytest.approx(mean(image), abs=0.02)
    assert brightness["difference"] <= 3 and brightness["got"] == pytest.approx(dial["mean"] / 2.55, abs=0.02)
    assert light["asked"] == "left" and light["got"] > 5
    dark, bright = (
        studio.predict(prompt="mountains", luminance=level, seed=7, api_name="/preview")["mean"] for level in (15, 80)
    )
    assert dark < bright
    for settings, said in (
        ({"luminance": 120}, "luminance is 120"),
        ({"light": "/etc/passwd"}, "light is /etc/passwd: choose one of left"),
        ({"tint": "blue"}, "tint is blue: write #rrggbb"),
        ({"tint_strength": 0.5}, "there is no tint"),
    ):
        with pytest.raises(AppError) as error:
            studio.predict(prompt="mountains", api_name="/generate", **settings)
        assert said in str(error.value) and "\n" not in str(error.value)
    studio.close()
