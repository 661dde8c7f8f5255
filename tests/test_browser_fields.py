"""Numbers that are typed out of range in a real browser: nothing is refused or changed without a word."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, browser, go_to, picture, shared_tab, short, tab

pytestmark = pytest.mark.browser
__all__ = ["browser", "shared_tab", "tab"]  # fixtures of this module too


@pytest.mark.shared_tab
def test_a_number_outside_its_slider_is_told_and_the_nearest_one_is_used(tab: Page) -> None:
    tab.get_by_role("tab", name="Create").click()
    refused: list[str] = []
    tab.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    field, line = tab.locator("#oms-cfg input[type=number]"), tab.locator("#oms-cfg .oms-range")
    field.fill("10")
    tab.locator("#prompt textarea").fill("sunlight mountains")
    expect(tab.locator("#words")).to_contain_text("does not know sunlight", timeout=PATIENCE)
    expect(tab.locator("#pictures.oms-updating")).to_have_count(0)
    field.fill("10")
    field.press("Tab")
    expect(line).to_have_text("OMS CFG goes from 0 to 4: 10 became 4.")
    expect(field).to_have_value("4")
    tab.locator("#oms-cfg input[type=range]").press("ArrowLeft")
    expect(line).to_have_count(0)
    expect(field).to_have_value("3.9")
    field.fill("")
    field.press("Tab")
    expect(line).to_have_text("OMS CFG was empty: 3.9 is kept.")
    tab.locator("#warmth input[type=number]").fill("-7")
    tab.locator("#warmth input[type=number]").press("Tab")
    expect(tab.locator("#warmth .oms-range")).to_have_text("Warmth goes from -1 to 1: -7 became -1.")
    tab.locator("#seed input").fill("1.5")
    tab.locator("#seed input").press("Tab")
    expect(tab.locator("#seed .oms-range")).to_have_text("Seed takes whole numbers: 1.5 is rounded.")
    tab.locator("#seed input").fill("-5")
    tab.get_by_role("button", name="Generate").click()
    expect(tab.locator("#status")).to_contain_text("Seed is -5: take 0 to 4294967295, or -1 for a random one")
    go_to(tab, "Explore")
    tab.get_by_label("Seeds", exact=True).first.check()
    count = tab.locator("#explore-seed-count input[type=number]")
    count.fill("99")
    count.press("Tab")
    expect(tab.locator("#explore-seed-count .oms-range")).to_have_text("Seeds goes from 1 to 16: 99 became 16.")
    expect(tab.locator("#explore-plan")).to_contain_text("16 pictures")
    assert refused == []


@pytest.mark.shared_tab
def test_generate_by_key_from_a_number_out_of_range_uses_the_one_that_is_told(tab: Page) -> None:
    tab.get_by_role("tab", name="Create").click()
    short(tab)
    tab.locator("#seed input").fill("7")
    before = tab.locator("#oms-image img").get_attribute("src") or ""
    field = tab.locator("#oms-cfg input[type=number]")
    field.fill("10")
    field.press("Control+Enter")
    expect(tab.locator("#oms-cfg .oms-range")).to_have_text("OMS CFG goes from 0 to 4: 10 became 4.")
    expect(field).to_be_focused()
    expect(tab.locator("#oms-image img")).not_to_have_attribute("src", before, timeout=PATIENCE)
    expect(tab.locator("#summary")).to_contain_text("4 steps")
    assert '"guidance_scale": 4.0' in picture(tab, "oms").info["oms_studio"]
