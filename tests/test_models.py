"""The tab Models and what it asks for: downloads with Stop, models of one's own, hostile files, the store's figures."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file
from test_browser import PATIENCE, browser  # noqa: F401
from test_hub import PIECE, Hub, entry
from tiny import make_lora

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
    } and not again.warnings()
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
