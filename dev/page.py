"""How soon the page answers, in a real browser with the embedded model: `python -m dev.page`.

Prints JSON, in seconds, medians with their runs:
usable: from navigation (an empty browser, a warm server) until a prompt can be written and Generate pressed. Target 2.
pair: from Generate until both pictures stand there, each time with another seed.
oms_changed: the same after the OMS prompt alone was changed, so that raw is reused; as a share of the pair. Target 0.6.
stop: from Esc until Generate can be pressed again; as a share of one step of the pair's run. Target 1.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time

from playwright.sync_api import Browser, Page, expect

from dev.browser import PATIENCE, app_and_browser

RUNS = 5
STEPS = 20
# Resolves with the seconds until the work that `start` begins has ended: Stop can be pressed only while it goes on.
WORK = """start => new Promise(resolve => {
  const stop = document.querySelector('#stop');
  const began = performance.now();
  document.querySelector(start).click();
  let busy = false;
  const look = () => {
    if (!stop.disabled) busy = true;
    if (busy && stop.disabled) return resolve((performance.now() - began) / 1000);
    setTimeout(look, 20);  // a frame's callback would make the browser draw sixty times a second
  };
  look();
})"""
IDLE = """() => new Promise(resolve => {
  const began = performance.now();
  const look = () => document.querySelector('#generate').disabled  // #stop is so at once: it has been pressed
    ? setTimeout(look, 10) : resolve((performance.now() - began) / 1000);
  document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}));
  look();
})"""


def usable(browser: Browser, address: str) -> float:
    """Seconds from navigation until the prompt holds what was written and Generate is enabled."""
    context = browser.new_context()
    view = context.new_page()
    began = time.monotonic()
    view.goto(address, wait_until="commit")
    view.locator("#prompt textarea").fill("sea")
    expect(view.locator("#prompt textarea")).to_have_value("sea")
    expect(view.locator("#generate")).to_be_enabled()
    seconds = time.monotonic() - began
    context.close()
    return seconds


def work(view: Page, seed: int) -> tuple[float, float]:
    """Seconds of a pair, and of a new OMS picture beside the same raw one."""
    pair, changed = (
        _generate(view, {"#seed input": str(seed), "#oms-prompt textarea, #oms-prompt input": words})
        for words in ("dark", "light")
    )
    return pair, changed


def _generate(view: Page, fields: dict[str, str]) -> float:
    for field, value in fields.items():
        view.locator(field).fill(value)
    view.wait_for_timeout(1_000)  # for the preview
    return float(view.evaluate(WORK, "#generate"))


def stop(view: Page, seed: int) -> float:
    """Seconds from Esc, pressed amid the run, until it has ended."""
    view.locator("#seed input").fill(str(seed))
    view.locator("#generate").click()
    expect(view.locator("#status")).to_contain_text(re.compile(r"step \d+ of"), timeout=PATIENCE)
    return float(view.evaluate(IDLE))


def main() -> int:
    with app_and_browser() as (address, browser):
        context = browser.new_context()
        view = context.new_page()
        view.set_default_timeout(PATIENCE)
        view.goto(address)
        view.locator("#prompt textarea").fill("mountains at night")
        expect(view.locator("#light img")).to_be_visible(timeout=PATIENCE)
        work(view, 0)  # loads the models
        opened = [usable(browser, address) for _ in range(RUNS)]
        pairs, changed = zip(*(work(view, seed) for seed in range(1, RUNS + 1)), strict=True)
        view.get_by_role("button", name="Picture settings").click()
        view.locator("#steps input").fill(str(10 * STEPS))  # so that Esc is pressed amid the run
        stops = [stop(view, seed) for seed in range(100, 100 + RUNS)]
    step = statistics.median(pairs) / STEPS
    figures = {
        "usable": _figure(opened),
        "pair": _figure(pairs),
        "oms_changed": _figure(changed) | {"of_the_pair": round(statistics.median(changed) / (STEPS * step), 2)},
        "stop": _figure(stops) | {"steps": round(statistics.median(stops) / step, 2)},
    }
    print(json.dumps(figures))
    return 0


def _figure(seconds: list[float] | tuple[float, ...]) -> dict[str, object]:
    return {"median": round(statistics.median(seconds), 2), "runs": [round(value, 2) for value in seconds]}


if __name__ == "__main__":
    sys.exit(main())
