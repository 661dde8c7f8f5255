"""Every tab of the page, in both themes, on a desktop and on a phone: `make screenshots`.

Starts the app with the embedded model and an empty user folder, generates something in each tab, and writes
docs/screens/TAB-THEME-DEVICE.jpg, and the first visit before anything is clicked.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from dev.browser import app_and_browser

OUT = Path(__file__).resolve().parents[1] / "docs/screens"
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
PATIENCE = 300_000  # milliseconds


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=60_000)
    with app_and_browser() as (address, browser):
        for device in WIDTHS:
            for theme in ("light", "dark"):
                _screenshots(browser, address, device, theme, out)


def _screenshots(browser: Browser, address: str, device: str, theme: str, out: Path) -> None:
    width, height = WIDTHS[device]
    view = browser.new_page(viewport={"width": width, "height": height})
    view.set_default_timeout(60_000)
    view.goto(f"{address.rstrip('/')}/?__theme={theme}")
    view.wait_for_timeout(1500)  # the page's last parts are drawn
    view.screenshot(path=out / f"first-visit-{theme}-{device}.jpg", type="jpeg", quality=72)
    for tab in ("create", "gallery", "explore", "compare", "models"):
        _show(view, tab)
        view.screenshot(path=out / f"{tab}-{theme}-{device}.jpg", full_page=True, type="jpeg", quality=72)
        print(f"{tab}, {theme}, {device}", flush=True)
    view.close()


def _show(view: Page, tab: str) -> None:
    """Opens the tab and generates something in it."""
    view.get_by_role("tab", name=tab.capitalize(), exact=True).click()
    if tab == "create":
        view.locator("#prompt textarea").fill("mountains at night")
        view.locator("#seed input").fill("7")
        view.locator("#luminance-on input").check()
        view.locator("#light-pad").get_by_label("Left").check()
        view.locator("#generate").click()
        expect(view.locator("#summary")).to_contain_text("mountains at night", timeout=PATIENCE)
        expect(view.locator("#oms-image img")).to_be_visible()
    elif tab in ("explore", "compare"):
        prompts = {"explore": "hills and trees", "compare": "a red circle on a black background"}
        view.locator(f"#{tab}-prompt textarea").fill(prompts[tab])
        button = view.locator(f"button#{tab}")
        button.click()
        expect(button).to_be_disabled()
        expect(button).to_be_enabled(timeout=PATIENCE)
    view.wait_for_timeout(700)  # pictures fade in


if __name__ == "__main__":
    main()
