"""Create by keyboard alone in a real browser: few stops, groups by the arrow keys, and a focus that is seen."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from test_browser import PROMPT, browser, shared_tab, tab

pytestmark = pytest.mark.browser
__all__ = ["browser", "shared_tab", "tab"]  # fixtures of this module too

FOCUS = """() => {
  const element = document.activeElement;
  const drawn = (of, part) => {
    const style = getComputedStyle(of, part);
    return style.outlineStyle === 'solid' && parseFloat(style.outlineWidth) >= 2
      || part && style.content !== 'none' && parseFloat(style.borderTopWidth) >= 2;
  };
  return {
    name: [element.tagName, element.ariaLabel ?? element.textContent.trim(), element.closest('[id]')?.id].join(' '),
    inside: element.closest('.oms-looks, .oms-examples, .oms-view-bar')?.className ?? '',
    ends: element.closest('footer') !== null || element === document.body,
    seen: drawn(element) || drawn(element, '::after')
      || [...document.querySelectorAll(':has(:focus-visible)')].some(one => drawn(one)),
  };
}"""


@pytest.mark.shared_tab
def test_few_stops_lead_from_the_prompt_to_the_oms_prompt(tab: Page) -> None:
    tab.locator(PROMPT).focus()
    for _ in range(8):
        tab.keyboard.press("Tab")
        if tab.locator("#oms-prompt :focus").count():
            return
    pytest.fail("more than 8 stops")


@pytest.mark.shared_tab
def test_groups_are_one_stop_each_and_the_focus_is_seen_everywhere(tab: Page) -> None:
    tab.wait_for_selector(".oms-both")
    tab.locator(PROMPT).focus()
    stops = []
    for _ in range(120):
        tab.keyboard.press("Tab")
        stops.append(tab.evaluate(FOCUS))
        if stops[-1]["ends"]:
            break
    assert stops[-1]["ends"], "the end is not reached"
    assert [stop["name"] for stop in stops if not stop["seen"] and not stop["ends"]] == []
    for group in ("oms-looks", "oms-examples", "oms-view-bar"):
        assert len([stop for stop in stops if stop["inside"] == group]) == 1, group


@pytest.mark.shared_tab
def test_looks_and_the_view_go_by_the_arrow_keys(tab: Page) -> None:
    looks = tab.locator("#looks button")
    looks.nth(0).focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    expect(looks.nth(2)).to_be_focused()
    tab.keyboard.press("ArrowLeft")
    expect(looks.nth(1)).to_be_focused()
    tab.keyboard.press("Tab")
    expect(tab.locator("#looks :focus")).to_have_count(0)
    tab.keyboard.press("Shift+Tab")
    expect(tab.locator("#looks :focus")).to_have_count(1)
    tab.keyboard.press("Shift+Tab")
    expect(tab.locator("#looks :focus")).to_have_count(0)
    title = looks.nth(1).inner_text()
    looks.nth(0).focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    expect(tab.locator("#status")).to_contain_text(f"The look {title} is set")
    tab.get_by_role("button", name="Difference").focus()
    tab.keyboard.press("ArrowLeft")
    expect(tab.get_by_role("button", name="Full screen")).to_be_focused()
    tab.get_by_role("button", name="Zoom in").focus()
    tab.keyboard.press("Enter")
    tab.keyboard.press("Shift+ArrowRight")
    expect(tab.get_by_role("button", name="Zoom in")).to_be_focused()
    assert float(tab.evaluate("getComputedStyle(document.querySelector('#pictures')).getPropertyValue('--x')")) < 0
