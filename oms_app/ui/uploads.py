"""What visitors may upload: kinds, sizes and numbers of files, and how long they are kept.

Gradio stores an upload before anything here can look at it, so files that are refused are deleted at once.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import OrderedDict, deque
from pathlib import Path

from oms_app.engine.service import KEPT
from oms_app.errors import StudioError
from oms_app.pictures import open_picture
from oms_app.ui.asgi import App, Message, Receive, Send, answer
from oms_app.ui.language import translation_for

MB = 10**6
MAX_PICTURE = 64 * MB  # bytes of a picture; a PNG of MAX_PIXELS has fewer
MAX_MODEL = 8_000 * MB  # bytes of a .safetensors file; only owners may upload one
MAX_UPLOAD = MAX_MODEL + MB
MAX_FILES = 16  # in one request
PER_VISITOR, PER_ALL = 256 * MB, 2_000 * MB  # bytes of pictures within KEPT
MIN_COUNTED = 64_000  # bytes that a smaller upload counts for, so that there are not millions of them
MAX_VISITORS = 10_000
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class Uploads:
    """models: .safetensors files are accepted too, without the bounds per visitor."""

    def __init__(self, *, models: bool) -> None:
        self._models = models
        self._taken: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()

    async def take(self, visitor: str, app: App, scope: Message, receive: Receive, send: Send) -> None:
        """Passes an upload to Gradio, and deletes what it stored if it is refused."""
        limit = MAX_MODEL if self._models else MAX_PICTURE
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        translation = translation_for(headers, {})

        async def refuse(status: int, reason: str) -> None:
            await answer(send, status, translation.text(reason) if translation else reason, plain=True)

        announced = int(headers.get("content-length", 0))
        if announced > limit or not self._room(visitor, 0 if self._models else announced):
            await refuse(413, _too_much(limit))
            return
        start: Message = {}
        body = b""

        async def keep(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            else:
                body += message.get("body", b"")

        await app(scope, receive, keep)
        refusal = self._refusal(visitor, body) if start.get("status") == 200 else None
        if refusal:
            await refuse(415, refusal)
            return
        await send(start)
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, visitor: str, body: bytes) -> str | None:
        """Why the stored files are refused; they are then deleted. body: Gradio's answer, their paths as JSON."""
        files = [Path(path) for path in json.loads(body)]
        reason = None
        if len(files) > MAX_FILES:
            reason = f"{len(files):,} files at once: take at most {MAX_FILES}"
        for file in files:
            reason = reason or self._fault(file)
        size = sum(file.stat().st_size for file in files if file.suffix.lower() in PICTURES and file.is_file())
        if reason is None and not self._room(visitor, size):
            reason = _too_much(MAX_PICTURE)
        if reason is None:
            self._taken.setdefault(visitor, deque()).append((time.monotonic(), max(size, MIN_COUNTED)))
            return None
        for file in files:
            with contextlib.suppress(OSError):
                file.unlink()
                file.parent.rmdir()  # the folder that Gradio names after its contents
        return reason

    def _fault(self, file: Path) -> str | None:
        """What is wrong with one file."""
        ending = file.suffix.lower()
        if ending == ".safetensors" and self._models:
            return None
        if ending not in PICTURES and ending != "":
            name = file.name[:60]
            if self._models:
                return f"{name} is not a picture: take PNG, JPEG or WebP, or .safetensors for a model"
            return f"{name} is not a picture: take PNG, JPEG or WebP"
        if file.stat().st_size > MAX_PICTURE:
            return _too_much(MAX_PICTURE)
        try:
            with open_picture(file):
                return None
        except StudioError as error:
            return str(error)

    def _room(self, visitor: str, size: int) -> bool:
        """Whether the visitor, and all together, may upload `size` more bytes."""
        oldest = time.monotonic() - KEPT
        for name in list(self._taken):
            uploads = self._taken[name]
            while uploads and uploads[0][0] < oldest:
                uploads.popleft()
            if not uploads:
                del self._taken[name]
        of = {name: sum(bytes_ for _, bytes_ in uploads) for name, uploads in self._taken.items()}
        return (
            of.get(visitor, 0) + size <= PER_VISITOR
            and sum(of.values()) + size <= PER_ALL
            and (visitor in of or len(of) < MAX_VISITORS)
        )


def _too_much(limit: int) -> str:
    return f"too much is uploaded: take files of at most {limit // MB:,} MB, and wait an hour before many more"
