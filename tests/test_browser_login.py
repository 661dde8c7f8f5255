"""The form to log in, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import running_app
from playwright.sync_api import Browser, expect
from test_browser import browser

from oms_app.ui import login_limit

pytestmark = pytest.mark.browser
__all__ = ["browser"]  # a fixture of this module too


def test_the_form_tells_how_long_to_wait_after_wrong_passwords(browser: Browser, presets: Path, tmp_path: Path) -> None:
    environment = {"OMS_HOME": str(tmp_path), "OMS_PRESETS": str(presets), "OMS_PASSWORD": "correct horse"}
    with running_app(environment, tmp_path / "app.txt") as address:
        context = browser.new_context()
        view = context.new_page()
        view.goto(address)
        password = view.locator("input[type=password]")
        password.fill("wrong")
        expect(view).to_have_title("OMS Studio")
        expect(view.get_by_role("main")).to_contain_text("User name: oms for the owner")

        def log_in() -> int:
            view.locator("input").first.fill("oms")
            password.fill("wrong")
            with view.expect_response("**/login") as answer:
                view.get_by_role("button").click()
            return answer.value.status

        assert [log_in() for _ in range(login_limit.FREE + 1)] == [400] * (login_limit.FREE + 1)
        while log_in() != 429:  # a wait may be over before the next attempt
            pass
        expect(view.get_by_role("alert")).to_contain_text("Too many wrong passwords: try again in ")
        expect(view.get_by_role("alert")).to_have_text("You can try again now.", timeout=60_000)
        password.fill("correct horse")
        view.get_by_role("button").click()
        expect(view.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
        context.close()
