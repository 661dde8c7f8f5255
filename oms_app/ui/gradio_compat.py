"""Workarounds for the pinned version of Gradio, 6.31. Each says what Gradio does and when the workaround can go.

When the pin in requirements.txt changes, check each condition.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio import routes
from gradio.blocks import BlocksConfig
from gradio.context import get_blocks_context
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import get_upload_folder

from oms_app.file_ages import FileAges
from oms_app.newest import Newest

VERSION = "6.31"
KEEP_ALIVE = 60  # seconds that an idle connection stays open
MAX_UPLOADS, MAX_LOGINS = 1_000, 10_000  # whose progress is known; that stay logged in
# Texts that Gradio 6.31 shows by their keys. Remove when its own English has them.
ENGLISH = {"common": {"complete": "Complete"}}


def limit_progress_outputs(demo: gr.Blocks, part: gr.HTML) -> None:
    """Directs the progress of events that name no component for it to `part` alone.

    Gradio 6.31 sends progress to all outputs of an event, even if it is hidden, and with every message the browser goes
    through all components that ever received progress and copies their contents: more than forty, and half of what the
    page's scripts did during a generation. Remove when `show_progress="hidden"` sends no progress to the outputs.
    """
    for event in demo.fns.values():
        if not event.show_progress_on:
            event.show_progress_on = [part]


def separate_event(
    state: gr.State, handler: Callable[..., Mapping[Any, Any]], outputs: Sequence[Any], **settings: Any
) -> None:
    """When an event sets the state to a new object, `handler` gets that object, in an event with these outputs.

    For updates that come last in a stream. Gradio 6.31 builds every output of a streaming event anew with each message,
    changed or not, which for images takes longer than a denoising step of a small model. Remove when a message builds
    only the outputs that it contains. Objects are compared by `hash`, so each must be a new one that hashes by
    identity; the State keeps the latest, so it should hold no pictures.
    """
    state.change(handler, state, list(outputs), **settings)


def event_data(event: gr.EventData) -> dict[str, Any]:
    """What a component's script sent with `trigger(name, data)`.

    Gradio 6.31 has no public name for it. Remove when `gr.EventData` has one.
    """
    data: dict[str, Any] = event._data
    return data


def added_last() -> Any:
    """The event that was added last to the current Blocks."""
    blocks = get_blocks_context()
    assert blocks is not None
    return list(blocks.fns.values())[-1]


def describe_parameters(descriptions: Mapping[str, str]) -> None:
    """Says in the API's documentation what the arguments of the endpoint mean that was added last.

    Gradio 6.31 has descriptions of arguments for MCP only, and labels them "1st", "2nd" …. Remove when `gr.api` takes
    descriptions.
    """
    endpoint = added_last()
    for component, (name, text) in zip(endpoint.inputs, descriptions.items(), strict=True):
        component._api_info = component._api_info | {"additional_description": text}
        component.label = name


def browser_state(key: str) -> gr.BrowserState:
    """A value in the browser's localStorage that survives a restart of the server.

    Without a secret Gradio 6.31 draws one at each start and so loses what was stored. It is not a secret: localStorage
    belongs to this page's origin. Remove when the secret may be left out.
    """
    return gr.BrowserState({}, storage_key=key, secret="oms-studio")


def keep_no_statistics(queue: Any) -> None:
    """Gradio 6.31 remembers the last 10,000 events, and makes a table of all of them with pandas after each event, for
    a page of statistics that ours has not. Remove when that can be switched off."""
    queue.ANALYTICS_MAX_EVENTS = 1
    queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize  # its name there: events between two tables


def rest_between_events(queue: Any) -> None:
    """Gradio 6.31 asks 1,000 times a second whether an event waits and 100 times whether one has progress, which took
    6 % of a core. Remove when it waits until there is one."""
    queue.sleep_when_free = 0.05  # seconds by which an event may begin later; its own value on Windows
    queue.progress_update_sleep_when_free = 0.5  # no event uses `gr.Progress`


def delete_old_files(demo: gr.Blocks, interval: float, kept: float) -> None:
    """Deletes uploads and previews that are older than `kept` seconds, every `interval` seconds, in a thread.

    Gradio 6.31 (`delete_cache`) deletes only some of the files that it stores, and takes their age from the computer's
    clock: when that is set forward, it deletes what the open pages show, and when it is set back, nothing. Remove when
    it deletes all files of its folder by another clock.
    """
    ages = FileAges()

    def work() -> None:
        while True:
            time.sleep(interval)
            delete_old_in(Path(get_upload_folder()), demo, ages, kept)

    threading.Thread(target=work, name="old-files", daemon=True).start()


def delete_old_in(folder: Path, demo: gr.Blocks, ages: FileAges, kept: float) -> None:
    """One round of `delete_old_files`. folder: Gradio's. A file that the page has from its start stays."""
    ages.start_round()
    stays = {file for block in list(demo.blocks.values()) for file in getattr(block, "keep_in_cache", ())}
    for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
        try:
            if path.is_dir():
                if ages.age(path) > 0:  # else Gradio may just be about to write into it
                    path.rmdir()  # if it is empty
            elif str(path) not in stays and ages.age(path) > kept:
                path.unlink()
        except OSError:  # a folder that is not empty, or another page of this computer was quicker
            continue
    for files in demo.temp_file_sets:  # by which Gradio remembers what it stored
        files.difference_update([file for file in list(files) if not os.path.exists(file)])


class SmallSession(SessionState):
    """A session's values, without the two copies that Gradio 6.31 keeps in each session: of the whole page, for deep
    links, and of the lists of its components and events.

    Of this page they took 0.7 MiB and 24 KiB, of every program's call too, and 10,000 sessions are kept. Remove when
    only pages with a deep link keep the one, and the other holds what has changed.
    """

    def __init__(self, blocks: gr.Blocks) -> None:
        shared = blocks.default_config
        self.blocks_config = BlocksConfig(blocks)
        self.blocks_config.blocks = cast(Any, ChainMap({}, shared.blocks))  # what is set goes into the first
        self.blocks_config.fns, self.blocks_config.fn_id = shared.fns, shared.fn_id  # only `gr.render` changes them
        self.config_values = _Dropped()
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = 60 * 60

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class _Dropped(dict[int, Any]):
    def __setitem__(self, key: int, value: Any) -> None:
        pass


class SmallSessions(StateHolder):
    def __getitem__(self, session_id: str) -> SessionState:
        with self.lock:
            if session_id not in self.session_data:
                self.session_data[session_id] = SmallSession(self.blocks)
        return super().__getitem__(session_id)


def keep_server_small(demo: gr.Blocks) -> None:
    """For the server that `demo.launch` has started.

    Gradio 6.31 keeps for ever an entry for each upload whose progress somebody asks for, with any name, and for each
    login. Remove when these are bounded.
    """
    routes.file_upload_statuses._statuses = Newest(MAX_UPLOADS)
    routes.file_upload_statuses._signals = cast(Any, Newest(MAX_UPLOADS, make=asyncio.Event))
    demo.app.tokens = Newest(MAX_LOGINS)
    sessions = SmallSessions()
    demo.app.state_holder = sessions
    sessions.set_blocks(demo)


def keep_connections(demo: gr.Blocks) -> None:
    """For the server that `demo.launch` has started.

    Gradio 6.31 keeps uvicorn's time after which an idle connection is closed, 5 seconds. Many clients have the same
    (httpx): then the server closes a connection while the next request is on its way, and the client reads "connection
    reset by peer". With a longer time the client closes first. Remove when the time can be set.
    """
    assert demo.server is not None
    demo.server.config.timeout_keep_alive = KEEP_ALIVE
