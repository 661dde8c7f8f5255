"""Models on the page: what the tab offers, downloads with progress, LoRAs in a request, figures of the store."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import built_page, running_app
from playwright.sync_api import Browser, expect
from test_browser import PATIENCE, browser, opened  # noqa: F401
from test_hub import PIECE, Hub
from tiny import make_lora

from oms_app import GenerateRequest, StudioError
from oms_app.engine.service import StudioService
from oms_app.models.catalog import MARKER
from oms_app.schema import Lora, Transfer
from oms_app.ui import model_cards


def test_loras_go_into_the_request() -> None:
    from test_app import CREATE

    assert replace(CREATE, loras=["a", "b"], lora_scale=0.5).to_request().loras == (
        Lora(id="a", scale=0.5),
        Lora(id="b", scale=0.5),
    )
    assert replace(CREATE, loras=[], lora_scale=0.5).to_request().loras == ()
    with pytest.raises(StudioError, match=r"LoRA strength is 9.0: take -4 to 4"):
        replace(CREATE, loras=["a"], lora_scale=9.0).to_request()


def test_a_space_offers_no_paths_and_no_downloads(late: StudioService) -> None:
    def named(local: bool) -> tuple[set[str | None], set[str]]:
        page = built_page(late, local=local)
        return {block.elem_id for block in page.blocks.values()}, {function.name for function in page.fns.values()}

    at_home, on_a_space = named(local=True), named(local=False)
    assert {"catalogue", "statistics", "model", "loras"} <= at_home[0] & on_a_space[0]
    offered = {"own-path", "own-add", "own-drop", "models-stop"}
    assert offered <= at_home[0] and not offered & on_a_space[0]
    handlers = {"by_path", "by_file"}
    assert handlers <= at_home[1] and not handlers & on_a_space[1]


def test_the_figures_of_the_store(late: StudioService) -> None:
    assert "–" in model_cards.statistics(None)
    late.generate(GenerateRequest(prompt="sea", seed=1, num_inference_steps=1))
    counts = late.statistics()
    assert counts["models"] == counts["misses"] == 2 and 0 < counts["bytes_used"] <= counts["budget"]
    html = model_cards.statistics(counts)
    assert "<dd>2</dd>" in html and "for models" in html


def test_how_far_and_how_long() -> None:
    news = Transfer(done=1_500_000_000, total=3_000_000_000)
    assert "Downloading &lt;X&gt;: 1.5 GB of 3.0 GB, about 40 s left" in model_cards.transfer("<X>", news, 40.0)
    assert "about 5 min left" in model_cards.transfer("X", news, 300.0)
    assert model_cards.size(5_000_000) == "5 MB"


@pytest.fixture(scope="module")
def faraway(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path]]:
    """A hub with a tiny base and a module for it, and the presets of a world that names them."""
    world = Path(shutil.copytree(presets.parents[1], tmp_path_factory.mktemp("faraway") / "world"))
    presets, assets = world / "presets/models", world / "assets"
    shutil.copytree(assets / "lumen", assets / "faraway", ignore=shutil.ignore_patterns("oms", "sing*", "signal*"))
    shutil.copytree(assets / "alien", assets / "faraway-oms")
    (assets / "faraway/extra.safetensors").write_bytes(bytes(2 * PIECE + 5))
    told = json.loads((presets / "lumen.json").read_text()) | {"domain": "far", "folder": "", "size": 1_000_000}
    files = [str(p.relative_to(assets / "faraway")) for p in (assets / "faraway").rglob("*") if p.is_file()]
    fetched = {"id": "faraway", "title": "Faraway", "repository": "someone/faraway", "files": files}
    (presets / "faraway.json").write_text(json.dumps(told | fetched))
    module = {"id": "faraway-oms", "kind": "oms", "title": "Faraway OMS", "domain": "far", "size": 200_000}
    module |= {"repository": "someone/faraway-oms", "files": ["model_index.json", "oms_module/*", "oms_*/config.json"]}
    (presets / "faraway-oms.json").write_text(json.dumps(module))
    hub = Hub({"someone/faraway-oms": assets / "faraway-oms", "someone/faraway": assets / "faraway"})
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    yield hub, presets
    hub.shutdown()
    hub.server_close()


@pytest.mark.browser
def test_on_the_page(
    browser: Browser,  # noqa: F811
    faraway: tuple[Hub, Path],
    base: Path,
    tmp_path: Path,
    own_home: Path,
) -> None:
    hub, presets = faraway
    environment = {"OMS_HOME": str(own_home), "OMS_PRESETS": str(presets), "HF_ENDPOINT": hub.address}
    with running_app(environment, tmp_path / "app.txt") as address, opened(browser, address, 1280, 900) as view:
        view.get_by_role("tab", name="Models").click()
        card = view.locator("article[data-model=faraway]")
        expect(card).to_contain_text("One More Step needs: Faraway OMS")
        hub.gate = threading.Event()
        card.get_by_role("button", name="With One More Step").click()
        status = view.locator("#models-status")
        expect(status).to_contain_text(
            re.compile(r"Downloading Faraway \(1 of 2\): 1\d MB of 2\d MB"), timeout=PATIENCE
        )
        expect(card.get_by_role("button").first).to_be_disabled()
        view.locator("#models-stop").click()
        hub.gate.set()
        expect(status).to_contain_text("Stopped. The next download continues", timeout=PATIENCE)
        hub.gate = None
        assert not (own_home / "models/faraway" / MARKER).exists()
        card.get_by_role("button", name="With One More Step").click()
        expect(status).to_contain_text("Faraway and Faraway OMS: downloaded", timeout=PATIENCE)
        expect(card.locator(".oms-state")).to_have_text("Available")
        expect(card.get_by_role("button")).to_have_count(0)
        assert (own_home / "models/faraway" / MARKER).is_file() and (own_home / "models/faraway-oms" / MARKER).is_file()

        path, added = view.locator("#own-path textarea, #own-path input"), view.locator("#own-status")
        path.fill("/etc/passwd")
        view.get_by_role("button", name="Add", exact=True).click()
        expect(added.get_by_role("alert")).to_contain_text("/etc/passwd is not a model", timeout=PATIENCE)
        path.fill(str(base))
        path.press("Enter")
        expect(added).to_contain_text("My Model is now in the list of Create", timeout=PATIENCE)
        view.locator("#own-drop input[type=file]").set_input_files(make_lora(tmp_path / "Bold.safetensors"))
        expect(added).to_contain_text("Bold is now in the list of Create", timeout=PATIENCE)
        expect(view.locator("#catalogue")).to_contain_text("Bold")

        view.get_by_role("tab", name="Compare").click()
        for title in ("Faraway", "My Model"):
            expect(view.locator("#compare-models").get_by_label(title, exact=True)).to_be_visible()
        view.reload()  # a page that opens later knows them too
        view.get_by_role("button", name="Picture settings").click()
        view.locator("#model input").click()
        view.get_by_role("option", name="My Model").click()
        view.locator("#loras input").click()
        view.get_by_role("option", name="Bold").click()
        view.locator("#steps input").fill("2")
        view.locator("#prompt textarea").fill("sea")
        view.get_by_role("button", name="Generate").click()
        expect(view.locator("#summary")).to_contain_text("sea", timeout=PATIENCE)
        view.reload()  # what was chosen is still, though the page was laid out before either of them came
        view.get_by_role("button", name="Picture settings").click()
        expect(view.locator("#model input")).to_have_value("My Model")
        expect(view.locator("#loras")).to_contain_text("Bold")
        view.get_by_role("tab", name="Models").click()
        expect(view.locator("#statistics")).to_contain_text("for models")
        view.locator("article[data-model=my-model]").get_by_role("button", name="Remove from the list").click()
        expect(view.locator("#models-status")).to_contain_text("My Model is removed from the list")
        view.get_by_role("tab", name="Create").click()
        expect(view.locator("#model input")).to_have_value("Tiny")
        view.get_by_role("tab", name="Models").click()
        view.set_viewport_size({"width": 390, "height": 844})
        expect(card).to_be_visible()
        assert view.evaluate("document.documentElement.scrollWidth") <= 390, "the page scrolls sideways on a phone"
