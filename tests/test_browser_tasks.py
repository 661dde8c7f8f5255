"""Ten tasks that must be easy, each as a person does it in a real browser, with Lumen."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, PROMPT, browser, go_to, picture, shared_tab, short, tab, unfold
from test_browser_history import drop, gallery, generate
from test_browser_light import mean

pytestmark = pytest.mark.browser
__all__ = ["browser", "shared_tab", "tab"]  # fixtures of this module too


def painted(view: Page) -> tuple[Image.Image, Image.Image]:
    """The raw and the right picture after a click on Generate."""
    before = view.locator("#oms-image img").get_attribute("src") or ""
    view.locator("#generate").click()
    expect(view.locator("#oms-image img")).not_to_have_attribute("src", before, timeout=PATIENCE)
    expect(view.locator("#generate")).to_be_enabled(timeout=PATIENCE)
    return picture(view, "raw"), picture(view, "oms")


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), float)


def same(one: Image.Image, other: Image.Image) -> bool:
    return bool(np.abs(rgb(one) - rgb(other)).max() <= 1)


@pytest.mark.shared_tab
def test_1_the_same_scene_gets_darker_in_two_actions(tab: Page) -> None:
    """The file's first test: the shared tab is as it was opened."""
    expect(tab.locator(".oms-both")).to_be_visible()
    prompt, seed = tab.locator(PROMPT).input_value(), tab.locator("#seed input").input_value()
    before = picture(tab, "oms")
    slider = tab.get_by_label("range slider for Mean brightness")
    for control in (slider, tab.locator("#generate"), tab.locator("#oms-image")):
        expect(control).to_be_in_viewport(ratio=1)  # without scrolling
    slider.press("Home")
    raw, oms = painted(tab)
    assert mean(oms) < mean(before) - 5
    assert tab.locator(PROMPT).input_value() == prompt and tab.locator("#seed input").input_value() == seed
    edges = [np.abs(np.diff(rgb(one).mean(2), axis=1))[:, 20:-20] for one in (raw, before)]
    assert np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1] > 0.2, "the same scene"


@pytest.mark.shared_tab
def test_2_the_same_scene_in_a_warm_sunset(tab: Page) -> None:
    short(tab)
    tab.locator(PROMPT).fill("mountains")
    tab.locator("#light-pad").get_by_label("Off").check()
    tab.locator("#luminance-on input").uncheck()
    tab.locator("#oms-prompt").get_by_role("textbox").fill("sunset")
    raw, oms = painted(tab)
    red, blue = ((rgb(one)[..., 0] - rgb(one)[..., 2]).mean() for one in (oms, raw))
    assert red > blue + 10, "warmer than the raw one"
    expect(tab.locator(PROMPT)).to_have_value("mountains")


@pytest.mark.shared_tab
def test_3_yesterdays_picture_is_found_after_a_reload_and_continued(tab: Page) -> None:
    short(tab)
    generate(tab, "a red circle", "dark")
    before = picture(tab, "oms")
    generate(tab, "snow")
    said = tab.locator("#history-strip").inner_text()
    folder = Path(said.partition("Saved in ")[2].strip())
    for path in folder.glob("*.png"):
        yesterday = path.stat().st_mtime - 24 * 60 * 60
        os.utime(path, (yesterday, yesterday))
    tab.reload()
    expect(tab.locator("#summary")).to_contain_text("snow")
    expect(tab.locator("#summary")).to_contain_text("from the history")
    expect(tab.locator("#raw-image img")).to_be_visible()
    gallery(tab)
    tab.locator("#gallery-words").get_by_role("textbox").fill("circle red")
    expect(tab.locator("#gallery-count")).to_contain_text("1 to 1 of 1 picture.")
    tab.locator(".oms-open").click()
    expect(tab.locator(PROMPT)).to_have_value("a red circle")
    expect(tab.locator("#oms-prompt").get_by_role("textbox")).to_have_value("dark")
    expect(tab.locator("#raw-image img")).to_be_visible()
    assert picture(tab, "oms").tobytes() == before.tobytes()
    _, again = painted(tab)
    assert same(again, before), "painted again, it is the same"


@pytest.mark.shared_tab
def test_4_three_strengths_are_compared(tab: Page) -> None:
    tab.locator(PROMPT).fill("mountains")
    tab.locator("#create-to-explore").click()
    tab.locator("#explore-prompts textarea").fill("night")
    tab.locator("#explore-scales").get_by_role("textbox").fill("0.5, 1, 2")
    unfold(tab.locator("#explore-settings"))
    tab.locator("#explore-steps input").fill("4")
    expect(tab.locator("#explore-plan")).to_contain_text("4 pictures")
    tab.locator("button#explore").click()
    cells = tab.locator("#explore-table button")
    expect(cells).to_have_count(4, timeout=PATIENCE)
    light = [int(re.findall(r"L\* (\d+)", cell.inner_text())[0]) for cell in cells.all()]
    assert light[1] > light[3] and light[0] > light[3], light
    expect(tab.locator("#explore-table")).to_contain_text("OMS CFG 0.5")
    go_to(tab, "Create")


@pytest.mark.shared_tab
def test_5_a_downloaded_picture_is_dropped_and_its_settings_come_back(tab: Page, tmp_path: Path) -> None:
    short(tab)
    generate(tab, "green forest", "dark")
    seed = tab.locator("#seed input").input_value()
    with tab.expect_download() as download:
        tab.locator("#oms-image").get_by_label("Download").click()
    saved = tmp_path / "saved.png"
    download.value.save_as(saved)
    tab.locator(PROMPT).fill("something else")
    tab.locator("#oms-prompt").get_by_role("textbox").fill("light")
    for target in ("#summary", "#raw-image"):  # anywhere, and twice
        drop(tab, saved, target)
        expect(tab.locator(PROMPT)).to_have_value("green forest")
        expect(tab.locator("#oms-prompt").get_by_role("textbox")).to_have_value("dark")
        expect(tab.locator("#seed input")).to_have_value(seed)
        expect(tab.locator("#summary")).to_contain_text("from a saved picture")
        tab.locator(PROMPT).fill("something else")
    expect(tab.locator("#restore input[type=file]")).to_have_count(1)


@pytest.mark.shared_tab
def test_6_the_seed_stays_and_only_the_oms_prompt_changes(tab: Page) -> None:
    short(tab)
    tab.locator("#seed input").fill("11")
    raw, oms = painted(tab)
    tab.locator("#oms-prompt").get_by_role("textbox").fill("fog")
    raw_again, other = painted(tab)
    expect(tab.locator("#seed input")).to_have_value("11")
    assert same(raw, raw_again) and not same(oms, other)


@pytest.mark.shared_tab
def test_7_exactly_20_percent(tab: Page) -> None:
    short(tab)
    tab.locator(PROMPT).fill("mountains")
    tab.locator("#light-pad").get_by_label("Off").check()
    tab.locator("#seed input").fill("5")
    tab.locator("#luminance input[type=number]").fill("20")
    tab.locator("#exact").get_by_role("checkbox").check()
    _, oms = painted(tab)
    assert mean(oms) == pytest.approx(20, abs=0.5)
    expect(tab.locator("#oms-figures")).to_contain_text(
        re.compile(r"brightness asked 20 %, got (19\.[5-9]|20\.[0-5]) %")
    )
    tab.locator("#exact").get_by_role("checkbox").uncheck()


@pytest.mark.shared_tab
def test_8_light_from_the_left(tab: Page) -> None:
    short(tab)
    tab.locator("#luminance-on input").uncheck()
    tab.locator(PROMPT).fill("hills, light from the left")
    tab.locator("#words").get_by_role("button", name="set the light to left").click(timeout=PATIENCE)
    expect(tab.locator(PROMPT)).to_have_value("hills")
    expect(tab.locator("#light-pad").get_by_label("Left")).to_be_checked()
    _, oms = painted(tab)
    values = rgb(oms).mean(2)
    assert values[:, :128].mean() > values[:, 128:].mean() + 20


@pytest.mark.shared_tab
def test_9_four_seeds_at_once_and_one_is_chosen(tab: Page) -> None:
    short(tab)
    tab.locator("#seed input").fill("30")
    tab.locator("#count input[type=number]").fill("4")
    generate(tab, "four hills")
    strip = tab.locator("#history-strip button[title*='four hills']")
    expect(strip).to_have_count(4)
    titles = [strip.nth(i).get_attribute("title") or "" for i in range(4)]
    assert all(any(f"seed {30 + i}" in title for title in titles) for i in range(4)), titles
    strip.nth(next(i for i, title in enumerate(titles) if "seed 32" in title)).click()
    expect(tab.locator("#seed input")).to_have_value("32")
    expect(tab.locator("#summary")).to_contain_text("from the history")
    expect(tab.locator("#count input[type=number]")).to_have_value("1")
    chosen = picture(tab, "oms")
    _, again = painted(tab)
    assert same(again, chosen)


def test_10_a_grid_is_stopped_and_kept_then_undo_and_reset(tab: Page) -> None:
    opened = tab.locator(PROMPT).input_value()
    go_to(tab, "Explore")
    tab.get_by_label("OMS slider × seed").check()
    unfold(tab.locator("#explore-settings"))
    tab.locator("#explore-steps input").fill("30")
    tab.get_by_role("button", name="Generate grid").click()
    tab.locator("#explore-table button").first.wait_for(timeout=PATIENCE)
    tab.keyboard.press("Escape")
    expect(tab.locator("#explore-status")).to_contain_text(re.compile(r"Stopped\. \d+ of 18 pictures are kept"))
    kept = tab.locator("#explore-table button").count()
    assert 0 < kept < 18 and tab.locator(".oms-pending").count() == 18 - kept
    expect(tab.get_by_role("button", name="Generate grid")).to_be_enabled()
    with tab.expect_download():
        tab.get_by_text("Download sheet").click()
    go_to(tab, "Create")
    past = int(tab.evaluate("settingsHistory.past.length"))
    for number, text in enumerate(("the sea", "the city"), 1):
        tab.locator(PROMPT).fill(text)
        tab.wait_for_function("past => settingsHistory.past.length === past", arg=past + number)
    tab.locator("#undo").click()
    expect(tab.locator(PROMPT)).to_have_value("the sea")
    tab.locator("#oms-cfg input[type=number]").fill("3")
    tab.locator("#reset").click()
    expect(tab.locator(PROMPT)).to_have_value(opened)
    expect(tab.locator("#oms-cfg input[type=number]")).to_have_value("1")
