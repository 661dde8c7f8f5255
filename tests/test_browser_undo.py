"""Undo, Redo and Reset all of the settings in a real browser, with the embedded model."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from test_browser import PROMPT, browser, tab

pytestmark = pytest.mark.browser
__all__ = ["browser", "tab"]  # fixtures of this module too


def rests(view: Page, past: int, future: int = 0) -> None:
    """Until there are so many steps to undo and to redo, and no change is on its way."""
    view.wait_for_function(
        "([past, future]) => settingsHistory.now !== null && settingsHistory.past.length === past"
        " && settingsHistory.future.length === future",
        arg=[past, future],
    )
    view.wait_for_timeout(600)  # twice as long as a change rests before it is recorded


def test_the_last_change_is_undone_and_redone_and_all_is_reset(tab: Page) -> None:
    prompt, cfg = tab.locator(PROMPT), tab.locator("#oms-cfg input[type=number]")
    tab.get_by_label("Live").uncheck()  # drafts have their own tests
    opened, strength = prompt.input_value(), cfg.input_value()
    rests(tab, 0)
    prompt.fill("the sea")
    rests(tab, 1)
    cfg.fill("2.5")
    rests(tab, 2)
    tab.locator("#light-pad").get_by_label("Left").check()
    rests(tab, 3)
    tab.keyboard.press("Control+z")
    expect(tab.locator("#light-pad").get_by_label("Off")).to_be_checked()
    rests(tab, 2, 1)
    tab.keyboard.press("Control+z")
    expect(cfg).to_have_value(strength)
    expect(prompt).to_have_value("the sea")
    rests(tab, 1, 2)
    tab.keyboard.press("Control+Shift+z")
    expect(cfg).to_have_value("2.5")
    rests(tab, 2, 1)
    tab.get_by_role("button", name="Reset all").click()
    expect(prompt).to_have_value(opened)
    expect(cfg).to_have_value(strength)
    rests(tab, 3)
    tab.get_by_role("button", name="Undo", exact=True).and_(tab.locator("#undo")).click()
    expect(prompt).to_have_value("the sea")
    expect(cfg).to_have_value("2.5")
    prompt.press("Control+z")  # a text field undoes its own words
    tab.wait_for_timeout(500)
    expect(cfg).to_have_value("2.5")
