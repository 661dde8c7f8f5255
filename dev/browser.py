"""The real app with the embedded model, and a real browser for it (chromium of the development requirements)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PATIENCE = 120_000  # milliseconds; the first request loads the engine and the model


@contextmanager
def app_and_browser() -> Iterator[tuple[str, Browser]]:
    """The page's address and the browser; both end with the block, and what the app wrote goes with them."""
    app = Path(__file__).parents[1] / "app.py"
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        environment = os.environ | {"OMS_HOME": home, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, str(app)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            yield address, browser
            browser.close()
        finally:
            process.terminate()
            process.wait()
