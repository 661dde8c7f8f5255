"""The first screen in a real browser, with the embedded model: a finished pair, its settings, and room for both."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect
from test_browser import PATIENCE, PROMPT, browser, picture

from oms_app.paths import EMBEDDED_FOLDER

pytestmark = pytest.mark.browser
__all__ = ["browser"]  # a fixture of this module too
SHIFT = """window.shift = 0; new PerformanceObserver(list => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({type: 'layout-shift', buffered: true});"""
DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def fresh(request: pytest.FixtureRequest, browser: Browser, page: str) -> Iterator[Page]:
    """The page as a new visitor opens it."""
    context = browser.new_context(viewport=request.param)
    view = context.new_page()
    broken: list[str] = []
    view.on("pageerror", lambda error: broken.append(str(error)))
    view.set_default_timeout(30_000)
    view.add_init_script(SHIFT)
    view.goto(page)
    expect(view.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
    yield view
    context.close()
    assert broken == []


def on_screen(view: Page, selector: str) -> bool:
    """Whether all of the first such element is on the screen."""
    box = view.locator(selector).first.bounding_box()
    assert box is not None and view.viewport_size is not None, selector
    return box["y"] >= 0 and box["y"] + box["height"] <= view.viewport_size["height"] + 1


def test_it_opens_with_a_finished_pair_that_its_settings_make_again(fresh: Page) -> None:
    first = json.loads((EMBEDDED_FOLDER / "examples/examples.json").read_text())[0]
    expect(fresh.locator(PROMPT)).to_have_value(first["prompt"])
    expect(fresh.locator("#oms-prompt").get_by_role("textbox")).to_have_value(first["oms_prompt"])
    expect(fresh.locator("#slider img").first).to_be_visible()
    assert on_screen(fresh, "#slider")
    expect(fresh.locator("#status")).to_contain_text("Move the divider")
    fresh.wait_for_timeout(1500)
    assert fresh.evaluate("window.shift") <= 0.05
    opened = {name: picture(fresh, name) for name in ("raw", "oms")}
    for name, image in opened.items():
        with Image.open(EMBEDDED_FOLDER / "examples" / first[name]) as file:
            assert np.abs(np.asarray(image, int) - np.asarray(file.convert("RGB"), int)).max() <= 1, name
    fresh.locator("#generate").click()
    expect(fresh.locator("#summary")).to_contain_text("20 steps", timeout=PATIENCE)
    for name, image in opened.items():
        again = np.asarray(picture(fresh, name).convert("RGB"), int)
        assert np.abs(again - np.asarray(image, int)).max() <= 1, name
    assert on_screen(fresh, "#slider"), "the OMS picture is on the screen after Generate"


def test_prompt_light_generate_and_both_pictures_are_on_the_screen_together(fresh: Page) -> None:
    assert fresh.viewport_size is not None
    if fresh.viewport_size["width"] < 800:
        pytest.skip("a desk's screen")
    for selector in ("#prompt", "#generate", "#oms-prompt", "#oms-cfg", "#luminance", "#tint", "#warmth", "#light-pad",
                     "#slider", "#raw-image", "#oms-image"):  # fmt: skip
        assert on_screen(fresh, selector), selector
    for name in ("raw", "oms"):
        box = fresh.locator(f"#{name}-image").bounding_box()
        assert box is not None and box["width"] >= 220
    fresh.locator("#restore").scroll_into_view_if_needed()
    fresh.mouse.wheel(0, 300)
    fresh.wait_for_timeout(300)
    assert fresh.evaluate("scrollY") > 200
    assert on_screen(fresh, "#slider"), "the pictures stay while the settings scroll"


def test_a_warm_server_shows_the_pair_and_takes_a_prompt_within_two_seconds(browser: Browser, page: str) -> None:
    seconds = []
    for _ in range(3):
        context = browser.new_context(viewport=DESK)
        view = context.new_page()
        began = time.monotonic()
        view.goto(page, wait_until="commit")
        view.locator("#slider img").first.wait_for()
        view.locator(PROMPT).fill("sea")
        expect(view.locator("#generate")).to_be_enabled()
        seconds.append(time.monotonic() - began)
        context.close()
    assert min(seconds) <= 2.0, seconds
