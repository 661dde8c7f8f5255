"""The tab Models and what it asks for: downloads with Stop, models of one's own, hostile files, the store's figures."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, running_app
from playwright.sync_api import Browser, expect
from safetensors.torch import save_file
from test_browser import PATIENCE, browser  # noqa: F401
from test_hub import Hub, entry
from tiny import make_world

from dev.full_size.ldm import to_single_file
from oms_app import GenerateRequest, StudioError
from oms_app.engine.service import StudioService
from oms_app.errors import Stopped
from oms_app.models import hub
from oms_app.models import user_models as own
from oms_app.models.catalog import MARKER, OWN, open_catalog
from oms_app.models.hub import _require_room, fetch
from oms_app.schema import Lora, Transfer, Variant
from oms_app.ui import model_cards

RAW = (Variant(name="raw"),)
PIECE = 10 * 2**20  # bytes: what huggingface_hub reads at a time


def make_lora(path: Path, module: str = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k") -> Path:
    """A LoRA of the tiny base in kohya's key format, strong enough to be seen."""
    torch.manual_seed(0)
    stem = "lora_unet_" + module.replace(".", "_")
    save_file(
        {
            f"{stem}.lora_down.weight": torch.randn(2, 32),
            f"{stem}.lora_up.weight": torch.randn(32, 2),
            f"{stem}.alpha": torch.tensor(2.0),
        },
        path,
    )
    return path


@pytest.fixture
def base(lumen: Path, tmp_path: Path) -> Path:
    """A diffusers folder of the user's own."""
    parts = shutil.ignore_patterns("oms", "singdiffusion", "signal_leak", "examples")
    return Path(shutil.copytree(lumen, tmp_path / "My Model", ignore=parts))


@pytest.fixture
def late(presets: Path, monkeypatch: pytest.MonkeyPatch) -> StudioService:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    return StudioService(device="cpu")


def test_a_download_tells_how_far_it_is_stops_and_goes_on(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "weights.safetensors").write_bytes(bytes(2 * PIECE + 5))
    hub = Hub({"someone/something": repository})
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    told: list[Transfer] = []
    large = entry(files=["*.safetensors"], size=2 * PIECE)
    with pytest.raises(Stopped):
        fetch(large, tmp_path / "thing", hub.address, on_progress=told.append, should_stop=lambda: bool(told))
    assert [news.done for news in told] == [PIECE]
    assert not (tmp_path / "thing" / MARKER).exists()
    told.clear()
    fetch(large, tmp_path / "thing", hub.address, on_progress=told.append)
    assert told[-1].done == told[-1].total == 2 * PIECE + 5
    assert [news.done for news in told] == sorted(news.done for news in told)
    assert hub.sent == ["weights.safetensors@0", f"weights.safetensors@{PIECE}"], "it went on where it was"
    hub.shutdown()
    hub.server_close()


def test_a_full_disk_is_told_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"takes 1000000.0 GB, and .* GB free: free some space there"):
        _require_room(entry(), tmp_path / "thing", 10**15)


def test_a_hub_that_hangs_up_is_a_plain_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/w.safetensors").write_bytes(bytes(1000))
    hub = Hub({"someone/something": tmp_path / "repository"})
    hub.broken_after = 0
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with pytest.raises(StudioError, match=r"cannot be downloaded .* it continues where it stopped"):
        fetch(entry(files=["*.safetensors"]), tmp_path / "thing", hub.address)
    hub.shutdown()
    hub.server_close()


def test_what_a_base_needs_follows_from_its_latent_domain(own_home: Path) -> None:
    catalog = open_catalog()
    infos = {info.id: info for info in catalog.infos()}
    assert infos["sd15"].needs == infos["sd21"].needs == ("oms-b-openclip-15-21", "openclip-vit-h")
    assert infos["sdxl"].needs == ("oms-b-openclip-xl", "openclip-vit-h")
    assert infos["lumen"].needs == ("lumen-oms",)
    assert set(needed for info in infos.values() for needed in info.needs) <= set(infos)
    assert model_cards.to_fetch(infos, "sd15", whole=False) == ["sd15"]
    assert model_cards.to_fetch(infos, "sd15", whole=True) == ["sd15", "oms-b-openclip-15-21", "openclip-vit-h"]
    assert model_cards.to_fetch(infos, "lumen", whole=True) == [], "all of it comes with the app"
    assert model_cards.to_fetch(infos, "../../etc", whole=True) == []
    cards = model_cards.catalogue(list(infos.values()), local=True)
    assert "Download · 2.7 GB" in cards and "With One More Step · 3.7 GB" in cards
    assert "<button" not in model_cards.catalogue(list(infos.values()), local=False)
    assert cards.count("<button") == model_cards.catalogue(list(infos.values()), True, busy=True).count(" disabled>")


def test_models_of_ones_own_paint_and_are_remembered(late: StudioService, base: Path, tmp_path: Path) -> None:
    lora = make_lora(tmp_path / "Bold style.safetensors")
    mine, style = late.add_model(f' "{base}" '), late.add_model(str(lora))
    assert (mine.id, mine.kind, mine.own, mine.available) == ("my-model", "base", True, True)
    assert (style.id, style.kind, style.title) == ("bold-style", "lora", "Bold style")
    plain = late.generate(GenerateRequest(prompt="sea", model="my-model", seed=1, num_inference_steps=2))
    assert [image.variant for image in plain.images] == ["raw", "oms"], "its module was found by its latents"
    bold = late.generate(plain.request.model_copy(update={"loras": (Lora(id="bold-style"),), "variants": RAW}))
    assert np.any(np.asarray(plain.images[0].image) != np.asarray(bold.images[0].image))
    again = StudioService(device="cpu")
    assert {info.id for info in again.models() if info.own} == {
        "my-model",
        "bold-style",
    } and not again.catalog_warnings()
    assert late.forget_model("my-model") == str(base) and base.is_dir()
    lora.unlink()
    [left] = [info for info in StudioService(device="cpu").models() if info.own]
    assert (left.id, left.available) == ("bold-style", False)
    with pytest.raises(StudioError, match=r"'bold-style' is no longer at"):
        late.generate(bold.request.model_copy(update={"model": "lumen"}))
    with pytest.raises(StudioError, match="not a model that you added"):
        late.forget_model("lumen")


def test_nothing_of_the_engine_is_imported_beside_its_loading(
    late: StudioService, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers loads its classes lazily: two threads that do so at once find each other's modules half made."""
    gate = threading.Event()
    order: list[str] = []
    load, add = late._load, own.add

    def noted(*given: Any) -> Any:
        order.append("add")
        return add(*given)

    def slowly() -> Any:
        assert gate.wait(PATIENCE / 1000)
        order.append("loaded")
        return load()

    monkeypatch.setattr(late, "_load", slowly)
    monkeypatch.setattr(own, "add", noted)
    monkeypatch.setattr(hub, "fetch", lambda *given, **named: order.append("fetch"))
    with ThreadPoolExecutor() as pool:
        asked: list[Future[Any]] = [pool.submit(late.add_model, str(base)), pool.submit(late.download, "lumen")]
        done, _ = wait(asked, timeout=0.5)
        assert not done and not order
        gate.set()
        for each in asked:
            each.result()
    assert order[0] == "loaded" and sorted(order[1:]) == ["add", "fetch"]


def test_a_dropped_file_is_kept_in_the_users_folder(late: StudioService, tmp_path: Path, own_home: Path) -> None:
    for expected in ("style", "style-2"):
        dropped = make_lora(tmp_path / "Style.safetensors")
        info = late.keep_model(dropped)
        assert (info.id, info.title) == (expected, "Style")
        assert not dropped.exists() and (own_home / f"models/own/{expected}.safetensors").is_file()
    (tmp_path / "notes.safetensors").write_text("not a model")
    with pytest.raises(StudioError, match=r"^notes.safetensors cannot be read as safetensors"):
        late.keep_model(tmp_path / "notes.safetensors")
    assert len(list((own_home / "models/own").iterdir())) == 2


def test_an_oms_module_of_ones_own(late: StudioService, lumen: Path, tmp_path: Path) -> None:
    module = late.add_model(str(shutil.copytree(lumen / "oms", tmp_path / "my oms")))
    assert (module.id, module.kind) == ("my-oms", "oms")
    with pytest.raises(StudioError, match="in the list already, as Tiny OMS"):
        late.add_model(str(lumen / "oms"))


def test_a_single_file_says_what_it_is(late: StudioService, lumen: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    save_file(to_single_file(pipeline, "sd15"), tmp_path / "dreamy.safetensors")
    info = late.add_model(str(tmp_path / "dreamy.safetensors"))
    assert (info.kind, info.domain, info.defaults.width if info.defaults else 0) == ("base", "sd", 512)


def _pickle(path: Path, _: Path) -> Path:
    path.with_suffix(".ckpt").write_bytes(pickle.dumps({"weights": [1.0]}))
    return path.with_suffix(".ckpt")


def _disguised(path: Path, _: Path) -> Path:
    _pickle(path, path).rename(path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def _truncated(path: Path, _: Path) -> Path:
    whole = make_lora(path.with_suffix(".safetensors"))
    whole.write_bytes(whole.read_bytes()[:-10])
    return whole


def _vae(path: Path, base: Path) -> Path:
    return Path(shutil.copy(base / "vae/diffusion_pytorch_model.safetensors", path.with_suffix(".safetensors")))


def _remote(path: Path, base: Path) -> Path:
    index = json.loads((base / "model_index.json").read_text()) | {"unet": ["evil_code", "Net"]}
    (base / "model_index.json").write_text(json.dumps(index))
    return base


def _linked(path: Path, base: Path) -> Path:
    (base / "unet/config.json").rename(path)
    (base / "unet/config.json").symlink_to(path)
    return base


def _linked_part(path: Path, base: Path) -> Path:
    (base / "vae").rename(path)
    (base / "vae").symlink_to(path)
    return base


def _cut(path: Path, base: Path) -> Path:
    weights = base / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    return base


def _broken(path: Path, base: Path) -> Path:
    (base / "vae/config.json").write_text("[]")
    return base


def _pickled(path: Path, base: Path) -> Path:
    (base / "unet/diffusion_pytorch_model.safetensors").unlink()
    (base / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(1))
    return base


def _empty(path: Path, base: Path) -> Path:
    (base / "unet/diffusion_pytorch_model.safetensors").unlink()
    return base


HOSTILE: dict[str, tuple[Callable[[Path, Path], Path | str], str]] = {
    "a pickle": (_pickle, "is a pickle, which can run any code"),
    "a pickle under another name": (_disguised, "cannot be read as safetensors"),
    "a truncated file": (_truncated, "cannot be read as safetensors"),
    "only a VAE": (_vae, "contains no UNet in Stable Diffusion's layout"),
    "a text": (lambda path, base: base / "vocabulary.json", "is not a model: give a folder"),
    "a folder without an index": (lambda path, base: base / "unet", "without a model_index.json"),
    "code of its own": (_remote, "needs code from 'evil_code', which is never run"),
    "a link out of the folder": (_linked, "is a link that leads out of its folder"),
    "a part that is a link": (_linked_part, "is a link that leads out of its folder"),
    "truncated weights": (_cut, "cannot be read as safetensors"),
    "a config that is none": (_broken, "contains no JSON object"),
    "a pickle in a folder": (_pickled, "is a pickle, which can run any code"),
    "no weights": (_empty, "contains no .safetensors weights"),
    "nothing": (lambda path, base: " ", "no path was given"),
    "nowhere": (lambda path, base: "/not/there", "there is nothing at '/not/there'"),
    "half a path": (lambda path, base: "models/x.safetensors", "is not an absolute path"),
    "a device": (lambda path, base: "/dev/zero", "is not a model"),
    "a name too long": (lambda path, base: "/" + "x" * 300, "cannot be read"),
    "no path at all": (lambda path, base: "/a\0b", "is not a path"),
    "nobody's home": (lambda path, base: "~nobody-there/x", "cannot be read"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_line(
    case: str, late: StudioService, base: Path, tmp_path: Path, own_home: Path
) -> None:
    make, said = HOSTILE[case]
    with pytest.raises(StudioError) as refused:
        late.add_model(str(make(tmp_path / "thing", base)))
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not any(info.own for info in late.models()) and not (own_home / "models" / OWN).exists()


def test_the_hubs_own_cache_may_link_to_its_blobs(late: StudioService, base: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b/snapshots/0123"
    shutil.copytree(base, snapshot)
    blobs = tmp_path / "models--a--b/blobs"
    blobs.mkdir()
    (snapshot / "unet/config.json").rename(blobs / "abc")
    (snapshot / "unet/config.json").symlink_to("../../../blobs/abc")
    assert late.add_model(str(snapshot)).kind == "base"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("not JSON", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"models": [3]}', "an entry was skipped"),
        ('{"models": [{"id": "../x", "kind": "base", "title": "X", "folder": "/x"}]}', "id: String should match"),
        ('{"models": [{"id": "x", "kind": "lora", "title": "X", "folder": "x"}]}', "with an absolute path"),
        ('{"models": [{"id": "x", "kind": "text", "title": "X", "folder": "/x"}]}', "with an absolute path"),
        ('{"models": [{"id": "lumen-oms", "kind": "oms", "title": "X", "folder": "/x"}]}', "is taken"),
    ],
)
def test_the_list_is_validated_when_it_is_read_back(told: str, said: str, presets: Path, own_home: Path) -> None:
    (own_home / "models").mkdir(parents=True)
    (own_home / "models" / OWN).write_text(told)
    catalog = open_catalog(presets)
    assert not catalog.own and said in catalog.warnings[0] and "\n" not in catalog.warnings[0]


def test_loras_go_into_the_request() -> None:
    from test_app import CREATE

    assert replace(CREATE, loras=["a", "b"], lora_scale=0.5).to_request().loras == (
        Lora(id="a", scale=0.5),
        Lora(id="b", scale=0.5),
    )
    assert replace(CREATE, loras=[], lora_scale=0.5).to_request().loras == ()
    with pytest.raises(StudioError, match=r"LoRA strength is 9.0: take -4 to 4"):
        replace(CREATE, loras=["a"], lora_scale=9.0).to_request()


LAYOUT = """
import json
from oms_app.engine.service import StudioService
from oms_app.ui.demo import create_demo
late = StudioService(device="cpu")
for local in (True, False):
    demo = create_demo(late, local=local)
    ids = [block.elem_id for block in demo.blocks.values() if getattr(block, "elem_id", None)]
    print(json.dumps([ids, [function.name for function in demo.fns.values()]]))
"""


def test_a_space_offers_no_paths_and_no_downloads(presets: Path, own_home: Path) -> None:
    environment = os.environ | {"OMS_PRESETS": str(presets), "GRADIO_ANALYTICS_ENABLED": "False"}
    run = subprocess.run(
        [sys.executable, "-c", LAYOUT],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    at_home, on_a_space = ([set(names) for names in json.loads(line)] for line in run.stdout.splitlines())
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
def faraway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path]]:
    """A hub with a tiny base and a module for it, and the presets of a world that names them."""
    presets = make_world(tmp_path_factory.mktemp("faraway"))
    assets = presets.parents[1] / "assets"
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
    with running_app(environment, tmp_path / "app.txt") as address:
        view = browser.new_page(viewport={"width": 1280, "height": 900})
        broken: list[str] = []
        view.on("pageerror", lambda error: broken.append(str(error)))
        view.set_default_timeout(30_000)
        view.goto(address)
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
        view.close()
        assert broken == []
