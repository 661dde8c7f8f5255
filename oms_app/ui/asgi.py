"""The types of ASGI, and a short answer: what the middleware of the page is written in."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


async def answer(
    send: Send, status: int, reason: str, *, plain: bool = False, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """plain: the reason as it is, for Gradio to show in the page; else as JSON. headers: further ones."""
    body = (reason if plain else json.dumps({"detail": reason})).encode()
    kind = b"text/plain; charset=utf-8" if plain else b"application/json"
    own = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
