"""A fault at every stage of a request: the page says so in one line, the next request works, older pictures stay."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image
from test_frames import build

from oms_app import GenerateRequest
from oms_app.engine import studio as stages
from oms_app.engine.resolve import Resolver
from oms_app.engine.service import StudioService
from oms_app.errors import Stopped
from oms_app.output.png import read_any
from oms_app.schema import GenerateResult
from oms_app.ui import input_errors
from oms_app.ui.generation import JobRunner, PictureJob
from oms_app.ui.listeners import LISTENERS
from oms_app.ui.run_controls import RunControls

STAGES: dict[str, tuple[Any, str]] = {
    "1 resolve": (Resolver, "resolve"),
    "2 encode": (stages, "encode"),
    "3 draw": (stages, "draw"),
    "4 correct": (stages, "correct"),
    "5 denoise": (stages, "denoise"),
    "6 decode": (stages, "decode"),
    "7 measure": (stages, "image_stats"),
    "8 save": (Image.Image, "save"),
}
KINDS: dict[str, Callable[[], BaseException]] = {
    "the device is out of memory": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "no memory": MemoryError,
    "oneDNN has no memory": lambda: RuntimeError("could not create a primitive"),
    "the disk is full": lambda: OSError(errno.ENOSPC, "No space left on device", "/home/me/secret/x.png"),
    "a file is gone": lambda: FileNotFoundError(errno.ENOENT, "No such file or directory", "/home/me/secret/unet"),
    "an unexpected error": lambda: ZeroDivisionError("division by zero"),
    "Stop": lambda: Stopped("stopped"),
    "a library ends the program": lambda: SystemExit(3),
}


class Page:
    """Create's handler over a service whose engine stays loaded."""

    def __init__(self, service: StudioService) -> None:
        self.service = service
        self._runner: JobRunner[Any]
        self._controls: RunControls
        self._runner, self._controls = asyncio.run(build(service))

    def generate(self, seed: int) -> tuple[list[GenerateResult], str]:
        """The results that the page shows, and the text of its status."""
        shown: list[GenerateResult] = []

        def show(results: list[GenerateResult]) -> dict[Any, Any]:
            shown.extend(results)
            return {}

        job = PictureJob([GenerateRequest(prompt="sea", seed=seed)], self._controls, show)
        run = input_errors._phrased(self._runner.run, [], strangers=False, own=True)  # as every event of the page
        try:
            updates = list(run(job, cast(gr.Request, SimpleNamespace(session_hash="of the fault tests"))))
        except gr.Error as error:
            return [], str(error)
        job.show("of the fault tests")
        status = [one[self._controls.status] for one in updates if self._controls.status in one][-1]
        return shown, html.unescape(re.sub(r"<[^>]*>", " ", str(status)))


@pytest.fixture(scope="module")
def page(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMS_PRESETS", str(presets))
        page = Page(StudioService(device="cpu", home=tmp_path_factory.mktemp("faults")))
    page.generate(seed=1)
    return page


def pixels(results: list[GenerateResult]) -> np.ndarray:
    return np.stack([np.asarray(image.image, int) for image in results[0].images])


# Every stage and every kind once; all 64 pairs with `make stress`.
PAIRS = [
    pytest.param(stage, kind, marks=[] if i == j else [pytest.mark.slow])
    for i, stage in enumerate(STAGES)
    for j, kind in enumerate(KINDS)
]


@pytest.mark.parametrize(("stage", "kind"), PAIRS)
def test_after_a_fault_the_next_request_works(
    page: Page, stage: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LISTENERS, "active", False)  # an app of another test in this process may have set it
    folder = page.service.pictures
    engine = page.service.start().result()
    engine.forget()
    results, status = page.generate(seed=5)
    assert results, status
    wanted = pixels(results)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.glob("*.png")}
    engine.forget()
    faults = 0

    def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal faults
        faults += 1
        raise KINDS[kind]()

    with monkeypatch.context() as broken:
        broken.setattr(*STAGES[stage], fails)
        results, status = page.generate(seed=5)
    assert faults
    if results:  # the pictures that could not be saved are shown all the same, and the page says so
        assert stage == "8 save" and any("not saved" in note for note in results[0].notes)
        assert np.abs(pixels(results) - wanted).max() <= 1
    else:
        assert len(status) > 10 and "Traceback" not in status and "\n" not in status.strip()
    results, status = page.generate(seed=5)
    assert results, status
    assert np.abs(pixels(results) - wanted).max() <= 1
    after = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.glob("*.png")}
    assert before.items() <= after.items() and not list(folder.glob(".*.tmp"))
    assert len(after) == len(before) + 2
    for path in after.keys() - before.keys():
        assert read_any(path).request.seed == 5
