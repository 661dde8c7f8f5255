"""Milliseconds from a change of an OMS control to the new OMS preview on the screen: `python -m dev.preview`.

The real page with the embedded model in a real browser. The strength moves by one notch at a time, as an arrow key
moves it; the clock is the browser's own and stops once the new picture is decoded and a frame has been drawn. Target: a
median of at most 300.
"""

from __future__ import annotations

import json
import statistics
import sys

from playwright.sync_api import Page, expect

from dev.browser import PATIENCE, app_and_browser

MOVES = 30
MOVE = """notches => new Promise(resolve => {
  const light = document.querySelector('#light');
  const control = document.querySelector('#oms-cfg input[type=range]');
  const before = light.querySelector('img').src;
  const started = performance.now();
  const look = async () => {
    const image = light.querySelector('img');
    if (!image || image.src === before) return requestAnimationFrame(look);
    await image.decode();
    requestAnimationFrame(() => resolve(performance.now() - started));
  };
  control.value = Number(control.value) + notches * Number(control.step);
  control.dispatchEvent(new Event('input', {bubbles: true}));
  look();
})"""


def measure(page: Page, address: str) -> list[float]:
    """Milliseconds of each move, back and forth over the strengths 1 to 4."""
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator("#prompt textarea").fill("mountains at night")
    expect(page.locator("#light img")).to_be_visible(timeout=PATIENCE)
    page.evaluate(MOVE, 1)  # the unconditional prediction is made once, and kept
    return [float(page.evaluate(MOVE, 1 if i < MOVES / 2 else -1)) for i in range(MOVES)]


def main() -> int:
    with app_and_browser() as (address, browser):
        milliseconds = measure(browser.new_page(), address)
    figures = {"median": statistics.median(milliseconds), "greatest": max(milliseconds)}
    print(json.dumps({name: round(value) for name, value in figures.items()} | {"moves": MOVES}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
