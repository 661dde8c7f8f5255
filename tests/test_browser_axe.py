"""No finding of axe-core, however small, on any tab: both themes, on a desktop and on a phone.

Runs if AXE_CORE names the file axe.min.js of the npm package axe-core (`npm pack axe-core`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import running_app
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, PROMPT, browser, go_to, opened, short, unfold

AXE = os.environ.get("AXE_CORE", "")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not AXE, reason="AXE_CORE names no file")]
__all__ = ["browser"]  # a fixture of this module too


def findings(view: Page, state: str) -> list[str]:
    """What axe-core finds in the page as it is: the rule, how bad it is, and where."""
    view.wait_for_timeout(700)  # colours of transitions
    if not view.evaluate("Boolean(window.axe)"):
        view.evaluate(Path(AXE).read_text(encoding="utf-8"))  # the page's own headers refuse a script element
    result: dict[str, Any] = view.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{state}: {found['id']} ({found['impact']}): {' '.join(found['nodes'][0]['target'])} × {len(found['nodes'])}"
        f" — {found['nodes'][0]['html'][:160]}"
        for found in result["violations"]
    ]


def create(view: Page) -> list[str]:
    found = findings(view, "first visit")
    short(view)
    view.locator(PROMPT).fill("warm (mountains:1.3)")  # hints
    view.locator("#seed input").fill("-5")
    view.locator("#oms-cfg input[type=number]").fill("10")
    view.locator("#generate").click()
    expect(view.locator("#status").get_by_role("alert")).to_be_visible()
    expect(view.locator("#words li").first).to_be_visible()
    found += findings(view, "alerts and hints")
    view.locator(PROMPT).fill("mountains")
    view.locator("#seed input").fill("7")
    view.locator("#sweep-start").click()
    expect(view.locator("#sweep-table button")).to_have_count(8, timeout=PATIENCE)
    expect(view.locator("#generate")).to_be_enabled(timeout=PATIENCE)
    view.locator("#sweep-table button").nth(2).click()
    expect(view.locator("#summary")).to_contain_text("from the sweep")
    found += findings(view, "sweep and history")
    view.get_by_label("Show OMS without CFG too").check()
    view.get_by_label("Slide between two").check()
    view.locator("#light-pad").get_by_label("Painting").check()
    for name in ("What these do", "Save the settings as a look"):
        view.get_by_role("button", name=name).click()
    view.get_by_role("button", name="Difference").click()
    expect(view.locator("#light-canvas canvas").first).to_be_visible()
    view.get_by_text("Known words").click()
    return found + findings(view, "everything open")


def other_tabs(view: Page) -> list[str]:
    found: list[str] = []
    go_to(view, "Gallery")
    expect(view.locator("#gallery-cards .oms-kept li").nth(1)).to_be_visible(timeout=PATIENCE)
    found += findings(view, "gallery")
    for number in (0, 1):
        view.locator("#gallery-cards [data-do=pick]").nth(number).click()
        expect(view.locator("#gallery-cards [data-do=pick]").nth(number)).to_have_attribute("aria-pressed", "true")
    expect(view.locator("#gallery-differences")).to_contain_text("Settings that differ")
    found += findings(view, "gallery, two compared")
    go_to(view, "Explore")
    view.get_by_label("Seeds", exact=True).first.check()
    unfold(view.locator("#explore-settings"))
    view.locator("#explore-steps input").fill("2")
    view.locator("#explore-prompt textarea").fill("sea")
    view.locator("button#explore").click()
    expect(view.locator("#explore-table button")).to_have_count(4, timeout=PATIENCE)
    found += findings(view, "explore")
    view.get_by_label("Any two settings").check()
    found += findings(view, "explore, two settings")
    go_to(view, "Compare")
    found += findings(view, "compare")
    for name in ("compare-pictures", "compare-settings"):
        unfold(view.locator(f"#{name}"))
    for box in view.locator("#compare-methods input").all()[2:]:
        box.uncheck()
    view.locator("button#compare").click()
    expect(view.locator("#compared-figures-1")).to_contain_text("Mean L*", timeout=PATIENCE)
    found += findings(view, "compare with pictures")
    go_to(view, "Models")
    expect(view.locator("#catalogue .oms-card").first).to_be_visible()
    return found + findings(view, "models")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_axe_finds_nothing(browser, page: str, theme: str, size: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    assert Path(AXE).is_file(), f"AXE_CORE is {AXE}, which is no file"
    with opened(browser, f"{page}/?__theme={theme}", *size) as view:
        found = create(view) + other_tabs(view)
    assert found == [], "\n".join(found)


def test_axe_finds_nothing_in_the_form_to_log_in(browser, presets: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    environment = {"OMS_HOME": str(tmp_path), "OMS_PRESETS": str(presets), "OMS_PASSWORD": "correct horse"}
    with running_app(environment, tmp_path / "app.txt") as address:
        view = browser.new_page()
        view.goto(address)
        view.locator("input[type=password]").fill("wrong")
        view.get_by_role("button").click()
        expect(view.get_by_role("main")).to_contain_text("Incorrect")
        found = findings(view, "log in")
        view.close()
    assert found == [], "\n".join(found)
