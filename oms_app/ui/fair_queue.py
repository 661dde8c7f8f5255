"""The queue is shared fairly: few waiting requests per visitor, none of visitors who are gone, none that were stopped.

Gradio 6.31 bounds only the queue as a whole. Remove when it bounds waiting events by session and drops those whose
stream was never opened, forgets the answers that nobody fetches, and ends a waiting event on the server's own wish.
"""

from __future__ import annotations

import time
from typing import Any

import gradio as gr
from gradio.server_messages import ProcessCompletedMessage

from oms_app.addresses import LOOPBACK
from oms_app.ui.events import DEVICE
from oms_app.ui.gradio_compat import added_last
from oms_app.ui.jobs import StopFlags
from oms_app.ui.language import translation_of
from oms_app.ui.listeners import LISTENERS, Listeners

PER_VISITOR = 2  # requests that a visitor may have waiting
WITHOUT_SESSION = 16  # requests of programs that name no session, together: half of the queue, so others find a place
# Attributes of an event of Gradio: the flags that take it out of the queue; that are reset when it leaves it.
STOPPED_BY, BEGINS = "oms_stopped_by", "oms_begins"
INTERVAL = 0.5  # seconds between two searches for visitors who are gone
ANSWERS_KEPT = 10 * 60.0  # seconds that answers wait for a visitor who is gone


def share_fairly(demo: gr.Blocks, listeners: Listeners = LISTENERS) -> None:
    """Bounds the waiting requests of every visitor, and drops those of visitors who are gone."""
    queue: Any = demo._queue
    push, get_events = queue.push, queue.get_events
    checked = forgotten = 0.0

    def waiting() -> list[Any]:
        return [event for one in queue.event_queue_per_concurrency_id.values() for event in one.queue]

    async def fair_push(body: Any, request: Any, username: str | None) -> Any:
        drop_gone()
        translation = translation_of(request)
        if body.fn_index not in demo.fns:
            reason = "the page has no such event: open it again"
            return False, translation.text(reason) if translation else reason, "error"
        if refusal := _refusal(waiting(), body.session_hash, _address(request)):
            return False, translation.text(refusal) if translation else refusal, "queue_full"
        listeners.asks(body.session_hash)
        return await push(body=body, request=request, username=username)

    def drop_gone() -> None:
        for one in queue.event_queue_per_concurrency_id.values():
            for event in list(one.queue):
                if listeners.gone(event.session_hash):
                    one.queue.remove(event)
                    queue.event_ids_to_events.pop(event._id, None)
                    ids = queue.pending_event_ids_session.get(event.session_hash, set())
                    ids.discard(event._id)
                    if not ids:
                        queue.pending_event_ids_session.pop(event.session_hash, None)

    def forget_answers() -> None:
        """Of visitors who are gone for long and have no request left."""
        for session, ids in list(queue.pending_event_ids_session.items()):
            if not ids & queue.event_ids_to_events.keys() and listeners.gone(session, ANSWERS_KEPT):
                queue.pending_event_ids_session.pop(session, None)
                queue.pending_messages_per_session.pop(session, None)

    def next_events() -> Any:
        nonlocal checked, forgotten
        if time.monotonic() - forgotten > ANSWERS_KEPT / 10:
            forgotten = time.monotonic()
            forget_answers()
        if time.monotonic() - checked > INTERVAL:
            checked = time.monotonic()
            drop_gone()
        found = stopped_event() or get_events()
        for event in found[0] if found else ():
            if flags := getattr(event.fn, BEGINS, None):
                flags.reset(event.session_hash)
        return found

    def stopped_event() -> Any:
        for name, one in queue.event_queue_per_concurrency_id.items():
            for event in one.queue:
                flags: StopFlags | None = getattr(event.fn, STOPPED_BY, None)
                if flags and flags.is_set(event.session_hash):
                    one.queue.remove(event)
                    return [event], False, name
        return None

    queue.push, queue.get_events = fair_push, next_events


def stopped_go_first(flags: StopFlags) -> None:
    """The event that was added last to the current Blocks begins at once if it waits and its page's flag is set. Its
    handler must then end without using what it waited for."""
    setattr(added_last(), STOPPED_BY, flags)


def begins_with_new_flag(flags: StopFlags) -> None:
    """The event that was added last to the current Blocks gets a new flag as it leaves the queue: what stops it before
    is `end_waiting`."""
    setattr(added_last(), BEGINS, flags)


def end_waiting(blocks: gr.Blocks, session: str | None, name: str, reason: str) -> None:
    """Ends the session's waiting calls of a public endpoint with an error. To be called in the event loop, where the
    queue is used."""
    queue: Any = blocks._queue
    for one in queue.event_queue_per_concurrency_id.values():
        for event in [event for event in one.queue if event.session_hash == session and event.fn.api_name == name]:
            one.queue.remove(event)
            queue.event_ids_to_events.pop(event._id, None)
            queue.send_message(event, ProcessCompletedMessage(output={"error": reason}, success=False))


def _refusal(waiting: list[Any], session: str | None, address: str) -> str | None:
    """Why one more request of this visitor cannot wait; None if it can. waiting: Gradio's events."""
    ours = [event for event in waiting if event.concurrency_id == DEVICE]
    if session:
        if sum(event.session_hash == session for event in ours) >= PER_VISITOR:
            return f"The queue is full for you: {PER_VISITOR} of your requests wait already. Stop one, or wait."
        return None
    alone = [event for event in ours if event.session_hash == event._id]
    if len(alone) >= WITHOUT_SESSION:
        return "The queue is full for programs that name no session: try again later."
    if address not in ("", *LOOPBACK) and sum(_address(event.request) == address for event in alone) >= PER_VISITOR:
        return f"The queue is full for you: {PER_VISITOR} requests from your address wait already."
    return None


def _address(request: Any) -> str:
    client = getattr(request, "client", None)
    return str(client.host) if client else ""
