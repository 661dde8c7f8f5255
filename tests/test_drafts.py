"""Drafts: the picture in few steps while a control moves, in the engine and in a real browser."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect
from test_browser import PATIENCE, browser, tab

from oms_app import GenerateRequest, Studio, Variant
from oms_app.engine import drafts
from oms_app.engine.service import StudioService
from oms_app.paths import EMBEDDED_FOLDER
from oms_app.schema import GenerateResult

__all__ = ["browser", "tab"]  # fixtures of this module too
DARK = Variant(name="oms", correction="oms", prompt="night")
REQUEST = GenerateRequest(prompt="city", seed=8, variants=(DARK,))


def test_a_draft_has_few_steps_and_a_model_for_few_steps_keeps_its_own(studio: Studio) -> None:
    complete = studio.complete(REQUEST.model_copy(update={"num_inference_steps": 20, "exact": True}))
    draft = drafts.in_few_steps(complete)
    assert (draft.num_inference_steps, draft.scheduler, draft.exact) == (drafts.STEPS, drafts.SOLVER, False)
    assert (draft.seed, draft.variants) == (complete.seed, complete.variants)
    lcm = drafts.in_few_steps(complete.model_copy(update={"scheduler": "lcm", "num_inference_steps": 4}))
    assert (lcm.num_inference_steps, lcm.scheduler) == (4, "lcm")


def test_a_big_model_on_a_processor_has_no_drafts(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    assert studio.draft(REQUEST) is not None
    monkeypatch.setattr("oms_app.engine.studio.MOST_BYTES_ON_CPU", 1000)
    assert studio.draft(REQUEST) is None


@pytest.mark.skipif(not (EMBEDDED_FOLDER / "unet").is_dir(), reason="the embedded model is not trained")
def test_a_draft_is_close_to_the_finished_picture(embedded: Studio) -> None:
    draft, whole = (embedded.draft(REQUEST, whole=whole) for whole in (False, True))
    assert draft is not None and whole is not None
    raw = embedded.generate(REQUEST.model_copy(update={"variants": (Variant(name="raw"),)}))
    values = [np.asarray(result.images[0].image, float) for result in (draft, whole, raw)]
    apart, changed = np.abs(values[0] - values[1]).mean(), np.abs(values[2] - values[1]).mean()
    assert apart < changed / 5, (apart, changed)
    assert abs(draft.images[0].stats.lightness - whole.images[0].stats.lightness) < 3
    generated = embedded.generate(REQUEST)
    assert generated.painted == 0, "Generate takes the finished one from the cache"


def test_a_draft_makes_way_for_a_request(late: StudioService) -> None:
    """Nobody waits for a draft: one of 200 steps ends within a step once a request comes."""
    late.generate(REQUEST.model_copy(update={"num_inference_steps": 1}))
    long = REQUEST.model_copy(update={"num_inference_steps": 200, "width": 128, "height": 128})
    with ThreadPoolExecutor(1) as pool:
        draft = pool.submit(late.draft, long, whole=True)
        time.sleep(0.3)
        stream = late.stream(REQUEST.model_copy(update={"num_inference_steps": 2, "seed": 5}), threading.Event())
        *_, result = stream
        assert isinstance(result, GenerateResult) and draft.result(timeout=60) is None


@pytest.mark.browser
def test_the_picture_follows_a_control_and_is_not_saved(tab: Page) -> None:
    began = time.time()
    expect(tab.get_by_label("Live")).to_be_checked()
    under, draft = tab.locator(".oms-view-oms img"), tab.locator("#draft img")
    expect(under).to_be_visible()
    first = under.get_attribute("src")
    strength = tab.locator("#oms-cfg input[type=range]")
    strength.press("ArrowRight")
    expect(draft).to_be_visible(timeout=PATIENCE)
    expect(tab.locator("#draft")).to_contain_text("not saved: press Generate", timeout=PATIENCE)
    last = draft.get_attribute("src")
    assert last is not None and under.get_attribute("src") == last and last.startswith("data:image/png")
    tab.locator("#generate").click()
    expect(tab.locator("#summary")).to_contain_text("20 steps", timeout=PATIENCE)
    expect(draft).to_be_hidden()
    assert under.get_attribute("src") not in (first, last)
    folder = Path(tab.locator("#history-strip").inner_text().partition("Saved in ")[2].strip())
    saved = [path for path in folder.glob("*.png") if path.stat().st_mtime >= began]
    assert len(saved) == 2, "drafts are not saved"
    updating = tab.locator("#pictures.oms-updating")
    held: list[Route] = []
    tab.route("**/run/predict", lambda route: held.append(route))
    strength.press("ArrowRight")
    expect(updating).to_have_count(1)
    for route in list(held):
        route.fulfill(status=500, json={"error": "it failed"})
    tab.unroute("**/run/predict")
    expect(updating).to_have_count(0)
    expect(draft).to_be_hidden()
    tab.get_by_label("Live").uncheck()
    strength.press("ArrowRight")
    expect(tab.locator("#light img")).to_be_visible()
    tab.wait_for_timeout(2_000)
    expect(draft).to_be_hidden()
    expect(updating).to_have_count(0)
