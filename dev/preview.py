"""Milliseconds from a move of an OMS control to the OMS preview and to the draft of the picture on the screen.

`python -m dev.preview`. The real page with the embedded model in a real browser, with the pair that it opens with. The
strength moves by one notch at a time, as an arrow key moves it; the clock is the browser's own and stops once the new
picture is decoded. Targets: medians of at most 250 for the preview and 700 for the draft.
"""

from __future__ import annotations

import json
import statistics
import sys

from playwright.sync_api import Page, expect

from dev.browser import PATIENCE, app_and_browser

MOVES = 30
MOVE = """notches => new Promise(resolve => {
  const control = document.querySelector('#oms-cfg input[type=range]');
  const source = selector => document.querySelector(selector)?.src;
  const before = {preview: source('#light img'), draft: source('#draft img')}, took = {};
  const started = performance.now();
  const look = async () => {
    for (const [name, selector] of [['preview', '#light img'], ['draft', '#draft img']]) {
      if (name in took || !source(selector) || source(selector) === before[name]) continue;
      await document.querySelector(selector).decode();
      took[name] = performance.now() - started;
    }
    return Object.keys(took).length === 2 ? resolve(took) : setTimeout(look, 5);
  };
  control.value = Number(control.value) + notches * Number(control.step);
  control.dispatchEvent(new Event('input', {bubbles: true}));
  look();
})"""


def measure(page: Page, address: str) -> list[dict[str, float]]:
    """Milliseconds of each move, back and forth over the strengths 1 to 4."""
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator("#oms-cfg input[type=range]").press("ArrowRight")
    expect(page.locator("#draft")).to_contain_text("not saved", timeout=PATIENCE)  # the models are loaded
    took = []
    for move in range(MOVES):
        took.append(dict(page.evaluate(MOVE, 1 if move < MOVES / 2 else -1)))
        expect(page.locator("#draft")).to_contain_text("not saved", timeout=PATIENCE)
    return took


def main() -> int:
    with app_and_browser() as (address, browser):
        took = measure(browser.new_page(), address)
    figures = {}
    for name in ("preview", "draft"):
        milliseconds = [one[name] for one in took]
        figures[name] = {"median": round(statistics.median(milliseconds)), "greatest": round(max(milliseconds))}
    print(json.dumps(figures | {"moves": MOVES}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
