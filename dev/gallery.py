"""How soon the gallery shows and finds pictures among 10,000, in a real browser. Run: python -m dev.gallery"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import running_app
from playwright.sync_api import Page, expect, sync_playwright
from test_stress import make_history

PICTURES, TURNS = 10_000, 5


def main() -> None:
    """Prints medians, in seconds."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        folder = Path(home) / "pictures"
        folder.mkdir()
        make_history(folder, PICTURES)
        environment = {"OMS_HOME": home}
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        with running_app(environment, Path(home) / "log.txt") as address:
            opened, found = [], []
            for turn in range(TURNS):
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.goto(address)
                expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled(timeout=60_000)
                began = time.perf_counter()
                page.get_by_role("tab", name="Gallery").click()
                page.wait_for_function(
                    "[...document.querySelectorAll('.oms-kept img')].filter(one => one.complete).length == 48"
                )
                opened.append(time.perf_counter() - began)
                found.append(search(page, ("night fog", "red lake", "dark sea", "blue city", "snow")[turn]))
                page.close()
        browser.close()
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(f"tab opened → 48 thumbnails: median {median(opened):.2f} s, at most {max(opened):.2f} s")
    print(f"words written → pictures found: median {median(found):.2f} s, at most {max(found):.2f} s")


def search(page: Page, words: str) -> float:
    before = page.locator("#gallery-count").inner_text()
    field = page.locator("#gallery-words").get_by_role("textbox")
    began = time.perf_counter()
    field.fill(words)
    page.wait_for_function(
        "before => document.querySelector('#gallery-count').innerText != before", arg=before, timeout=60_000
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
