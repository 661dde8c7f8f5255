"""A page on ZeroGPU, with a stand-in for the package `spaces` that runs what it decorates in another process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, running_app
from page_client import Visitor, ask
from PIL import Image

from oms_app import GenerateRequest, Studio
from oms_app.engine import zero_gpu
from oms_app.engine.service import StudioService

TWO_STEPS = {"prompt": "sea", "seed": 4, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def page(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page's address, and the file that gets a line for each call in another process."""
    machine = tmp_path_factory.mktemp("zero")
    environment = {
        "SPACE_ID": "someone/studio", "SPACE_HOST": "127.0.0.1", "SPACES_ZERO_GPU": "1", "OMS_PRESETS": str(presets),
        "OMS_HOME": str(machine / "home"), "GRADIO_TEMP_DIR": str(machine / "cache"), "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "tests/standin_spaces"), "ZERO_GPU_LOG": str(machine / "log"),
        "OMP_NUM_THREADS": "1",  # a forked process has no team of threads
    }  # fmt: skip
    with running_app(environment, machine / "app.txt") as address:
        yield address.replace("0.0.0.0", "127.0.0.1"), machine / "log"


def test_pictures_are_made_elsewhere_and_the_page_says_what_is_lost(
    page: tuple[str, Path], presets: Path, tmp_path: Path
) -> None:
    _, text = ask(page[0], "generate", **TWO_STEPS)
    answer = json.loads(text.partition("event: complete\ndata: ")[2])[0]  # heartbeats come before it
    assert zero_gpu.NOTE in answer["notes"]
    assert len(page[1].read_text().split()) == 1
    wanted = Studio(presets=presets, device="cpu", home=tmp_path).generate(GenerateRequest(**TWO_STEPS))
    for got, image in zip(answer["images"], wanted.images, strict=True):
        with Image.open(got["image"]["path"]) as picture:
            assert np.abs(np.asarray(picture, int) - np.asarray(image.image, int)).max() <= 1
    assert "event: complete" in ask(page[0], "preview", prompt="sea", oms_prompt="dark")[1]
    _, text = ask(page[0], "generate", prompt="sea", width=100)
    assert "event: error" in text and "width is 100" in text and "Traceback" not in text


def test_stop_stops_waiting_and_the_next_request_works(page: tuple[str, Path]) -> None:
    held = page[1].with_name(f"{page[1].name}.held")  # the other process does not end meanwhile
    held.touch()
    with Visitor(page[0]) as visitor:
        prepare, stop = visitor.event("generate"), visitor.event("stop")
        visitor.call(prepare, visitor.values(prepare, prompt="sea"))
        run = visitor.after(prepare)
        assert visitor.join(run["id"], visitor.values(run)).status_code == 200
        messages = visitor.messages()
        for message in messages:
            if message["msg"] == "process_generating":
                break
        visitor.call(stop, visitor.values(stop))
        for message in messages:
            if message["msg"] == "process_completed":
                break
        assert "Stopped" in json.dumps(message)
    held.unlink()
    assert "event: complete" in ask(page[0], "generate", **TWO_STEPS)[1]


def test_other_hardware_and_a_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert zero_gpu.remote_generate("auto", "auto", None) is None
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert zero_gpu.remote_generate("auto", "auto", None) is None, "without the package it runs on the CPU"
    assert StudioService(home=tmp_path)._engine["device"] == "auto" and os.environ["SPACES_ZERO_GPU"]
