"""Saved pictures as a person finds them again, in a real browser, with tiny models."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import running_app
from foreign_samples import PROMPT as FOREIGN
from foreign_samples import a1111_jpeg, comfyui
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, PROMPT, browser, go_to, opened

from oms_app.ui.markup import own

pytestmark = pytest.mark.browser
__all__ = ["browser"]  # a fixture of this module too


@pytest.fixture(scope="module")
def shared_tab(browser, tiny_page: str) -> Iterator[Page]:  # type: ignore[no-untyped-def]
    with opened(browser, tiny_page, 1280, 800) as view:
        yield view


@pytest.fixture
def tab(request: pytest.FixtureRequest, browser, tiny_page: str) -> Iterator[Page]:  # type: ignore[no-untyped-def]
    if request.node.get_closest_marker("shared_tab"):
        yield request.getfixturevalue("shared_tab")
        return
    with opened(browser, tiny_page, 1280, 800) as view:
        yield view


def generate(view: Page, prompt: str, oms_prompt: str = "") -> None:
    view.get_by_role("tab", name="Create").click()
    view.locator(PROMPT).fill(prompt)
    view.locator("#oms-prompt").get_by_role("textbox").fill(oms_prompt)
    view.locator("#generate").click()
    expect(view.locator("#summary")).to_contain_text(prompt, timeout=PATIENCE)
    expect(view.locator("#generate")).to_be_enabled()
    expect(view.locator("#history-strip [aria-current]")).to_have_attribute("title", re.compile(f"^{own(prompt)} ·"))


def gallery(view: Page) -> None:
    go_to(view, "Gallery")
    expect(view.locator("#gallery-cards .oms-kept")).to_be_visible()


def drop(view: Page, path: Path, target: str) -> None:
    """Drops a file on an element, as a hand with a mouse does."""
    content, name = base64.b64encode(path.read_bytes()).decode(), path.name
    kind = "image/jpeg" if path.suffix == ".jpg" else "image/png"
    view.locator(target).first.evaluate(
        """(element, [content, name, type]) => {
            const bytes = Uint8Array.from(atob(content), one => one.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, {type}));
            for (const kind of ['dragenter', 'dragover', 'drop'])
                element.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer}));
        }""",
        [content, name, kind],
    )


def test_pictures_of_other_programs_fill_the_fields_and_say_what_is_missing(tab: Page, tmp_path: Path) -> None:
    drop(tab, a1111_jpeg(tmp_path / "theirs.jpg"), "#layout")
    expect(tab.locator("#status")).to_contain_text("From A1111; not restored: noise schedule Karras")
    expect(tab.locator(PROMPT)).to_have_value(FOREIGN)
    expect(tab.locator("#seed input")).to_have_value("1234567890")
    drop(tab, comfyui(tmp_path / "theirs.png"), "#layout")
    expect(tab.locator("#status")).to_contain_text("From ComfyUI; not restored: model SD1.5/realistic.safetensors")
    expect(tab.locator("#seed input")).to_have_value("4321")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    drop(tab, tmp_path / "bad.png", "#layout")
    expect(tab.get_by_text("bad.png cannot be read as a picture")).to_be_visible()
    expect(tab.locator("#seed input")).to_have_value("4321")


def test_two_tabs_keep_their_own_settings_and_a_new_one_starts_from_the_last(tab: Page) -> None:
    def another() -> Page:
        view = tab.context.new_page()
        view.set_default_timeout(30_000)
        view.goto(tab.url)
        expect(view.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
        return view

    def write(view: Page, prompt: str) -> None:
        view.locator(PROMPT).fill(prompt)
        view.wait_for_function(f"(sessionStorage.getItem('oms-studio-create') || '').includes('{prompt}')")

    write(tab, "first tab")
    second = another()
    expect(second.locator(PROMPT)).to_have_value("first tab")
    write(second, "second tab")
    for view, prompt in ((second, "second tab"), (tab, "first tab")):
        view.reload()
        expect(view.locator(PROMPT)).to_have_value(prompt)
        view.wait_for_timeout(1_000)  # it keeps its settings again, and so would be the last
    write(tab, "first again")
    expect(another().locator(PROMPT)).to_have_value("first again")
    expect(second.locator(PROMPT)).to_have_value("second tab")


@pytest.mark.shared_tab
def test_a_click_on_the_strip_opens_a_picture_again(tab: Page) -> None:
    generate(tab, "blue hills", "light")
    generate(tab, "fog")
    tab.locator("#history-strip button").nth(1).click()
    expect(tab.locator(PROMPT)).to_have_value("blue hills")
    expect(tab.locator("#oms-prompt").get_by_role("textbox")).to_have_value("light")
    expect(tab.locator("#history-strip button").nth(1)).to_have_attribute("aria-current", "true")
    tab.reload()
    expect(tab.locator("#summary")).to_contain_text("blue hills")


@pytest.mark.shared_tab
def test_pictures_are_marked_compared_deleted_and_brought_back(tab: Page, tiny_home: Path) -> None:
    generate(tab, "first city", "dark")
    generate(tab, "second city", "light")
    gallery(tab)
    tab.locator("#gallery-words").get_by_role("textbox").fill("city")
    cards = tab.locator(".oms-kept li")
    expect(cards).to_have_count(2)
    cards.nth(0).locator("[data-do=favourite]").click()
    expect(cards.nth(0).locator("[data-do=favourite]")).to_have_attribute("aria-pressed", "true")
    tab.get_by_label("Favourites").check()
    expect(cards).to_have_count(1)
    tab.get_by_label("Favourites").uncheck()
    expect(cards).to_have_count(2)
    for number in (0, 1):
        cards.nth(number).locator("[data-do=pick]").click()
        expect(cards.nth(number).locator("[data-do=pick]")).to_have_attribute("aria-pressed", "true")
    table = tab.locator("#gallery-differences")
    expect(table).to_contain_text("Settings that differ")
    expect(table).to_contain_text(re.compile(r"Prompt\s*second city\s*first city"))
    expect(table).to_contain_text(re.compile(r"OMS prompt\s*light\s*dark"))
    expect(table).not_to_contain_text("Steps")
    files = len(list((tiny_home / "pictures").glob("*.png")))
    cards.nth(0).locator("[data-do=delete]").click()
    expect(cards).to_have_count(1)
    assert len(list((tiny_home / "pictures").glob("*.png"))) == files - 2, "the raw picture goes along"
    tab.get_by_role("button", name="Undo delete").click()
    expect(cards).to_have_count(2)
    expect(cards.nth(0).locator("[data-do=favourite]")).to_have_attribute("aria-pressed", "true")
    assert len(list((tiny_home / "pictures").glob("*.png"))) == files
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "the page scrolls sideways on a phone"
    tab.set_viewport_size({"width": 1280, "height": 800})


@pytest.mark.slow
def test_on_a_space_a_visitor_sees_only_their_own_pictures(browser, presets: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    environment = {"OMS_HOME": str(tmp_path), "OMS_PRESETS": str(presets), "SPACE_ID": "someone/space"}
    with running_app(environment, tmp_path / "app.txt") as address:
        address = address.replace("0.0.0.0", "127.0.0.1")
        contexts = [browser.new_context() for _ in range(2)]
        mine, other = (context.new_page() for context in contexts)
        for view in (mine, other):
            view.set_default_timeout(30_000)
            view.goto(address)
            expect(view.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
        generate(mine, "my secret")
        mine.reload()
        expect(mine.locator("#summary")).to_contain_text("my secret")
        expect(mine.locator("#history-strip")).to_contain_text("Only you see these pictures")
        assert "/" not in mine.locator("#history-strip p").inner_text(), "no path"
        other.reload()
        go_to(other, "Gallery")
        expect(other.locator("#gallery-count")).to_contain_text("No pictures.")
        time.sleep(0.5)
        expect(other.locator("#summary")).not_to_contain_text("my secret")
        for context in contexts:
            context.close()
