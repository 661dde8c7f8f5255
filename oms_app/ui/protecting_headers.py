"""The headers by which browsers protect the page: no scripts but its own, no frames of others, strict cookies."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256

from oms_app.ui.asgi import Message, Send

SPACE_FRAMES = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
# Of everything but scripts: styles of elements are set by Gradio's components, pictures are also made in the browser.
SOURCES = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:"
)
INLINE = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
HALF_YEAR = 60 * 60 * 24 * 183  # seconds


class ProtectingHeaders:
    """space: Hugging Face may frame the page, which is reached by HTTPS only. scripts: inline scripts that the page's
    own scripts add."""

    def __init__(self, scripts: Sequence[str], *, space: bool) -> None:
        self._scripts, self._space = sorted({_hash(one.encode()) for one in scripts}), space
        self._fixed = {
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"same-origin",
            b"cross-origin-resource-policy": b"same-origin",
            b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
        }
        if space:
            self._fixed[b"strict-transport-security"] = f"max-age={HALF_YEAR}".encode()
        else:
            self._fixed[b"x-frame-options"] = b"DENY"

    def added(self, send: Send, path: str) -> Send:
        """`send` with the headers. The page and the form to log in, both at "/", are held back until they are whole:
        their policy names their inline scripts, so that no others run. In other HTML no inline script runs."""
        start: Message | None = None
        body = b""

        async def with_headers(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                if path == "/" and _is_html(message):
                    start = message
                else:
                    await send(self._with_policy(message, ()))
                return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                await send(self._with_policy(start, map(_hash, INLINE.findall(body))))
                await send({"type": "http.response.body", "body": body})

        return with_headers

    def _with_policy(self, start: Message, scripts: Iterable[str]) -> Message:
        """scripts: hashes of inline ones."""
        frames = SPACE_FRAMES if self._space else "'none'"
        # Gradio's page compiles the scripts of events and components, hence 'unsafe-eval'.
        allowed = " ".join(("'self'", "'unsafe-eval'", *self._scripts, *dict.fromkeys(scripts)))
        policy = (
            f"{SOURCES}; script-src {allowed}; worker-src 'self' blob:; "  # blob: is the painting canvas's
            f"frame-ancestors {frames}; object-src 'none'; base-uri 'self'; form-action 'self'"
        )
        ours = {b"content-security-policy": policy.encode(), **self._fixed}
        kept = [
            (name, self._strict(value) if name.lower() == b"set-cookie" else value)
            for name, value in start.get("headers", [])
            if name.lower() not in ours or name.lower() == b"content-security-policy"
        ]
        return {**start, "headers": [*kept, *ours.items()]}

    def _strict(self, cookie: bytes) -> bytes:
        flags = {re.sub(rb"=.*", b"", part).strip().lower() for part in cookie.split(b";")[1:]}
        wanted = [b"SameSite=Lax", b"HttpOnly", *([b"Secure"] if self._space else [])]
        return b"; ".join([cookie, *(one for one in wanted if one.partition(b"=")[0].lower() not in flags)])


def _is_html(start: Message) -> bool:
    kinds = [value for name, value in start.get("headers", []) if name.lower() == b"content-type"]
    return any(kind.lower().startswith(b"text/html") for kind in kinds)


def _hash(script: bytes) -> str:
    return f"'sha256-{b64encode(sha256(script).digest()).decode()}'"
