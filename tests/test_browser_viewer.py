"""The pictures of Create one over the other in a real browser: zoom and pan for all, the divider, the difference."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Page, expect
from test_browser import browser, picture, shared_tab, tab

pytestmark = pytest.mark.browser
__all__ = ["browser", "shared_tab", "tab"]  # fixtures of this module too

VIEWED, PANEL = ".oms-view-oms img", "#oms-image img"


def width(view: Page, selector: str) -> float:
    box = view.locator(selector).bounding_box()
    assert box is not None
    return box["width"]


def begin(view: Page) -> None:
    """The two pictures as they are shown first, whatever the tests before have done."""
    expect(view.locator(".oms-both")).to_be_visible()
    view.evaluate("scrollTo(0, 0)")
    view.get_by_role("button", name="Fit", exact=True).click()
    view.locator(".oms-view-frame input").fill("50")


def moved(view: Page, selector: str) -> float:
    """How far a picture's middle is from its frame's, in widths of the unzoomed picture."""
    found: float = view.locator(selector).evaluate(
        """image => {
            const middle = element => { const box = element.getBoundingClientRect(); return box.x + box.width / 2; };
            return (middle(image) - middle(image.parentElement)) / image.offsetWidth;
        }"""
    )
    return found


@pytest.mark.shared_tab
def test_all_pictures_zoom_and_move_together_by_keyboard_and_mouse(tab: Page) -> None:
    divider, percent = tab.locator(".oms-view-frame input"), tab.locator(".oms-view-bar output")
    begin(tab)
    assert width(tab, VIEWED) == pytest.approx(512, abs=1), "256 pixels are enlarged twice at most"
    expect(percent).to_have_text("200 %")
    small = width(tab, PANEL)
    tab.locator(".oms-view-bar [data-do=full]").focus()
    tab.keyboard.press("Tab")
    expect(divider).to_be_focused()
    tab.keyboard.press("+")
    expect(percent).to_have_text("300 %")
    tab.keyboard.press("Shift+ArrowRight")
    for selector in (VIEWED, ".oms-view-raw img", PANEL, "#raw-image img"):
        assert moved(tab, selector) == pytest.approx(-0.1, abs=0.01), selector
    assert width(tab, PANEL) == pytest.approx(1.5 * small, abs=1)
    box = tab.locator(".oms-view-frame").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 40, y, steps=4)
    tab.mouse.up()
    assert moved(tab, PANEL) == pytest.approx(40 / 512 - 0.1, abs=0.02), "a zoomed picture is dragged"
    tab.mouse.wheel(0, 100)
    expect(percent).to_have_text("300 %")  # the wheel scrolls the page
    tab.get_by_role("button", name="Fit", exact=True).click()
    expect(percent).to_have_text("200 %")
    assert moved(tab, PANEL) == pytest.approx(0, abs=0.01)
    divider.focus()
    tab.keyboard.press("1")
    expect(percent).to_have_text("100 %")
    assert width(tab, VIEWED) == pytest.approx(256, abs=1)


@pytest.mark.shared_tab
def test_the_divider_moves_by_keyboard_and_mouse_over_a_neutral_ground(tab: Page) -> None:
    frame, divider = tab.locator(".oms-view-frame"), tab.locator(".oms-view-frame input")
    begin(tab)
    divider.focus()
    tab.keyboard.press("Home")
    expect(divider).to_have_value("0")
    only_oms = np.asarray(Image.open(io.BytesIO(frame.screenshot())).convert("RGB"), float)
    tab.keyboard.press("End")
    only_raw = np.asarray(Image.open(io.BytesIO(frame.screenshot())).convert("RGB"), float)
    middle = np.s_[100:-100, 100:-100]
    for shown, name in ((only_oms, "oms"), (only_raw, "raw")):
        inside = np.asarray(picture(tab, name).convert("RGB"), float)[40:-40, 40:-40]
        assert shown[middle].mean((0, 1)) == pytest.approx(inside.mean((0, 1)), abs=6), name
        assert set(map(tuple, shown[40:200, 12])) == {(119, 119, 119)}, "neutral grey around the picture"
    box = frame.bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 200)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 4, box["y"] + 200, steps=4)
    tab.mouse.up()
    expect(divider).to_have_value("25")


@pytest.mark.shared_tab
def test_the_difference_of_the_two_is_shown(tab: Page) -> None:
    begin(tab)
    tab.locator(".oms-view-frame input").focus()
    tab.keyboard.press("1")
    expect(tab.locator(".oms-view-bar output")).to_have_text("100 %")
    button = tab.get_by_role("button", name="Difference")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    shown = np.asarray(Image.open(io.BytesIO(tab.locator(VIEWED).screenshot())).convert("RGB"), float)[2:254, 2:254]
    raw, oms = picture(tab, "raw").convert("RGB"), picture(tab, "oms").convert("RGB")
    wanted = np.asarray(ImageChops.difference(raw, oms), float)[2:254, 2:254]
    assert np.abs(shown - wanted).mean() < 3
    assert wanted.mean() > 10, "the two differ, so that the comparison says something"
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
