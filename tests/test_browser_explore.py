"""Looks and grids as a person uses them, in a real browser, with tiny models: some of them cannot be corrected."""

from __future__ import annotations

import io
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, PROMPT, browser, go_to, opened, picture, unfold

pytestmark = pytest.mark.browser
__all__ = ["browser"]  # a fixture of this module too


@pytest.fixture(scope="module")
def shared_tab(browser, tiny_page: str) -> Iterator[Page]:  # type: ignore[no-untyped-def]
    with opened(browser, tiny_page, 1280, 900) as view:
        yield view


@pytest.fixture
def tab(request: pytest.FixtureRequest, browser, tiny_page: str) -> Iterator[Page]:  # type: ignore[no-untyped-def]
    if request.node.get_closest_marker("shared_tab"):
        yield request.getfixturevalue("shared_tab")
        return
    with opened(browser, tiny_page, 1280, 900) as view:
        yield view


def explore(view: Page, prompt: str) -> None:
    go_to(view, "Explore")
    view.locator("#explore-prompt textarea").fill(prompt)
    view.locator("#explore-seed input").fill("7")


def cell(view: Page, row: int, column: int):  # type: ignore[no-untyped-def]
    return view.locator(f"#explore-table [data-row='{row}'][data-column='{column}']")


@pytest.mark.shared_tab
def test_a_look_fills_in_the_fields_and_goes_around_the_prompt(tab: Page) -> None:
    prompt = tab.locator(PROMPT)
    prompt.fill("sea")
    tab.locator('[data-look="night"]').click()
    expect(prompt).to_have_value("sea at night")
    expect(tab.locator("#oms-prompt").get_by_role("textbox")).to_have_value("night")
    tab.locator('[data-look="twilight"]').click()
    expect(prompt).to_have_value("sea at twilight")
    expect(tab.get_by_label("Left end").first).to_have_value("dark")
    expect(tab.locator("#oms-mix input[type=number]")).to_have_value("0.35")
    expect(tab.locator("#status")).to_contain_text("The look Twilight is set")
    tab.locator('[data-look="plain"]').click()
    expect(tab.locator("#oms-prompt").get_by_role("textbox")).to_have_value("")
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "the page scrolls sideways on a phone"
    tab.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.shared_tab
def test_settings_are_kept_as_a_look_at_once_and_for_the_next_visit(tab: Page, tiny_home: Path) -> None:
    tab.locator(PROMPT).fill("city")
    tab.locator('[data-look="neon"]').click()
    expect(tab.locator(PROMPT)).to_have_value("city neon light")
    unfold(tab.locator("#look-save"))
    title, save, status = tab.locator("#look-title").get_by_role("textbox"), tab.locator("#look-keep"), "#look-status"
    for wrong, said in (("", "has no name yet"), ("Neon", "exists already"), ("../x", "is not a valid name of a look")):
        title.fill(wrong)
        save.click()
        expect(tab.locator(status).get_by_role("alert")).to_contain_text(said)
        expect(title).to_have_value(wrong)
    title.fill("My neon")
    save.click()
    expect(tab.locator(status)).to_contain_text("Saved: My neon")
    expect(tab.locator('[data-look="my-neon"]')).to_have_count(1)
    kept = json.loads((tiny_home / "looks/my-neon.json").read_text(encoding="utf-8"))
    assert (kept["suffix"], kept["oms_prompt_b"], kept["mix"]) == ("neon light", "pink", 0.3)
    tab.reload()
    expect(tab.locator('[data-look="my-neon"]')).to_have_count(1)
    tab.locator('[data-look="my-neon"]').click()
    expect(tab.locator(PROMPT)).to_have_value("city neon light")


@pytest.mark.shared_tab
def test_a_grid_that_is_not_too_large_is_painted_and_a_cell_opens_in_create(tab: Page) -> None:
    explore(tab, "red sea")
    tab.locator("#explore-prompts textarea").fill("\n".join(f"night {i}" for i in range(20)))
    tab.get_by_role("button", name="Generate grid").click()
    expect(tab.locator("#explore-status").get_by_role("alert")).to_contain_text("a grid has at most 48")
    tab.locator("#explore-prompts textarea").fill("dark\nlight")
    tab.locator("#explore-scales").get_by_role("textbox").fill("1, 2")
    expect(tab.locator("#explore-plan")).to_contain_text("6 pictures")
    tab.locator("#explore-prompt textarea").press("Control+Enter")
    expect(tab.locator("#explore-table button")).to_have_count(6, timeout=PATIENCE)
    expect(tab.get_by_role("button", name="Generate grid")).to_be_enabled()
    expect(tab.locator("#explore-plan")).to_contain_text(re.compile(r"6 pictures, about \d+ s"))
    with tab.expect_download() as download:
        tab.get_by_text("Download sheet").click()
    with Image.open(download.value.path()) as sheet:
        sheet.load()
        assert json.loads(sheet.info["oms_studio_sheet"])["rows"] == ["dark", "light"]
    address = cell(tab, 1, 2).locator("img").get_attribute("src")
    with urllib.request.urlopen(f"{tab.url.rstrip('/')}/{address}", timeout=60) as file:
        small = Image.open(io.BytesIO(file.read())).convert("RGB")
    cell(tab, 1, 2).click()
    expect(tab.locator("#summary")).to_contain_text("from Explore")
    expect(tab.locator(PROMPT)).to_have_value("red sea")
    expect(tab.locator("#oms-prompt").get_by_role("textbox")).to_have_value("light")
    expect(tab.locator("#oms-cfg input[type=number]")).to_have_value("2")
    expect(tab.locator("#seed input")).to_have_value("7")
    shown = picture(tab, "oms")
    assert shown.convert("RGB").tobytes() == small.tobytes(), "the picture of the cell is shown"
    assert json.loads(shown.info["oms_studio"])["variant"] == "oms 2"
    tab.get_by_role("button", name="Generate").click()
    expect(tab.locator("#summary")).to_contain_text("4 steps", timeout=PATIENCE)
    assert picture(tab, "oms").convert("RGB").tobytes() == small.tobytes(), "painted again, it is the same"


@pytest.mark.shared_tab
def test_a_cell_that_fails_says_why_and_leaves_the_others(tab: Page) -> None:
    explore(tab, "mountains")
    tab.get_by_label("Looks × models").check()
    models = tab.locator("#explore-models")
    expect(models).to_be_visible()
    for title in ("Zero SNR", "Flow"):
        models.get_by_label(title).check()
    expect(tab.locator("#explore-plan")).to_contain_text("15 pictures")
    tab.get_by_role("button", name="Generate grid").click()
    expect(tab.locator("#explore-status")).to_contain_text("10 pictures failed", timeout=PATIENCE)
    expect(tab.locator("#explore-table button")).to_have_count(5)
    expect(tab.locator(".oms-failed")).to_have_count(10)
    expect(tab.locator(".oms-failed").filter(has_text="flow-matching")).to_have_count(5)
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "the page scrolls sideways on a phone"
    tab.set_viewport_size({"width": 1280, "height": 900})
    cell(tab, 1, 0).click()
    expect(tab.locator(PROMPT)).to_have_value("mountains in fog")


@pytest.mark.shared_tab
def test_a_grid_of_seeds_and_one_of_any_two_settings(tab: Page) -> None:
    explore(tab, "red sea")
    tab.get_by_label("Seeds", exact=True).first.check()
    expect(tab.locator("#explore-plan")).to_contain_text("4 pictures")
    tab.get_by_role("button", name="Generate grid").click()
    expect(tab.locator("#explore-table button")).to_have_count(4, timeout=PATIENCE)
    expect(tab.get_by_role("button", name="Generate grid")).to_be_enabled()
    cell(tab, 0, 2).click()
    expect(tab.locator("#seed input")).to_have_value("9")
    go_to(tab, "Explore")
    tab.get_by_label("Any two settings").check()
    expect(tab.locator("#explore-row-field")).to_be_visible()
    unfold(tab.locator("#explore-settings"))
    tab.locator("#explore-width input").fill("72")
    expect(tab.locator("#explore-plan")).to_contain_text("9 pictures")
    tab.locator("#explore-column-values textarea").fill("-1, 1")
    expect(tab.locator("#explore-plan")).to_contain_text("6 pictures")
    tab.get_by_role("button", name="Generate grid").click()
    expect(tab.locator("#explore-table button")).to_have_count(6, timeout=PATIENCE)
    expect(tab.locator("#explore-table")).to_contain_text("Mean brightness 80")
    cell(tab, 2, 1).click()
    expect(tab.locator("#luminance input[type=number]")).to_have_value("80")
    expect(tab.locator("#warmth input[type=number]")).to_have_value("1")
    assert picture(tab, "oms").size == (72, 64)
    expect(tab.get_by_role("button", name="Difference")).to_be_disabled()  # the raw one is not there
    tab.locator("#examples button").first.click()
    expect(tab.get_by_role("button", name="Difference")).to_be_enabled()


def test_a_model_comes_with_its_settings_and_is_undone_with_them(tab: Page) -> None:
    def shows(model: str, width: int, steps: int) -> None:
        expect(tab.locator("#model input")).to_have_value(model)
        expect(tab.get_by_label("Width").first).to_have_value(str(width))
        expect(tab.locator("#steps input")).to_have_value(str(steps))

    unfold(tab.locator("#settings"))
    tab.get_by_label("Width").first.fill("80")
    tab.wait_for_function("() => JSON.parse(settingsHistory.now ?? '[]').includes(80)")
    past = tab.evaluate("settingsHistory.past.length")
    spread = tab.locator("#spread input[type=range]")
    expect(spread).to_be_enabled()
    tab.locator("#model input").click()
    tab.get_by_role("option", name="Flow").click()
    shows("Flow", 96, 7)
    expect(spread).to_be_disabled()
    expect(tab.locator("#spread")).to_contain_text("No OMS module for flow has a spread head.")
    tab.wait_for_function("past => settingsHistory.past.length > past", arg=past)
    assert tab.evaluate("settingsHistory.past.length") == past + 1, "model and settings are one step"
    tab.locator("#undo").click()
    shows("Tiny", 80, 4)
    expect(spread).to_be_enabled()
    tab.wait_for_timeout(500)  # nothing comes after it
    shows("Tiny", 80, 4)


def test_prompt_seed_and_model_go_to_the_other_tabs_and_back(tab: Page) -> None:
    def is_open(name: str) -> None:
        expect(tab.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")

    tab.locator(PROMPT).fill("red sea")
    tab.locator("#seed input").fill("77")
    tab.locator("#create-to-explore").click()
    is_open("Explore")
    expect(tab.locator("#explore-prompt textarea")).to_have_value("red sea")
    expect(tab.locator("#explore-seed input")).to_have_value("77")
    expect(tab.locator("#explore-plan")).to_contain_text("15 pictures")  # of the new prompt: nothing is missing
    tab.locator("#explore-prompt textarea").fill("blue sea")
    tab.locator("#explore-seed input").fill("78")
    unfold(tab.locator("#explore-settings"))
    tab.locator("#explore-model input").click()
    tab.get_by_role("option", name="Zero SNR").click()
    chosen = tab.locator("#explore-model input").input_value()
    tab.locator("#explore-to-compare").click()
    is_open("Compare")
    expect(tab.locator("#compare-prompt textarea")).to_have_value("blue sea")
    expect(tab.locator("#compare-seed input")).to_have_value("78")
    expect(tab.locator("#compare-models input:checked")).to_have_count(1)
    expect(tab.locator("#compare-models").get_by_label(chosen)).to_be_checked()
    tab.locator("#compare-to-create").click()
    is_open("Create")
    expect(tab.locator(PROMPT)).to_have_value("blue sea")
    expect(tab.locator("#seed input")).to_have_value("78")
    unfold(tab.locator("#settings"))
    expect(tab.locator("#model input")).to_have_value(chosen)
    tab.locator("#oms-cfg input[type=number]").fill("2")
    tab.locator("#create-to-compare").click()
    is_open("Compare")
    expect(tab.locator("#compare-models input:checked")).to_have_count(1)
    expect(tab.locator("#compare-models").get_by_label(chosen)).to_be_checked()
    tab.locator("#compare-to-create").click()
    is_open("Create")
    expect(tab.locator("#model input")).to_have_value(chosen)
    expect(tab.locator("#oms-cfg input[type=number]")).to_have_value("2")  # what is not sent stays
