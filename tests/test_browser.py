"""The page as a person uses it, in a real browser, with a real model behind it."""

from __future__ import annotations

import io
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

PROMPT = "#prompt textarea"
CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
)
PATIENCE = 120_000  # milliseconds; a first picture loads the engine and the model
expect.set_options(timeout=60_000)  # conditions are waited for, on a slow machine too


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield chromium
        chromium.close()


@contextmanager
def opened(browser: Browser, address: str, width: int, height: int) -> Iterator[Page]:
    """The app's page in a context of its own, ready. Fails the test afterwards if its scripts broke or were refused."""
    context = browser.new_context(viewport={"width": width, "height": height})
    view = context.new_page()
    broken: list[str] = []
    view.on("pageerror", lambda error: broken.append(str(error)))
    view.on("console", lambda line: broken.append(line.text) if "Content Security Policy" in line.text else None)
    view.set_default_timeout(60_000)
    view.goto(address)
    expect(view.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
    yield view
    context.close()
    assert broken == []


@pytest.fixture(scope="module")
def shared_tab(browser: Browser, page: str) -> Iterator[Page]:
    with opened(browser, page, 1440, 900) as view:
        yield view


@pytest.fixture
def tab(request: pytest.FixtureRequest, browser: Browser, page: str) -> Iterator[Page]:
    """A tab of the test's own; marked shared_tab, that of all such tests of the file, for opening one takes seconds."""
    if request.node.get_closest_marker("shared_tab"):
        yield request.getfixturevalue("shared_tab")
        return
    with opened(browser, page, 1440, 900) as view:
        yield view


def picture(view: Page, name: str) -> Image.Image:
    """The picture in a panel, fetched as the browser fetches it."""
    source = view.locator(f"#{name}-image img").get_attribute("src")
    assert source is not None and source.endswith(".png"), "PNG everywhere"
    with urllib.request.urlopen(source, timeout=60) as file:
        return Image.open(io.BytesIO(file.read()))


def place(element: Locator) -> list[float]:
    """Left, top, width and height on the page, wherever it is scrolled to."""
    found: list[float] = element.evaluate(
        "e => { const b = e.getBoundingClientRect(); return [b.x + scrollX, b.y + scrollY, b.width, b.height]; }"
    )
    return found


def drawn(view: Page) -> None:
    """Waits until a section or tab that was opened for the first time is on the screen. Gradio 6.31 sets its fields
    once more then: what is typed before is lost, which a person is too slow for."""
    frame = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
    for _ in range(3):
        view.evaluate(frame)


def go_to(view: Page, tab: str) -> None:
    view.get_by_role("tab", name=tab).click()
    drawn(view)


def unfold(section: Locator) -> None:
    """Opens an accordion."""
    section.get_by_role("button").first.click()
    drawn(section.page)


def short(view: Page, steps: int = 4) -> None:
    """Few steps, so that the test is quick."""
    field = view.locator("#steps input")
    if not field.is_visible():
        unfold(view.locator("#settings"))
    field.fill(str(steps))


@pytest.mark.shared_tab
def test_a_prompt_gives_two_different_pictures_with_their_figures(tab: Page) -> None:
    short(tab)
    tab.locator(PROMPT).fill("solid black background with a wombat")
    tab.get_by_role("button", name="Generate").click()
    expect(tab.locator("#summary")).to_contain_text("wombat", timeout=PATIENCE)
    expect(tab.locator("#summary")).to_contain_text(re.compile(r"mean L\* \d+ → \d+"))
    raw, oms = picture(tab, "raw"), picture(tab, "oms")
    assert ImageChops.difference(raw.convert("RGB"), oms.convert("RGB")).getbbox(), "the two pictures are the same"
    assert "oms_studio" in raw.info, "the settings travel in the file"
    for name in ("raw", "oms"):
        figures = tab.locator(f"#{name}-figures")
        expect(figures).to_contain_text("Mean L*")
        expect(figures).to_contain_text("Mean RGB")
        expect(figures.get_by_role("img")).to_have_accessible_name(re.compile("Histogram of lightness"))
    expect(tab.locator("#status")).to_contain_text("wombat")  # a word the model does not know
    used = tab.locator("#seed input").input_value()
    expect(tab.locator("#summary")).to_contain_text(f"seed {used}")
    tab.get_by_role("button", name="Generate").click()  # the seed stays: the same once more comes at once
    expect(tab.locator("#summary")).to_contain_text("from the cache")
    expect(tab.get_by_role("button", name="Generate")).to_be_enabled()
    expect(tab.locator("#viewer img").first).to_be_visible()


@pytest.mark.shared_tab
def test_a_new_seed_and_a_random_one(tab: Page) -> None:
    short(tab)
    seed, summary = tab.locator("#seed input"), tab.locator("#summary")
    before = seed.input_value()
    tab.get_by_role("button", name="New seed").click()
    expect(seed).not_to_have_value(before)
    seed.fill("-1")
    tab.locator(PROMPT).fill("hills and a random seed")
    tab.get_by_role("button", name="Generate").click()
    expect(summary).to_contain_text("a random seed", timeout=PATIENCE)
    drawn = re.search(r"seed (\d+)", summary.inner_text())
    assert drawn is not None
    expect(seed).to_have_value("-1")
    tab.get_by_role("button", name=f"Reuse seed {drawn[1]}").click()
    expect(seed).to_have_value(drawn[1])


@pytest.mark.shared_tab
def test_bad_input_gets_a_message_and_loses_nothing(tab: Page) -> None:
    short(tab)
    prompt, steps = tab.locator(PROMPT), tab.locator("#steps input")
    prompt.fill("mountains at night")
    steps.fill("0")
    prompt.press("Control+Enter")
    expect(tab.get_by_role("alert")).to_contain_text("Steps is 0: take 1 to 200")
    expect(prompt).to_have_value("mountains at night")
    expect(steps).to_have_value("0")
    expect(tab.get_by_role("button", name="Generate")).to_be_enabled()
    prompt.fill("x" * 10_000)
    tab.get_by_role("button", name="Generate").click()
    expect(tab.get_by_role("alert")).to_contain_text("10,000 characters")
    assert len(prompt.input_value()) == 10_000


@pytest.mark.shared_tab
def test_an_example_answers_at_once(tab: Page) -> None:
    example = tab.locator("#examples button").first
    caption = example.inner_text().strip()
    example.click()
    expect(tab.locator("#summary")).to_contain_text("example", timeout=5_000)
    expect(tab.locator(PROMPT)).to_have_value(caption)
    expect(tab.locator("#oms-figures")).to_contain_text("Mean L*")
    raw, oms = picture(tab, "raw"), picture(tab, "oms")
    assert ImageChops.difference(raw.convert("RGB"), oms.convert("RGB")).getbbox()


@pytest.mark.shared_tab
def test_escape_stops_and_the_settings_stay(tab: Page) -> None:
    short(tab)
    tab.locator("#steps input").fill("200")
    tab.get_by_label("Width").fill("128")  # with a tiny model too, there must be time to stop
    tab.get_by_label("Height").fill("128")
    prompt = tab.locator(PROMPT)
    prompt.fill("snow forest")
    prompt.press("Control+Enter")
    expect(tab.get_by_role("button", name="Stop")).to_be_enabled()
    prompt.press("Escape")
    expect(tab.locator("#status")).to_contain_text("Stopped", timeout=PATIENCE)
    expect(prompt).to_have_value("snow forest")
    expect(tab.get_by_role("button", name="Generate")).to_be_enabled()


def test_the_light_is_shown_while_a_control_moves(tab: Page) -> None:
    light, prompt = tab.locator("#light"), tab.locator(PROMPT)
    prompt.fill("")
    expect(light).to_contain_text("Write a prompt")
    summary = tab.locator("#summary").inner_text()
    tab.locator("#oms-prompt textarea, #oms-prompt input").fill("light")  # words for the light alone are enough
    picture_of_light = light.locator("img")
    expect(picture_of_light).to_be_visible(timeout=PATIENCE)
    expect(picture_of_light).to_have_accessible_name(re.compile(r"mean L\* \d+, colour cast"))
    where = place(light)
    for move in (
        lambda: tab.locator("#oms-cfg input[type=range]").press("ArrowRight"),
        lambda: tab.locator("#seed input").fill("8"),
        lambda: tab.get_by_label("Slide between two").check(),
        lambda: tab.locator("#oms-mix input[type=range]").press("End"),
    ):
        before = picture_of_light.get_attribute("src") or ""
        assert before.startswith("data:image/png"), "no file is left behind for others to find"
        move()
        tab.wait_for_function("before => document.querySelector('#light img').src !== before", arg=before)
    assert place(light) == where, "it jumps"
    assert tab.locator("#summary").inner_text() == summary, "a preview is no picture"
    tab.get_by_label("Left end").fill("x" * 3_000)
    expect(light.get_by_role("status")).to_contain_text("3,000 characters")
    expect(tab.locator("#status .oms-note")).to_have_count(0)
    prompt.fill("sea")
    tab.get_by_label("Left end").fill("light")
    expect(picture_of_light).to_be_visible()


def test_the_pictures_are_seen_while_they_are_painted(tab: Page) -> None:
    short(tab)
    tab.locator("#steps input").fill("36")
    tab.locator(PROMPT).fill("mountains at night")
    tab.locator("#oms-cfg input[type=number]").fill("2")
    tab.get_by_label("Show OMS without CFG too").check()
    expect(tab.locator("#plain-image")).to_be_visible()
    panels = [tab.locator(f"#{name}-image") for name in ("raw", "oms", "plain")]
    places = [place(panel) for panel in panels]
    tab.get_by_role("button", name="Generate").click()
    for name in ("raw", "oms", "plain"):
        expect(tab.locator(f"#{name}-live img")).to_be_visible(timeout=PATIENCE)
    expect(tab.locator("#status")).to_contain_text(re.compile(r"step \d+ of 36"))
    tab.get_by_role("button", name="Zoom in").click()
    for name in ("raw", "oms"):  # there was no third picture
        live, under = (place(tab.locator(f"#{name}-{what} img")) for what in ("live", "image"))
        assert live == pytest.approx(under, abs=1), "a preview is zoomed as the picture under it"
    tab.get_by_role("button", name="Fit").click()
    assert [place(panel) for panel in panels] == places, "a panel jumps"
    expect(tab.locator("#summary")).to_contain_text("mountains at night", timeout=PATIENCE)
    for name in ("raw", "oms", "plain"):
        expect(tab.locator(f"#{name}-live img")).to_be_hidden()  # it has faded
        expect(tab.locator(f"#{name}-figures")).to_contain_text("Colour cast")
    assert [place(panel) for panel in panels] == places, "a panel jumps"
    pixels = {picture(tab, name).convert("RGB").tobytes() for name in ("raw", "oms", "plain")}
    assert len(pixels) == 3


@pytest.mark.shared_tab
def test_a_reload_keeps_the_settings(tab: Page) -> None:
    short(tab)
    tab.locator(PROMPT).fill("a red house")
    tab.get_by_label("Negative prompt").fill("snow")
    tab.locator("#oms-cfg input[type=number]").fill("2.5")
    tab.locator("#seed input").fill("77")
    tab.get_by_label("Slide between two").check()
    tab.get_by_label("Left end").fill("storm")
    expect(tab.locator("#oms-mix")).to_be_visible()
    expect(tab.locator("#steps input")).to_have_value("4")
    tab.wait_for_function(  # every change has been written
        """() => {
            const [now, before] = [localStorage.getItem('oms-studio-create'), window.writtenBefore];
            window.writtenBefore = now;
            return now !== null && now === before;
        }""",
        polling=1000,
    )
    tab.reload()
    expect(tab.locator(PROMPT)).to_have_value("a red house")
    expect(tab.locator("#oms-cfg input[type=number]")).to_have_value("2.5")
    expect(tab.locator("#seed input")).to_have_value("77")
    expect(tab.get_by_label("Left end")).to_have_value("storm")  # the mode is back, and what belongs to it is shown
    unfold(tab.locator("#settings"))
    expect(tab.locator("#steps input")).to_have_value("4")
    expect(tab.get_by_label("Negative prompt")).to_have_value("snow")


@pytest.mark.slow
def test_two_people_at_once_see_their_own_pictures(tab: Page, browser: Browser, page: str) -> None:
    other_context = browser.new_context()
    other = other_context.new_page()
    other.goto(page)
    expect(other.get_by_role("button", name="Generate")).to_be_enabled()
    expect(other.locator(PROMPT)).to_have_value(
        re.compile("black|mountains")
    )  # of the example, not of the other visitor
    people = ((tab, "snow forest", 11), (other, "sea at sunset", 22))
    for view, prompt, seed in people:
        short(view)
        view.locator("#steps input").fill("200" if view is tab else "20")  # the second has time to wait
        view.locator(PROMPT).fill(prompt)
        view.locator("#seed input").fill(str(seed))
    tab.get_by_role("button", name="Generate").click()
    expect(tab.locator("#oms-live img")).to_be_visible(timeout=PATIENCE)
    other.get_by_role("button", name="Generate").click()
    expect(other.locator("#status")).to_contain_text("Waiting in the queue")
    expect(other.locator("#waiting")).to_contain_text("queue")  # and its place in it
    expect(other.locator("#oms-live img")).to_have_count(0)
    expect(tab.locator("#summary")).to_contain_text("snow forest", timeout=PATIENCE)
    expect(tab.locator("#summary")).to_contain_text("seed 11")
    expect(other.locator("#summary")).to_contain_text("sea at sunset", timeout=PATIENCE)
    expect(other.locator("#summary")).to_contain_text("seed 22")
    for view, prompt, seed in people:
        said = picture(view, "oms").info["oms_studio"]
        assert f'"{prompt}"' in said and f'"seed":{seed}' in said.replace(" ", "")
    other_context.close()


@pytest.mark.shared_tab
def test_the_compare_tab_paints_every_remedy_in_a_row(tab: Page) -> None:
    go_to(tab, "Compare")
    expect(tab.locator("#compare-methods")).to_be_visible()
    tab.locator("#compare-prompt textarea").fill("solid white background")
    boxes = tab.locator("#compare-methods input")
    chosen = [box for box in boxes.all() if box.is_checked()]
    assert len(chosen) >= 3
    tab.locator("#compare-prompt textarea").press("Control+Enter")
    expect(tab.locator("#compare-summary")).to_contain_text("solid white background", timeout=PATIENCE)
    panels = tab.locator(".oms-compared:visible")
    expect(panels).to_have_count(len(chosen))
    sources = {panel.locator("img").first.get_attribute("src") for panel in panels.all()}
    assert len(sources) == len(chosen)
    for panel in panels.all():
        expect(panel).to_contain_text("Mean L*")
    for box in chosen:
        box.uncheck()
    tab.get_by_role("button", name="Compare").click()
    expect(tab.locator("#compare-status").get_by_role("alert")).to_contain_text("choose 1 to 12 pictures")
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "the page scrolls sideways on a phone"
    tab.set_viewport_size({"width": 1440, "height": 900})


def test_the_page_opens_with_a_finished_pair_and_everything_on_the_screen(browser: Browser, page: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    view = context.new_page()
    view.add_init_script(
        "window.shift = 0; new PerformanceObserver(list => list.getEntries().forEach(one => window.shift += one.value))"
        ".observe({type: 'layout-shift', buffered: true})"
    )
    view.goto(page)
    expect(view.locator("#summary")).to_contain_text("example")
    expect(view.locator("#viewer img").first).to_be_visible()
    view.wait_for_timeout(1_000)  # the last parts are drawn
    on_screen = (
        "#raw-image img",
        "#oms-image img",
        "#viewer",
        PROMPT,
        "#generate",
        "#oms-prompt",
        "#oms-cfg",
        "#luminance",
        "#tint",
        "#warmth",
        "#light-pad",
    )
    boxes = {name: view.locator(name).first.bounding_box() for name in on_screen}
    for name, box in boxes.items():
        assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 800, (name, box)
    assert all(boxes[name]["width"] >= 220 for name in on_screen[:3]), boxes  # type: ignore[index]
    assert view.evaluate("window.shift") <= 0.05
    view.locator("#restore").evaluate("last => last.scrollIntoView({block: 'end'})")  # of the settings
    view.wait_for_timeout(300)
    top = view.locator("#oms-image img").bounding_box()
    assert top is not None and top["y"] >= 0, "the pictures stay while the settings scroll"
    view.locator("#examples button").last.scroll_into_view_if_needed()
    show, start = place(view.locator("#show")), place(view.locator("#start"))
    assert show[1] + show[3] <= start[1], "the pictures lie over the looks"
    context.close()


def test_on_a_phone_the_corrected_picture_is_on_the_screen_and_the_light_fits(browser: Browser, page: str) -> None:
    with opened(browser, page, 390, 844) as view:
        expect(view.locator("#oms-image img")).to_be_visible()
        box = view.locator("#oms-image img").bounding_box()
        assert box is not None and box["y"] + box["height"] <= 844
        expect(view.locator("#oms-prompt")).to_be_visible()
        view.get_by_label("Slide between two").check()
        expect(view.locator("#oms-mix")).to_be_visible()
        expect(view.locator("#oms-prompt")).to_be_hidden()
        expect(view.get_by_label("Left end")).to_have_value("dark")
        view.locator("#light-pad").get_by_label("Painting").check()
        expect(view.locator("#light-canvas canvas").first).to_be_visible()
        assert view.evaluate("document.documentElement.scrollWidth") <= 390, "the page scrolls sideways on a phone"
