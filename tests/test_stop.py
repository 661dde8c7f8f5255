"""Stop is heard when it is pressed once: also of work that still waits in the queue."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

import pytest
from page_client import Visitor

SOON = 5.0  # seconds; the job before takes longer


def start(visitor: Visitor, elem_id: str, **fields: Any) -> str:
    """As a click: the id of the event that was queued."""
    prepare = visitor.event(elem_id)
    run = visitor.after(prepare)
    visitor.call(prepare, visitor.values(prepare, prompt="sea", **fields))
    return str(visitor.join(run["id"], visitor.values(run)).json()["event_id"])


def call_api(visitor: Visitor) -> str:
    (generate,) = (one for one in visitor.config["dependencies"] if one["api_name"] == "generate")
    values = {"prompt": "sea", "num_inference_steps": 4, "seed": 1}
    with urlopen(f"{visitor.http.base_url}/gradio_api/info", timeout=60) as answer:
        parameters = json.load(answer)["named_endpoints"]["/generate"]["parameters"]
    data = [values.get(one["parameter_name"], one.get("parameter_default")) for one in parameters]
    return str(visitor.join(generate["id"], data).json()["event_id"])


def press(visitor: Visitor, elem_id: str = "stop") -> None:
    for event in visitor.events(elem_id, "click"):
        visitor.call(event, visitor.values(event))


def cancel(visitor: Visitor) -> None:
    (event,) = (one for one in visitor.config["dependencies"] if one["api_name"] == "cancel")
    visitor.call(event, [])


def last(messages: Iterator[dict[str, Any]], event: str) -> dict[str, Any]:
    return next(one for one in messages if one["msg"] == "process_completed" and one["event_id"] == event)


@contextmanager
def busy(page: str) -> Iterator[None]:
    """Another visitor's job uses the device in the block. Fails if that has ended before."""
    with Visitor(page) as other:
        job = start(other, "generate", Steps=200)
        with other.listening() as messages:
            next(one for one in messages if one["msg"] == "process_starts")
            yield
            press(other)
            last(messages, job)
        assert "Stopped." in "".join(other.heard), "it was still running"


@pytest.mark.parametrize(
    ("begin", "stop"),
    [
        (lambda visitor: start(visitor, "generate"), press),
        (lambda visitor: start(visitor, "sweep-start"), press),
        (call_api, cancel),
    ],
    ids=["Create", "sweep", "API"],
)
def test_stop_takes_waiting_work_out_of_the_queue(
    page: str, begin: Callable[[Visitor], str], stop: Callable[[Visitor], None]
) -> None:
    with busy(page), Visitor(page) as visitor:
        job = begin(visitor)
        with visitor.listening() as messages:
            next(one for one in messages if one["msg"] == "estimation")
            began = time.monotonic()
            stop(visitor)
            answer = last(messages, job)
            assert time.monotonic() - began < SOON
        assert "stopped" in "".join(visitor.heard).lower()
        assert answer["success"] == (stop is press)


def test_a_call_after_one_that_was_stopped_runs(page: str) -> None:
    with Visitor(page) as visitor:
        cancel(visitor)  # of nothing
        job = call_api(visitor)
        assert last(visitor.messages(), job)["success"]


def test_escape_finds_every_stop_button(page: str) -> None:
    """keys.js presses the buttons of that class."""
    with Visitor(page) as visitor:
        stops = [one["props"] for one in visitor.config["components"] if one["props"].get("value") == "Stop"]
        assert len(stops) >= 4, "Create, Explore, Compare and Models"
        assert all("oms-stop" in (one.get("elem_classes") or ()) for one in stops)
