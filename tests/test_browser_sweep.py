"""From dark to light in a real browser, with Lumen: the strip, its animations, a picture of it in Create."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image, ImageSequence, ImageStat
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, PROMPT, browser, picture, shared_tab, short, tab

pytestmark = pytest.mark.browser
__all__ = ["browser", "shared_tab", "tab"]  # fixtures of this module too


@pytest.mark.shared_tab
def test_a_seed_goes_from_dark_to_light_and_is_downloaded_and_opened(tab: Page, tmp_path: Path) -> None:
    short(tab)
    tab.locator(PROMPT).fill("mountains")
    tab.locator("#seed input").fill("7")
    tab.locator("#sweep-start").click()
    expect(tab.locator("#generate")).to_be_disabled()  # one of the two at a time
    cells = tab.locator("#sweep-table button")
    expect(cells).to_have_count(8, timeout=PATIENCE)
    expect(tab.locator("#sweep")).to_be_in_viewport()
    got = [float(re.findall(r"got ([\d.]+)", cell.inner_text())[0]) for cell in cells.all()[1:]]
    assert got == sorted(got) and got[0] < 20 and got[-1] > 80, got
    expect(tab.locator("#generate")).to_be_enabled(timeout=PATIENCE)
    for kind in ("webp", "gif"):
        with tab.expect_download() as download:
            tab.locator(f"#sweep-{kind}").click()
        saved = tmp_path / f"sweep.{kind}"
        download.value.save_as(saved)
        with Image.open(saved) as animation:
            light = [ImageStat.Stat(frame.convert("L")).mean[0] for frame in ImageSequence.Iterator(animation)]
            assert animation.info["loop"] == 0
        assert light[:7] == sorted(light[:7]) and light[7:] == pytest.approx(light[5:0:-1], abs=0.1), "there and back"
    cells.nth(6).click()
    expect(tab.locator("#summary")).to_contain_text("from the sweep")
    expect(tab.locator("#luminance input[type=number]")).to_have_value("77")
    expect(tab.locator("#seed input")).to_have_value("7")
    expect(tab.locator("#raw-image img")).to_be_visible()
    assert '"luminance": 77' in picture(tab, "oms").info["oms_studio"]
    tab.locator("#sweep-close").click()
    expect(tab.locator("#sweep")).to_be_hidden()


@pytest.mark.shared_tab
def test_stop_keeps_the_pictures_of_the_sweep_that_are_finished(tab: Page) -> None:
    short(tab)
    tab.locator("#steps input").fill("150")
    tab.locator("#sweep-start").click()
    tab.locator("#sweep-table button").first.wait_for(timeout=PATIENCE)
    tab.keyboard.press("Escape")
    expect(tab.locator("#status")).to_contain_text(re.compile(r"Stopped\. \d of 8 pictures are kept"))
    expect(tab.locator("#sweep-start")).to_be_enabled()
    kept = tab.locator("#sweep-table button").count()
    assert 0 < kept < 8 and tab.locator("#sweep .oms-pending").count() == 8 - kept
