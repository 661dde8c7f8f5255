"""Values that no page sends, given to every event: one plain line, no traceback, and the next request works."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from conftest import process_of, running_app
from page_client import API, Visitor, ask
from PIL import Image

from oms_app.looks import THUMBNAIL
from oms_app.ui import fair_queue
from oms_app.ui.gradio_compat import SmallSessions
from oms_app.ui.listeners import Listeners

HOSTILE: tuple[Any, ...] = (
    None,
    {"a": [[1]]},
    ["/etc/passwd"] * 100,
    10**400,
    "<img src=x onerror=alert(1)>" * 100,
    -1e308,
    True,
)
CLICKS: tuple[Any, ...] = (
    None,
    {},
    {"look": "../../etc/passwd"},
    {"index": 10**9},
    {"action": "forget", "id": "<b>"},
    [1],
    {"row": "x"},
    {"do": "open", "name": "../../x"},
)


@pytest.fixture(scope="module")
def server(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("hostile")
    environment = {"OMS_PRESETS": str(presets), "OMS_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    with running_app(environment, folder / "app.txt") as address:
        assert (
            "complete" in ask(address, "generate", prompt="prompt that nobody logs", seed=1, num_inference_steps=1)[1]
        )
        yield address, folder / "app.txt"


def plain(message: dict[str, Any]) -> bool:
    """Whether an event answered, and an error is one line without a path or an exception's text."""
    if "status" in message:
        return message["status"] in (400, 413, 422, 503) and len(message["text"]) < 500
    if message.get("success"):
        return True
    text = str((message.get("output") or {}).get("error"))
    return bool(text) and text != "None" and "\n" not in text and "/home" not in text and "object at" not in text


def test_every_event_answers_hostile_values_in_one_line(server: tuple[str, Path]) -> None:
    address, log = server
    with Visitor(address) as visitor:
        hostile(visitor)
    assert "Traceback" not in log.read_text() and "prompt that nobody logs" not in log.read_text()
    _, text = ask(address, "generate", prompt="sea", seed=2, num_inference_steps=1)
    assert "event: complete" in text


def hostile(visitor: Visitor) -> None:
    events = [one for one in visitor.config["dependencies"] if one["backend_fn"]]
    assert len(events) > 40
    for event in events:
        good = visitor.values(event)
        tries: list[tuple[Any, Any]] = [([], None), ({"a": 1}, None), ([1] * 500, None)]
        tries += [([value] * len(good), {}) for value in HOSTILE]
        tries += [(good, click) for click in CLICKS] if event["collects_event_data"] else []
        for data, click in tries:
            answer = visitor.call(event, data, click)
            assert plain(answer), (event["api_name"], str(data)[:80], click, json.dumps(answer)[:600])


LONG: dict[str, Any] = {"num_inference_steps": 200, "width": 128, "height": 128}


def test_the_queue_is_not_passed_by_and_each_visitor_has_two_places(server: tuple[str, Path]) -> None:
    with Visitor(server[0]) as visitor:
        two_places(visitor)


def two_places(visitor: Visitor) -> None:
    generate = next(one for one in visitor.config["dependencies"] if one["api_name"] == "generate")
    data = ["sea", "", False, *[None] * (len(generate["inputs"]) - 3)]
    assert visitor.direct(generate["id"], data, "generate").status_code == 404
    run = visitor.after(visitor.event("generate"))
    assert visitor.direct(run["id"], visitor.values(run)).status_code == 404
    blocker = visitor.http.post(f"{API}/call/v2/generate", json={"prompt": "sea", "seed": 9, **LONG})
    with visitor.http.stream("GET", f"{API}/call/generate/{blocker.json()['event_id']}"):
        time.sleep(0.3)
        codes = [visitor.join(generate["id"], data).status_code for _ in range(5)]
        assert codes.count(200) == 2 and codes[2:] == [503] * 3, codes


def test_callers_who_left_are_dropped_and_stopped(server: tuple[str, Path]) -> None:
    with Visitor(server[0]) as visitor:
        left_alone(visitor, server[0])


def left_alone(visitor: Visitor, address: str) -> None:
    for i in range(12):  # nobody ever listens to these
        visitor.http.post(f"{API}/call/v2/generate", json={"prompt": "sea", "seed": i, **LONG})
    began = time.monotonic()
    _, text = ask(address, "generate", prompt="sea", seed=5, num_inference_steps=1)
    assert "event: complete" in text and time.monotonic() - began < 20
    assert visitor.http.get(f"{API}/queue/status").json()["queue_size"] == 0


def test_a_look_takes_the_servers_own_picture_whatever_is_sent(server: tuple[str, Path]) -> None:
    looks = server[1].parent / "home/looks"
    with Visitor(server[0]) as visitor:
        keep = visitor.event("look-keep")
        for title, generated in (("nothing made", False), ("one made", True)):
            if generated:
                prepare = visitor.event("generate")
                visitor.call(prepare, visitor.values(prepare, prompt="sea", Steps=1))
                run = visitor.after(prepare)
                assert visitor.call(run, visitor.values(run))["success"]
                assert visitor.call(visitor.changed(run), [None])["success"]
            values = visitor.values(keep, look_title=title)
            for i, one in enumerate(keep["inputs"]):
                if visitor.kind(one) in ("state", "image"):
                    values[i] = {"path": str(server[1]), "meta": {"_type": "gradio.FileData"}}
            assert "Saved" in json.dumps(visitor.call(keep, values))
            file = looks / f"{title.replace(' ', '-')}.jpg"
            assert file.is_file() == generated
    with Image.open(file) as card:
        assert card.size == (THUMBNAIL, THUMBNAIL)


def test_sessions_cost_little_memory(server: tuple[str, Path]) -> None:
    """Anyone can open them by the thousand, and every call of a program is one."""
    process = process_of(server[0])
    with Visitor(server[0]) as visitor:
        prepare = visitor.event("generate")
        data = visitor.values(prepare, prompt="sea")
        sizes = []
        for number in range(200):
            if number in (20, 199):
                sizes.append(process.memory_info().rss)
            visitor.session = f"session {number}"
            visitor.call(prepare, data)
    assert sizes[1] - sizes[0] < 200 * 0.1 * 2**20  # with Gradio's copy of the page in each they took 0.7 MiB


async def small_page() -> gr.Blocks:
    """Inside a running event loop Gradio creates none of its own, which would stay open."""
    with gr.Blocks() as demo:
        gr.Textbox("one")
    demo.queue()
    return demo


def test_a_session_holds_only_what_changed() -> None:
    demo = asyncio.run(small_page())
    sessions = SmallSessions()
    sessions.set_blocks(demo)
    box = next(one for one in demo.blocks.values() if isinstance(one, gr.Textbox))
    demo.default_config.blocks |= dict.fromkeys(range(1_000, 1_400), box)  # as many as our page has
    sessions["a"][box._id] = gr.Textbox("changed", render=False)
    assert sessions["a"][box._id].value == "changed" and sessions["b"][box._id] is box
    tracemalloc.start()
    try:
        for number in range(100):
            assert box._id in sessions[str(number)]
        assert tracemalloc.get_traced_memory()[0] < 100 * 4_000, "with Gradio's list of the components it was 20,000"
    finally:
        tracemalloc.stop()


def test_answers_that_nobody_fetches_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "ANSWERS_KEPT", 0.2)
    demo, listeners = asyncio.run(small_page()), Listeners()
    listeners.active, queue = True, demo._queue
    fair_queue.share_fairly(demo, listeners)
    for session in ("gone", "runs", "listens"):
        queue.pending_event_ids_session[session] = {f"event of {session}"}
        queue.pending_messages_per_session[session] = cast(Any, object())
    queue.event_ids_to_events["event of runs"] = cast(Any, SimpleNamespace(session_hash="runs"))
    until = time.monotonic() + 10
    with listeners.listening("listens"):
        while "gone" in queue.pending_event_ids_session and time.monotonic() < until:
            queue.get_events()
            time.sleep(0.02)
    assert list(queue.pending_event_ids_session) == list(queue.pending_messages_per_session) == ["runs", "listens"]
