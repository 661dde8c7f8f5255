"""Which HTTP requests reach the page: one ASGI middleware, and the table of rules that it follows.

It refuses Hosts that are not this server's (DNS rebinding), requests that another site's page makes (CSRF), routes that
the page does not use, and bodies that are too large; it adds the headers that browsers need to protect the page.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import re
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from oms_app.addresses import LOOPBACK, is_address
from oms_app.ui.asgi import App, Message, Receive, Send, answer
from oms_app.ui.input_errors import OF_VALUES
from oms_app.ui.listeners import LISTENERS
from oms_app.ui.login_limit import LoginLimit
from oms_app.ui.protecting_headers import ProtectingHeaders
from oms_app.ui.uploads import MAX_UPLOAD, Uploads

logger = logging.getLogger(__name__)

SHARE_DOMAIN = ".gradio.live"
SPACE_DOMAIN = ".hf.space"
MAX_BODY = 512 * 1024  # bytes of JSON; the largest that the page sends is smaller
API = "/gradio_api"


@dataclass(frozen=True)
class Rule:
    """methods and path (a regular expression that must match all of it) → how such requests are treated.

    public: another site may link to it or load it; else only the page itself and programs may. max_body: bytes.
    """

    methods: tuple[str, ...]
    path: str
    public: bool = False
    max_body: int = 0


GET, POST = ("GET", "HEAD"), ("POST",)
NAME = "[^/]+"
# The first rule that matches counts. What matches none does not exist.
RULES = (
    Rule(GET, r"/|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?|/theme\.css", public=True),
    Rule(GET, r"/(static|assets|svelte)/.+", public=True),
    Rule(GET, r"/config/?|/logout"),
    Rule(GET, rf"{API}/(info|openapi\.json|user|login_check|app_id|startup-events|theme\.css|queue/status)/?"),
    Rule(GET, rf"{API}/(queue/data|upload_progress)"),
    Rule(GET, rf"{API}/heartbeat/{NAME}"),
    Rule(GET, rf"{API}/call/(v2/)?{NAME}/{NAME}"),
    Rule(GET, rf"{API}/file[=/].+"),
    Rule(GET, rf"{API}/custom_component/.+"),
    Rule(POST, r"/login/?", max_body=4 * 1024),
    Rule(POST, rf"{API}/queue/join|{API}/(run|api)/{NAME}/?|{API}/call/(v2/)?{NAME}/?", max_body=MAX_BODY),
    Rule(POST, rf"{API}/(cancel|reset/?|component_server/?)", max_body=MAX_BODY),
    Rule(POST, rf"{API}/upload", max_body=MAX_UPLOAD),
    Rule(("OPTIONS",), ".*"),  # answered without work; another origin is refused below
)
LISTENING = re.compile(rf"{API}/(?:queue/data|call/(?:v2/)?{NAME}/(?P<event>{NAME}))")


def rule_for(method: str, path: str) -> Rule | None:
    return next((rule for rule in RULES if method in rule.methods and re.fullmatch(rule.path, path)), None)


@dataclass(frozen=True)
class Hosts:
    """Names that this server is reached by.

    names: hosts without port. suffixes: domains of which every name counts. any_address: also every IP address, since
    a page cannot make a browser believe that its own name is one; for servers that listen on all addresses.
    """

    names: frozenset[str]
    suffixes: tuple[str, ...] = ()
    any_address: bool = False

    def __contains__(self, host: object) -> bool:
        if not isinstance(host, str) or not host:
            return False
        name = host.lower().rstrip(".")
        if name in self.names or name.endswith(self.suffixes):
            return True
        return self.any_address and is_address(name)


def hosts(bound: str, *, public_names: Iterable[str] = (), share: bool = False, space: str | None = None) -> Hosts:
    """bound: the address that the server listens on. public_names: others that the owner configured. share: with
    Gradio's public link. space: the Space's own host name, None if this is no Space."""
    bound = bound.strip("[]").lower()
    every = is_address(bound) and ipaddress.ip_address(bound).is_unspecified
    names = {*LOOPBACK, bound, *(name.strip().lower() for name in public_names if name.strip())}
    if every:
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
    suffixes = (SHARE_DOMAIN,) if share else ()
    if space is not None:
        names.add(space.lower())
        suffixes = (*suffixes, SPACE_DOMAIN)
    return Hosts(frozenset(names), suffixes, every)


class RequestRules:
    """The middleware. space: the page may be framed by Hugging Face, whose proxy names the visitor's address, and is
    reached by HTTPS only. scripts: inline scripts that the page adds by itself."""

    def __init__(
        self, app: App, *, hosts: Hosts, uploads: Uploads, space: bool = False, scripts: Sequence[str] = ()
    ) -> None:
        self._app, self._hosts, self._uploads, self._space = app, hosts, uploads, space
        self._headers = ProtectingHeaders(scripts, space=space)
        self._logins = LoginLimit()
        LISTENERS.active = True

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no web sockets
            return
        send = self._headers.added(send, scope["path"])
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal:
            await answer(send, *refusal)
            return
        rule = rule_for(scope["method"], scope["path"])
        assert rule is not None
        visitor = self.visitor(scope, headers)
        limited = _bounded(receive, rule.max_body)
        if scope["path"].startswith("/login") and scope["method"] == "POST":
            await self._login(visitor, scope, limited, send)
        elif scope["path"] == f"{API}/upload":
            await self._uploads.take(visitor, self._passed, scope, limited, send)
        elif found := LISTENING.fullmatch(scope["path"]):
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            key = found["event"] or query.get("session_hash", [""])[0]
            with LISTENERS.listening(key):
                await self._passed(scope, limited, send)
        else:
            await self._passed(scope, limited, send)

    def visitor(self, scope: Message, headers: MutableMapping[str, str]) -> str:
        """The visitor's address. A Space's proxy appends it to X-Forwarded-For; what stands before it can be forged."""
        forwarded = headers.get("x-forwarded-for", "") if self._space else ""
        client = scope.get("client") or ("",)
        return forwarded.rpartition(",")[2].strip() or str(client[0])

    def _refusal(self, method: str, path: str, headers: MutableMapping[str, str]) -> tuple[int, str] | None:
        """Status and reason, if the request is refused."""
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            return 421, f"this server has no host {host[:100]!r}: set OMS_PUBLIC_NAME to the name that it is reached by"
        rule = rule_for(method, path)
        if rule is None:
            return 404, "there is nothing here"
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "")
        if origin is not None and not self._is_own(origin, host):
            return 403, "another site's page may not do this"
        if site in ("cross-site", "same-site") and not rule.public:
            return 403, "another site's page may not do this"
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 15 or int(announced) > rule.max_body:
            return 413, f"the request is too large: take at most {rule.max_body:,} bytes"
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether an Origin is this server. Behind a proxy the port and the scheme may differ, under a public name."""
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        if parts.netloc.lower() == host.lower():
            return True
        return name == _name(host) and name not in LOOPBACK and not is_address(name)

    async def _login(self, visitor: str, scope: Message, receive: Receive, send: Send) -> None:
        if wait := math.ceil(self._logins.wait(visitor)):
            after = ((b"retry-after", str(wait).encode()),)
            await answer(send, 429, f"too many wrong passwords: try again in {wait} s", headers=after)
            return
        self._logins.begun(visitor)

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._logins.ended(visitor, good=message["status"] < 400)
            await send(message)

        await self._passed(scope, receive, watch)

    async def _passed(self, scope: Message, receive: Receive, send: Send) -> None:
        """The request, with one line for what the routes cannot use instead of their exception's traceback."""
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except TooLarge as error:
            if not started:
                await answer(send, 413, str(error))
        except OF_VALUES as error:
            logger.error("%s %s was refused (%s)", scope["method"], scope["path"][:100], type(error).__name__)
            if not started:
                await answer(send, 400, "the request cannot be used: see docs/api.md")


class TooLarge(Exception):
    """More bytes than the rule permits."""


def _bounded(receive: Receive, limit: int) -> Receive:
    """`receive`, which raises TooLarge after `limit` bytes of a body whose length was not announced."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise TooLarge(f"the request is too large: take at most {limit:,} bytes")
        return message

    return bounded


def _name(host: str) -> str:
    """A Host without its port; "" if it is none."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(:\d{1,5})?", host)
    return found[1].strip("[]").lower() if found else ""
