"""Shared by all tests: a tiny real world of models, built once, and a user's folder of its own for every test."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from gradio import Blocks
    from standin import StandIn
    from xdist.scheduler import LoadScopeScheduling

    from oms_app.engine.service import StudioService

ROOT = Path(__file__).resolve().parents[1]
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: each of the test processes has a core


# Files whose tests use the app of `page` or `tiny_page`, by the process that runs them all: starting an app and loading
# its engine takes as long as several tests, and one process for all would still be at work when the others have ended.
# They run first, then the longest of the other files, so that no process is alone at the end.
GROUPS = (
    ("test_browser_explore", "test_browser_history", "test_refusals"),
    ("test_browser", "test_browser_tasks", "test_browser_keyboard", "test_api", "test_app", "test_stop", "test_words"),
    (
        "test_browser_light",
        "test_browser_sweep",
        "test_browser_axe",
        "test_browser_chinese",
        "test_browser_fields",
        "test_browser_rest",
        "test_browser_undo",
        "test_browser_viewer",
        "test_drafts",
    ),
)
LONGEST = ("test_models_page", "test_store", "test_memory", "test_dial_bases", "test_checkpoints", "test_faults")


def place(file: str) -> int:
    """Of a test file in the order: its group's, its own among the longest, or behind them."""
    name = Path(file).stem
    groups = (*GROUPS, *((one,) for one in LONGEST))
    return next((number for number, files in enumerate(groups) if name in files), len(groups))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place(item.path.name))


def pytest_collection_finish() -> None:
    """Whatever is evicted from the store is collected by gc.collect, which goes through all that was imported, too:
    most of a second with the modules of all tests, were they not left out from here on."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """For `--dist loadfile`: by file, and the files of one group together."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # it would put the files of many tests first

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return str(place(file)) if place(file) < len(GROUPS) else file

    return ByGroup(config, log)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """OMS_HOME in a temporary folder, so that no test touches the user's pictures."""
    monkeypatch.setenv("OMS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of tiny.make_world: lumen, lumen-oms, alien-oms (another latent domain), absent."""
    from diffusers.utils import logging as diffusers_logging
    from tiny import make_world
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def lumen(presets: Path) -> Path:
    """The tiny base model's folder."""
    return presets.parents[1] / "assets/lumen"


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny SDXL, on the VAE of the tiny base model."""
    from tiny import make_sdxl

    return make_sdxl(tmp_path_factory.mktemp("sdxl") / "tiny-xl")


@pytest.fixture(scope="session")
def _shared_studio(presets: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    from oms_app import Studio

    return Studio(presets=presets, device="cpu", home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def studio(_shared_studio) -> Iterator:  # type: ignore[no-untyped-def]
    """A Studio over the tiny world: its models stay loaded from test to test, its other caches start cold."""
    _shared_studio.forget()
    yield _shared_studio


@pytest.fixture(scope="session")
def _shared_lumen(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    from oms_app import Studio

    return Studio(device="cpu", home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def embedded(_shared_lumen) -> Iterator:  # type: ignore[no-untyped-def]
    """A Studio with the shipped models, as `studio` is with tiny ones."""
    _shared_lumen.forget()
    yield _shared_lumen


@pytest.fixture
def late(presets: Path, monkeypatch: pytest.MonkeyPatch) -> StudioService:
    """The page's service over the tiny world; its engine loads with the first request."""
    from oms_app.engine.service import StudioService

    monkeypatch.setenv("OMS_PRESETS", str(presets))
    return StudioService(device="cpu")


@pytest.fixture
def base(lumen: Path, tmp_path: Path) -> Path:
    """A diffusers folder of the user's own."""
    parts = shutil.ignore_patterns("oms", "singdiffusion", "signal_leak", "examples")
    return Path(shutil.copytree(lumen, tmp_path / "My Model", ignore=parts))


@pytest.fixture(scope="session")
def page(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the real app, in a process of its own, with the embedded model; with the tiny one until that is
    trained. It has at least one ready-made pair. For tests that look at the page from outside.
    """
    environment = {"OMS_HOME": str(tmp_path_factory.mktemp("page"))}
    if not (ROOT / "assets/lumen/examples/examples.json").is_file():
        make_examples(presets.parents[1] / "assets/lumen/examples")
        environment["OMS_PRESETS"] = str(presets)
    with running_app(environment, tmp_path_factory.mktemp("log") / "app.txt") as address:
        yield address


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OMS_HOME of `tiny_page`."""
    return tmp_path_factory.mktemp("tiny-home")


@pytest.fixture(scope="session")
def tiny_page(presets: Path, tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the real app over a tiny world that has also models which no correction may be applied to."""
    from tiny import make_refused

    world = tmp_path_factory.mktemp("tiny-page") / "world"
    shutil.copytree(presets.parents[1], world)
    make_examples(world / "assets/lumen/examples")
    models = make_refused(world / "presets/models")
    shutil.rmtree(world / "assets/flow/oms/oms_spread")
    flow = json.loads((models / "flow.json").read_text())
    flow["defaults"] |= {"width": 96, "num_inference_steps": 7, "scheduler": "euler"}
    (models / "flow.json").write_text(json.dumps(flow))
    environment = {"OMS_HOME": str(tiny_home), "OMS_PRESETS": str(models)}
    with running_app(environment, tmp_path_factory.mktemp("log") / "app.txt") as address:
        yield address


def built_page(service: StudioService, local: bool = True) -> Blocks:
    """The page's components and events, not served."""
    from oms_app.ui.demo import create_demo

    async def build() -> Blocks:  # inside a running event loop Gradio creates none of its own, which would stay open
        return create_demo(service, local=local)

    return asyncio.run(build())


@contextmanager
def running_app(
    environment: dict[str, str], log: Path, program: Sequence[str] = (str(ROOT / "app.py"),), seconds: float = 120
) -> Iterator[str]:
    """The address of the real app in a process of its own, while the context is open. program: Python's arguments.
    seconds: within which the page opens."""
    environment = os.environ | environment | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, *program, "--device", "cpu"]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        too_long = threading.Timer(seconds, process.kill)  # else a page that never opens would hold the tests for ever
        too_long.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("OMS Studio is at "), f"{line}{log.read_text()}"
            too_long.cancel()
            yield line.split()[-1].rstrip("/")
        finally:
            too_long.cancel()
            process.kill()


def process_of(address: str) -> psutil.Process:
    """The process of a `running_app`."""
    port = int(address.rsplit(":", 1)[1])
    (found,) = (
        child for child in psutil.Process().children() if any(one.laddr.port == port for one in child.net_connections())
    )
    return found


def make_examples(folder: Path) -> Path:
    """One ready-made pair, grey and black, and one that lacks a picture."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (120, 120, 120)).save(folder / "raw.png")
    Image.new("RGB", (64, 64), (0, 0, 0)).save(folder / "oms.png")
    pair = {"prompt": "black", "oms_prompt": None, "oms_guidance_scale": 2.0, "seed": 3, "raw": "raw.png"}
    (folder / "examples.json").write_text(json.dumps([pair | {"oms": "oms.png"}, pair | {"oms": "not there.png"}]))
    return folder


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, with the libraries' calls of a true backend's allocator switched off."""
    import torch
    from standin import DEVICE, StandIn

    from oms_app.engine import studio as studio_module

    for module in ("diffusers.pipelines.pipeline_utils.empty_device_cache", "accelerate.hooks.clear_device_cache"):
        monkeypatch.setattr(module, lambda *_, **__: None)
    monkeypatch.setattr(torch, DEVICE.type, SimpleNamespace(), raising=False)  # a true backend's own module
    monkeypatch.setattr(studio_module, "choose_device", lambda name: (DEVICE, "a test asked for it"))
    with StandIn() as entered:
        yield entered


def hear_ctrl_c() -> None:
    """In a child process: Ctrl+C counts, also if the tests run in the background of a shell, which ignores it there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
