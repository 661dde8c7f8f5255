"""The page as it is first sent, in the visitor's language: an ASGI middleware that rewrites Gradio's HTML.

`gr.I18n` of Gradio 6.31 is for that too, but does too little here: it translates six properties of a component, but not
alt texts or HTML with several texts; it knows Chinese as zh-CN only, so that zh and zh-HK stay English; it would
translate a prompt that equals a key; and it sends every language to every visitor. It is used for Gradio's own texts.
Remove this when it does the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from oms_app.ui.asgi import App, Message, Receive, Send
from oms_app.ui.language import ENGLISH, translation_for
from oms_app.ui.translation import Translation

CONFIG = "window.gradio_config = "  # before the page's components, as JSON
LOGIN = '"auth_required":true'  # in the config of the form to log in; inside a text its quotes would be escaped
MAX_QUERY = 4_096  # bytes
# Gradio's scripts keep `requestAnimationFrame` as they find it, so this must run before them.
FRAMES = (Path(__file__).parent / "gradio_frames.js").read_text(encoding="utf-8")


class TranslatedPage:
    """The middleware. scripts: the page's own, whose texts are translated by `told` (language.js). login_scripts: those
    of the form to log in, to which Gradio 6.31 adds none."""

    def __init__(self, app: App, *, scripts: str = "", login_scripts: str = "") -> None:
        self._app, self._scripts, self._login_scripts = app, scripts, login_scripts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = dict(parse_qsl(scope.get("query_string", b"")[:MAX_QUERY].decode("latin-1")))
        translation = translation_for(headers, query)
        start: Message = {}
        body = b""

        async def rewritten(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            html, scripts = body.decode(), self._scripts
            if LOGIN in html:
                scripts = self._login_scripts
                html = html.replace("</head>", f"<script>{scripts}</script></head>", 1)
            whole = translated_html(html, translation, scripts).encode()
            length = (b"content-length", str(len(whole)).encode())
            kept = [pair for pair in start["headers"] if pair[0].lower() not in (b"content-length", b"vary")]
            await send({**start, "headers": [*kept, length, (b"vary", b"Accept-Language, Accept-Encoding")]})
            await send({"type": "http.response.body", "body": whole})

        await self._app(scope, receive, rewritten)


def translated_html(html: str, translation: Translation | None, scripts: str = "") -> str:
    """Gradio's HTML with the texts of its components in a language. None is English, of which only the code is set."""
    code = translation.code if translation else ENGLISH
    texts = {key: value for key, value in translation.texts.items() if key in scripts} if translation else {}
    # Gradio takes its own texts and `<html lang>` from the browser's language, which may be another than the page's.
    told = f"Object.defineProperty(navigator, 'language', {{value: '{code}'}}); window.omsTexts = {_json(texts)};"
    first = f"<head><script>{told}\n{FRAMES}</script>"
    html = html.replace('lang="en"', f'lang="{code}"', 1).replace("<head>", first, 1)
    begin = html.find(CONFIG)
    if translation is None or begin < 0:
        return html
    begin += len(CONFIG)
    config, end = json.JSONDecoder().raw_decode(html, begin)
    return f"{html[:begin]}{_json(translated_config(config, translation))}{html[end:]}"


def translated_config(config: dict[str, Any], translation: Translation) -> dict[str, Any]:
    """Gradio's description of a page with its components in a language."""
    components = [
        {**one, "props": translation.properties(str(one.get("type")), one.get("props", {}))}
        for one in config.get("components", ())
    ]
    return {**config, "components": components, "auth_message": translation.text(config.get("auth_message") or "")}


def _json(value: Any) -> str:
    """For a script inside HTML."""
    text = json.dumps(value, ensure_ascii=False)
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
