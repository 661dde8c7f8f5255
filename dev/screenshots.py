"""Every tab of the page as a person sees it, in both themes, on a desktop and on a phone: `make screenshots`.

Starts the app with the embedded model in a folder of its own, paints what each tab is for, and writes
docs/screens/TAB-THEME-WIDTH.jpg, and the first visit as it opens.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs/screens"
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
PATIENCE = 300_000  # milliseconds


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        app = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, env=os.environ | {"OMS_HOME": home}
        )
        try:
            _await(f"http://127.0.0.1:{port}")
            expect.set_options(timeout=60_000)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                for device, (width, height) in WIDTHS.items():
                    for theme in ("light", "dark"):
                        view = browser.new_page(viewport={"width": width, "height": height})
                        view.set_default_timeout(60_000)
                        view.goto(f"http://127.0.0.1:{port}/?__theme={theme}")
                        tour = view.locator(".oms-tour")
                        expect(tour).to_be_visible()
                        view.wait_for_timeout(1500)  # the page's last parts are drawn
                        view.screenshot(path=out / f"first-visit-{theme}-{device}.jpg", type="jpeg", quality=72)
                        tour.locator("[data-close]").click()
                        for tab in ("create", "explore", "compare", "models"):
                            _show(view, tab)
                            view.screenshot(
                                path=out / f"{tab}-{theme}-{device}.jpg", full_page=True, type="jpeg", quality=72
                            )
                            print(f"{tab}, {theme}, {device}", flush=True)
                        view.close()
                browser.close()
        finally:
            app.terminate()
            app.wait(30)


def _await(address: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"nothing answers at {address}")


def _show(view: Page, tab: str) -> None:
    """Opens the tab and paints something in it, quickly."""
    view.get_by_role("tab", name=tab.capitalize(), exact=True).click()
    if tab == "create":
        view.locator("#prompt textarea").fill("mountains at night")
        view.locator("#seed input").fill("7")
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
