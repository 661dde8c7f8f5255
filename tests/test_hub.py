"""The catalogue's downloads against a hub on this machine, and a module as published, which only names its encoder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, hear_ctrl_c
from page_client import API, Visitor
from PIL import Image
from safetensors.torch import load_file, save_file
from test_faults import page

from oms_app import GenerateRequest, Studio, StudioError
from oms_app.cli import entry as cli
from oms_app.models.catalog import MARKER, Catalog, Entry, open_catalog
from oms_app.models.hub import fetch
from oms_app.schema import Lora

STALL = 11 * 2**20  # bytes: a piece of huggingface_hub's and some more
COMMIT = "0123456789abcdef0123456789abcdef01234567"


PIECE = 10 * 2**20  # bytes: what huggingface_hub reads at a time


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories: what huggingface_hub asks of the true one, and no more."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories = repositories
        self.sent: list[str] = []
        self.broken_after: int | None = None
        self.gate: threading.Event | None = None  # a large file stalls there
        self.claimed: list[str] = []  # files that it says it has besides

    def sibling(self, folder: Path, name: str) -> dict[str, object]:
        """A file as the true hub lists it; large ones with their SHA-256."""
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        told: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
        if name.endswith((".safetensors", ".bin")):
            sha256 = hashlib.sha256(content).hexdigest()
            told["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
        return told

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        for name, folder in self.server.repositories.items():
            if path.startswith(f"/api/models/{name}"):
                files = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file()]
                siblings = [self.server.sibling(folder, f) for f in [*files, *self.server.claimed]]
                told = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False}
                return self.reply(200, json.dumps(told).encode(), body)
            prefix = f"/{name}/resolve/{COMMIT}/"
            if path.startswith(prefix) and (folder / path[len(prefix) :]).is_file():
                return self.file(folder / path[len(prefix) :], body)
        self.reply(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

    def file(self, path: Path, body: bool) -> None:
        content = path.read_bytes()
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        if body:
            self.server.sent.append(f"{path.name}@{start}")
        headers = {"ETag": f'"{digest(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        cut = self.server.broken_after
        if body and cut is not None and len(content) > cut:
            self.send_response(200)
            for key, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[:cut])
            self.close_connection = True
            return
        self.reply(206 if start else 200, content[start:], body, headers)

    def send(self, content: bytes) -> None:
        if gate := self.server.gate:
            if len(content) > STALL:
                self.wfile.write(content[:STALL])
                content = content[STALL:]
                gate.wait(60)
            elif self.headers.get("Range"):  # the client gave up waiting, and asks for the rest
                gate.wait(60)
        with contextlib.suppress(ConnectionError):  # a download that was stopped
            self.wfile.write(content)

    def reply(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.send(content)


def digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet/config.json").write_text("{}")
    (folder / "unet/weights.safetensors").write_bytes(bytes(range(256)) * 400)
    (folder / "unet/weights.bin").write_bytes(b"a pickle")
    (folder / "unet/evil.py").write_text("raise SystemExit")
    (folder / "README.md").write_text("not wanted")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    server = Hub({"someone/something": repository})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def entry(**more: object) -> Entry:
    told = {"id": "thing", "kind": "text", "title": "Thing", "repository": "someone/something", "size": 100_000}
    return Entry.model_validate(told | {"files": ["model_index.json", "unet/*"]} | more)


def test_only_what_is_wanted_is_fetched_and_only_once(hub: Hub, repository: Path, tmp_path: Path) -> None:
    folder = fetch(entry(), tmp_path / "thing", hub.address)
    got = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert got == {"model_index.json", "unet/config.json", "unet/weights.safetensors", MARKER}
    assert (folder / "unet/weights.safetensors").read_bytes() == (repository / "unet/weights.safetensors").read_bytes()
    sent = len(hub.sent)
    fetch(entry(), tmp_path / "thing", hub.address)
    assert len(hub.sent) == sent


def test_what_comes_damaged_is_not_kept(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / f"thing/.parts/{COMMIT}/unet/weights.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)  # as if the disk had lost its memory
    with pytest.raises(StudioError, match=r"weights.safetensors: checksum mismatch; deleted"):
        fetch(entry(), tmp_path / "thing", hub.address)
    assert not part.exists() and not (tmp_path / "thing" / MARKER).exists()
    fetch(entry(), tmp_path / "thing", hub.address)
    assert not (tmp_path / "thing/.parts").exists() and (tmp_path / "thing" / MARKER).is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_a_download_which_goes_on_later(
    hub: Hub, repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (repository / "unet/weights.safetensors").write_bytes(bytes(range(256)) * (STALL // 256 + 4_000))
    (presets := tmp_path / "presets/models").mkdir(parents=True)
    (presets / "thing.json").write_text(entry().model_dump_json(exclude_defaults=True))
    environment = {"OMS_PRESETS": str(presets), "OMS_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.address}
    folder, hub.gate = tmp_path / "home/models/thing", threading.Event()

    def download() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "oms_app", "download", "thing"]
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
        )

    with download() as process:
        until = time.monotonic() + 120
        while not any(one.stat().st_size for one in folder.rglob("weights.safetensors.part")):
            assert process.poll() is None and time.monotonic() < until, process.stderr and process.stderr.read()
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(number)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130 and time.monotonic() - began < 2 and "Traceback" not in told, told
    assert not (folder / MARKER).exists() and not (folder / "unet/weights.safetensors").exists()
    hub.gate.set()
    with download() as process:
        _, told = process.communicate(timeout=120)
    assert process.returncode == 0 and (folder / MARKER).is_file(), told
    assert digest(folder / "unet/weights.safetensors") == digest(repository / "unet/weights.safetensors")
    assert any(one.startswith("weights.safetensors@") and not one.endswith("@0") for one in hub.sent), hub.sent


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_the_page_while_it_saves_and_downloads(
    hub: Hub, repository: Path, presets: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Both at once: no picture is half-written, and the download goes on later."""
    (repository / "unet/weights.safetensors").write_bytes(bytes(range(256)) * (STALL // 256 + 4_000))
    shutil.copytree(presets.parents[1], tmp_path / "world")
    models = tmp_path / "world/presets/models"
    (models / "thing.json").write_text(entry().model_dump_json(exclude_defaults=True))
    large = (models / "lumen.json").read_text().replace('"max_size": 128', '"max_size": 384')
    (models / "lumen.json").write_text(large)  # pictures that take a while to save
    environment = {
        "OMS_PRESETS": str(models), "OMS_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    pictures, folder = tmp_path / "home/pictures", tmp_path / "home/models/thing"
    hub.gate = threading.Event()
    with page(os.environ | environment) as (process, address), Visitor(address) as visitor:
        fetch_button = visitor.event("catalogue")
        click = {"action": "fetch", "id": "thing"}
        assert visitor.call(fetch_button, visitor.values(fetch_button), click)["success"]
        download = visitor.after(fetch_button)
        assert visitor.join(download["id"], visitor.values(download)).status_code == 200
        many = {"prompt": "sea", "seed": 1, "num_inference_steps": 1, "width": 384, "height": 384, "count": 2}
        begun = visitor.http.post(f"{API}/call/v2/generate", json=many).json()["event_id"]
        with visitor.listening(), visitor.http.stream("GET", f"{API}/call/generate/{begun}"):
            until = time.monotonic() + 240  # of a busy machine
            while not any(one.stat().st_size for one in folder.rglob("weights.safetensors.part")) or not (
                list(pictures.glob("*.png")) and list(pictures.glob(".*.tmp"))  # the second one is written
            ):
                told = [str(one) for one in (tmp_path / "home").rglob("*")]
                assert process.poll() is None and time.monotonic() < until, told
                time.sleep(0.01)
            began = time.monotonic()
            process.send_signal(number)
            code, seconds = process.wait(timeout=20), time.monotonic() - began
        assert process.stdout and "Traceback" not in process.stdout.read()
    assert code in (0, 130) and seconds < 2
    saved = list(pictures.glob("*.png"))
    assert 1 <= len(saved) < 4
    for one in saved:
        with Image.open(one) as picture:
            picture.load()
    assert not (folder / MARKER).exists() and not (folder / "unet/weights.safetensors").exists()
    hub.gate.set()
    fetch(entry(), folder, hub.address)
    assert digest(folder / "unet/weights.safetensors") == digest(repository / "unet/weights.safetensors")
    assert any(one.startswith("weights.safetensors@") and not one.endswith("@0") for one in hub.sent), hub.sent


@pytest.mark.parametrize("name", ["unet/../../evil.json", "/etc/evil.json", "unet/..\\evil.json"])
def test_a_repository_reaches_no_file_outside_its_folder(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.claimed = [name]
    with pytest.raises(StudioError, match="outside its folder: do not trust it"):
        fetch(entry(files=["*"]), tmp_path / "thing", hub.address)
    assert not (tmp_path / "thing").exists()


def test_what_cannot_be_fetched_says_why(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudioError, match="is no longer on the hub"):
        fetch(entry(repository="someone/else"), tmp_path / "a", hub.address)
    with pytest.raises(StudioError, match=r"has no vae/\*: the catalogue entry 'thing' is outdated"):
        fetch(entry(files=["model_index.json", "vae/*"]), tmp_path / "b", hub.address)
    assert not (tmp_path / "b" / MARKER).exists()
    with pytest.raises(StudioError, match="comes with the app"):
        fetch(entry(repository=None, files=[], size=None, folder="assets/x"), tmp_path / "c", hub.address)
    with pytest.raises(StudioError, match="cannot be downloaded"):
        fetch(entry(), tmp_path / "d", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"folder": "assets/x"}, "not both"),
        ({"repository": None}, "needs either a folder or a repository"),
        ({"files": []}, "must list the files"),
        ({"files": ["../secrets"]}, "outside its repository"),
        ({"repository": "../../etc"}, "repository"),
        ({"revision": "a b"}, "revision"),
    ],
)
def test_a_bad_entry_is_no_entry(more: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        entry(**more)


def test_the_shipped_catalogue_names_what_can_be_fetched(capsys: pytest.CaptureFixture[str], own_home: Path) -> None:
    catalog = open_catalog()
    wanted = {"sd15", "sd21", "sdxl", "lcm-dreamshaper-v7", "lcm-lora-sdv15", "lcm-lora-sdxl", "openclip-vit-h"}
    assert wanted <= set(catalog.entries)
    for one in catalog.entries.values():
        assert catalog.available(one) == (one.repository is None), one.id
    assert cli.main(["generate", "sea", "--model", "sd15"]) == 2
    assert (
        "`python -m oms_app download sd15` downloads it (2.7 GB from stable-diffusion-v1-5/" in capsys.readouterr().err
    )
    assert cli.main(["download", "nope"]) == 2
    assert "unknown model 'nope': choose one of" in capsys.readouterr().err
    assert cli.main(["download", "lumen"]) == 2
    assert "comes with the app" in capsys.readouterr().err


def test_a_lora_of_the_catalogue_must_be_here(presets: Path, tmp_path: Path) -> None:
    told = {"id": "style", "kind": "lora", "title": "Style", "repository": "a/b", "files": ["*.safetensors"], "size": 9}
    (tmp_path / "presets/models").mkdir(parents=True)
    (tmp_path / "presets/models/style.json").write_text(json.dumps(told))
    catalog = Catalog(tmp_path / "presets/models", home=tmp_path)
    with pytest.raises(StudioError, match="download style"):
        catalog.lora("style")
    folder = catalog.folder(catalog.entries["style"])
    folder.mkdir(parents=True)
    (folder / "w.safetensors").write_bytes(b"")
    (folder / MARKER).write_text("{}")
    assert catalog.lora("style") == folder / "w.safetensors"


def test_a_module_as_published_reads_the_encoder_that_it_names(
    lumen: Path, presets: Path, tmp_path: Path, own_home: Path
) -> None:
    """Its folder names stabilityai/stable-diffusion-2-1, which the catalogue has as an entry of kind text."""
    world = tmp_path / "world"
    shutil.copytree(presets.parents[1], world, ignore=shutil.ignore_patterns("alien*"))
    for part in ("text_encoder", "tokenizer"):
        named = {"_name_or_path": "stabilityai/stable-diffusion-2-1", "subfolder": part}
        (world / f"assets/lumen/oms/oms_{part}/config.json").write_text(json.dumps(named))
    told = {
        "id": "openclip-vit-h", "kind": "text", "title": "Encoder", "repository": "a/b", "size": 1,
        "files": ["text_encoder/*", "tokenizer/*"],
    }  # fmt: skip
    (world / "presets/models/encoder.json").write_text(json.dumps(told))
    studio = Studio(presets=world / "presets/models", device="cpu", home=own_home)
    request = GenerateRequest(prompt="sea", seed=1)
    with pytest.raises(StudioError, match="download openclip-vit-h"):
        studio.generate(request)
    folder = own_home / "models/openclip-vit-h"
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(lumen / part, folder / part)
    plain = folder / "text_encoder/model.safetensors"
    save_file({name: value.half() for name, value in load_file(plain).items()}, plain.with_suffix(".fp16.safetensors"))
    plain.unlink()
    plain.with_suffix(".fp16.safetensors").rename(folder / "text_encoder/model.fp16.safetensors")
    (folder / MARKER).write_text("{}")
    published = [np.asarray(image.image, int) for image in studio.generate(request).images]
    own = Studio(presets=presets, device="cpu", home=own_home).generate(request)
    for a, b in zip(published, own.images, strict=True):
        assert np.abs(a - np.asarray(b.image, int)).max() <= 2  # the encoder went through float16
    with pytest.raises(StudioError, match="unknown LoRA"):
        studio.generate(request.model_copy(update={"loras": (Lora(id="openclip-vit-h"),)}))
