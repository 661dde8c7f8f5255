"""The pictures of Compare: one model after the other, in parts; Stop keeps what is finished."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from test_explore import NoFields, Service

from oms_app import GenerateRequest, Studio, Variant
from oms_app.schema import RAW
from oms_app.ui.compare_job import Compared, CompareJob
from oms_app.ui.field_set import FieldSet
from oms_app.ui.generation import JobRunner
from oms_app.ui.jobs import StopFlags

OMS = Variant(name="oms", correction="oms", prompt="dark")
DIAL = Variant(name="dial", correction="dial", luminance=20)


def run(service: Any, *requests: GenerateRequest) -> tuple[dict[int, Compared], str]:
    """The pictures by their panels, and the message at the end."""
    shown: dict[int, Compared] = {}
    messages: list[str] = []

    def show(made: dict[int, Compared], message: str) -> dict[Any, Any]:
        shown.update(made)
        messages.append(message)
        return {}

    def on_status(message: str) -> dict[Any, Any]:
        messages.append(message)
        return {}

    job = CompareJob(requests, service, on_status, lambda event, panels: {}, show)
    controls: Any = SimpleNamespace(idle=dict, status="status", flags=StopFlags())
    runner = JobRunner(service, controls, FieldSet(NoFields, {}), lambda values: job)
    session: Any = SimpleNamespace(session_hash="one")
    updates = list(runner.run(job, session))
    if runner.finished in updates[-1]:
        runner.show(job, session)
    return shown, messages[-1]


@pytest.mark.parametrize("seconds", [None, 1.0, 12.0])
def test_every_picture_has_its_panel_however_the_work_is_divided(studio: Studio, seconds: float | None) -> None:
    service = Service(studio)
    service.estimate = lambda requests: seconds  # type: ignore[method-assign]
    request = GenerateRequest(prompt="sea", variants=(RAW, OMS, DIAL), seed=7, count=2, num_inference_steps=1)
    shown, message = run(service, request, request.model_copy(update={"num_inference_steps": 2}))
    assert sorted(shown) == list(range(12)) and message == ""
    for panel, one in shown.items():
        variant = (RAW, OMS, DIAL)[panel % 3]
        assert (one.image.variant, one.image.seed) == (variant.name, 7 + panel // 3 % 2)
        assert one.result.request.num_inference_steps == 1 + panel // 6


def test_all_models_have_the_seed_that_was_drawn(studio: Studio) -> None:
    request = GenerateRequest(prompt="sea", variants=(RAW, OMS), num_inference_steps=1)
    shown, _ = run(Service(studio), request, request)
    assert len(shown) == 4 and len({one.image.seed for one in shown.values()}) == 1


def test_stop_keeps_the_pictures_that_are_finished(studio: Studio) -> None:
    request = GenerateRequest(prompt="sea", variants=(RAW, OMS, DIAL), seed=7, num_inference_steps=1)
    shown, message = run(Service(studio, stop_after=2), request)
    assert [one.image.variant for one in shown.values()] == ["raw", "oms"]
    assert message == "Stopped. 2 of 3 pictures are kept."
    shown, message = run(Service(studio, lambda request: RuntimeError("broken")), request)
    assert shown == {} and "unexpected error" in message
