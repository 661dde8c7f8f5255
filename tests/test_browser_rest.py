"""A page that nobody touches costs next to nothing, and an idle connection stays open."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, expect
from test_browser import browser

pytestmark = pytest.mark.browser
__all__ = ["browser"]  # a fixture of this module too
SECONDS, SHARE = 5.0, 0.02  # of a core: near zero, and far below the 6 % that it was


def server_of(page: str) -> psutil.Process:
    port = urlsplit(page).port
    return next(
        psutil.Process(one.pid)
        for one in psutil.net_connections("tcp")
        if one.status == "LISTEN" and one.laddr.port == port and one.pid
    )


def test_the_server_rests(page: str) -> None:
    server, used = server_of(page), []
    for _ in range(4):  # the engine may still be loading
        before = sum(server.cpu_times()[:2])
        time.sleep(SECONDS)
        used.append((sum(server.cpu_times()[:2]) - before) / SECONDS)
    assert min(used) < SHARE, used


def test_the_page_asks_for_no_frames_at_rest(browser: Browser, page: str) -> None:
    context = browser.new_context()
    view = context.new_page()
    view.add_init_script(
        "window.frames_asked = 0; const request = requestAnimationFrame.bind(window);"
        "window.requestAnimationFrame = callback => { frames_asked++; return request(callback); };"
    )
    view.goto(page)
    expect(view.locator("#generate")).to_be_enabled()
    view.wait_for_timeout(3_000)  # what opens the page has ended
    before = view.evaluate("frames_asked")
    view.wait_for_timeout(3_000)
    asked = view.evaluate("frames_asked") - before
    context.close()
    assert asked < 30, "one in each frame of the screen would be 180"


def test_a_connection_stays_open_for_longer_than_its_clients_keep_it(page: str) -> None:
    """httpx keeps one for 5 seconds: if the server closed it then, requests would be lost."""
    connection = HTTPConnection(urlsplit(page).netloc, timeout=60)
    connection.connect()
    first = connection.sock
    for wait in (8, 0):
        connection.request("GET", "/gradio_api/app_id")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
        time.sleep(wait)
    assert connection.sock is first, "the same connection"
    connection.close()
