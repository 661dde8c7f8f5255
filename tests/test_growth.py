"""What a page remembers stays small, however many visitors, requests and files there are in a month."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
import torch
from gradio import routes
from gradio.route_utils import FileUploadProgress
from PIL import Image

from oms_app import Studio
from oms_app.engine.visitors import Visitors
from oms_app.models.memory import OomFallback
from oms_app.models.recorded import _Recordings
from oms_app.ui.gradio_compat import keep_server_small
from oms_app.ui.jobs import StopFlags
from oms_app.ui.listeners import Listeners
from oms_app.ui.login_limit import LoginLimit
from oms_app.ui.translation import translations
from oms_app.ui.uploads import Uploads

MANY, MOST = 25_000, 20_000


def largest(thing: Any, seen: set[int] | None = None) -> int:
    """The entries of the largest dictionary, list, set or queue in a thing and in what it holds."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (str, bytes, type, torch.Tensor)):
        return 0
    seen.add(id(thing))
    inner: list[Any] = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    entries = 0
    if hasattr(thing, "cache_info"):
        entries = thing.cache_info().currsize
    elif hasattr(thing, "__len__") and hasattr(thing, "__iter__"):
        entries = len(thing)
        inner += itertools.islice(thing.values() if hasattr(thing, "values") else thing, 100)
    return max([entries, *(largest(one, seen) for one in inner)])


Uses = list[Callable[[str], Any]]


def visitors(folder: Path) -> tuple[Any, Uses]:
    known = Visitors(folder, private=True)
    return known, [lambda name: known.identify(name, name), known.history, lambda name: known.history(f"no {name}")]


def shapes() -> tuple[Any, Uses]:
    recordings = _Recordings()
    return recordings, [lambda name: recordings.of(torch.nn.Identity(), (torch.empty(1, int(name, 16)),))]


def texts() -> tuple[Any, Uses]:
    chinese = translations()["zh"]
    return chinese, [lambda name: chinese.text(f"a text that nobody translated, {name}")]


@pytest.mark.parametrize("kind", ["listeners", "stop flags", "logins", "visitors", "shapes", "texts"])
def test_what_is_remembered_is_bounded(kind: str, tmp_path: Path) -> None:
    kinds: dict[str, Callable[[], tuple[Any, Uses]]] = {
        "listeners": lambda: (listeners := Listeners(), [listeners.asks, listeners.gone]),
        "stop flags": lambda: (flags := StopFlags(), [flags.reset, flags.of]),
        "logins": lambda: (logins := LoginLimit(), [logins.begun, logins.wait]),
        "visitors": lambda: visitors(tmp_path),
        "shapes": shapes,
        "texts": texts,
    }
    thing, uses = kinds[kind]()
    if isinstance(thing, Listeners):
        thing.active = True
    many = {"stop flags": 3_000, "texts": 6_000}.get(kind, MANY)
    for i in range(many):
        for use in uses:
            use(f"{i:032x}")
    assert 0 < largest(thing) < many


def test_pictures_that_did_not_fit_are_remembered_for_few_sizes(studio: Studio) -> None:
    for i in range(MANY):
        studio._fallbacks["lumen", (), 8 * i, 8] = OomFallback.EVICT
    assert 0 < largest(studio._fallbacks) <= MOST
    assert studio._fallbacks.get(("lumen", (), 8 * (MANY - 1), 8)) == OomFallback.EVICT


def test_gradios_uploads_and_logins_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "file_upload_statuses", FileUploadProgress())
    demo = SimpleNamespace(app=SimpleNamespace(tokens={}, state_holder=None), state_session_capacity=10)
    keep_server_small(cast(gr.Blocks, demo))
    statuses = routes.file_upload_statuses

    async def ask() -> None:
        for i in range(MANY):
            waiting = statuses.is_tracked(f"never {i}")
            waiting.close()
            statuses._signals[f"never {i}"]
            statuses.append(f"upload {i}", "a.png", b"x")
            demo.app.tokens[f"token {i}"] = "guest"
        statuses.set_done("upload 0")  # forgotten, and still no error
        assert statuses.is_done("upload 0") and statuses.pop(f"upload {MANY - 1}").chunk_size == 1
        await asyncio.wait_for(statuses.is_tracked(f"upload {MANY - 1}"), 1)

    asyncio.run(ask())
    assert largest(statuses) <= MOST and largest(demo.app.tokens) <= MOST
    assert demo.app.tokens.get(f"token {MANY - 1}") == "guest" and demo.app.tokens.get("token 0") is None


def test_tiny_uploads_are_not_remembered_by_the_million(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    file, picture = tmp_path / "stored/a.png", (tmp_path / "a.png").read_bytes()
    uploads, answers = Uploads(models=False), []

    async def store(scope: Any, receive: Any, send: Any) -> None:
        if not file.exists():  # what is refused is deleted
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(picture)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps([str(file)]).encode()})

    async def sent(message: Any) -> None:
        answers.append(message.get("status"))

    async def upload_many() -> None:
        for _ in range(5_000):
            await uploads.take("a visitor", store, {"headers": []}, cast(Any, None), sent)

    asyncio.run(upload_many())
    assert 3_000 < answers.count(200) < 4_500 and 415 in answers
    assert largest(uploads) < 4_500
