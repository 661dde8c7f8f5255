"""From a click to the stock pipeline: the functions of ours on the way are the few that docs/architecture.md lists."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from conftest import ROOT
from diffusers import StableDiffusionPipeline

from oms_app import GenerateRequest
from oms_app.engine.service import StudioService
from oms_app.ui.generation import JobRunner, PictureJob
from oms_app.ui.listeners import LISTENERS
from oms_app.ui.run_controls import RunControls

PACKAGE = ROOT / "oms_app"
MOST = 8


def own_frames(frame: FrameType | None) -> list[str]:
    """Our functions on a stack, the outermost first: `ui/generation.py run`."""
    found = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            found.append(f"{path.relative_to(PACKAGE).as_posix()} {frame.f_code.co_name}")
        frame = frame.f_back
    return found[::-1]


async def build(service: StudioService) -> tuple[JobRunner[Any], RunControls]:
    """A tab's buttons. Inside a running event loop Gradio creates none of its own, which would stay open."""
    with gr.Blocks():
        controls = RunControls("Generate", "generate")
        controls.build_buttons()
        controls.build_status()
        return JobRunner(service, controls, cast(Any, None), cast(Any, None)), controls


def test_from_the_handler_to_the_pipeline(presets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    service = StudioService(device="cpu", home=tmp_path)
    seen: list[list[str]] = []
    call = StableDiffusionPipeline.__call__

    def recording(self: Any, *arguments: Any, **settings: Any) -> Any:
        stacks = sys._current_frames()  # of other services' workers too, which wait
        threads = {threading.main_thread().ident, threading.get_ident()}
        seen.append([name for thread, frame in stacks.items() if thread in threads for name in own_frames(frame)])
        return call(self, *arguments, **settings)

    monkeypatch.setattr(StableDiffusionPipeline, "__call__", recording)
    monkeypatch.setattr(LISTENERS, "active", False)  # an app of another test in this process may have set it
    runner, controls = asyncio.run(build(service))
    session = cast(gr.Request, SimpleNamespace(session_hash="of the frames test"))
    job = PictureJob([GenerateRequest(prompt="sea", seed=1)], controls, lambda results: {})
    *_, last = runner.run(job, session)
    assert runner.finished in last and len(seen) == 1
    assert len(seen[0]) <= MOST, seen[0]
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = text[text.index("## From a click to a picture") : text.index("## One request, in stages")]
    listed = re.findall(r"^\| \d \| `([\w/.]+)` \| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(seen[0]) == sorted(f"{file} {function}" for file, function in listed)
