"""Which HTTP requests reach the page, route by route; uploads; passwords; who waits in the queue."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import running_app
from observatory import KNOWN, failing_rules
from page_client import API, Visitor
from PIL import Image

import app
from oms_app.errors import StudioError
from oms_app.pictures import open_picture
from oms_app.ui import login_limit, uploads
from oms_app.ui.jobs import MAX_SESSIONS, StopFlags
from oms_app.ui.listeners import Listeners
from oms_app.ui.login_limit import LoginLimit
from oms_app.ui.protecting_headers import ProtectingHeaders
from oms_app.ui.request_rules import RULES, Hosts, RequestRules, hosts, rule_for
from oms_app.ui.roles import GUEST, OWNER, login
from oms_app.ui.uploads import Uploads

EVIL = "https://evil.example"
# Gradio's routes that the page does not use: they do not exist here.
CLOSED = [
    "/monitoring",
    "/monitoring/summary",
    "/monitoring/{key}",
    "/gradio_api/deep_link",
    "/gradio_api/token",
    "/gradio_api/dev/reload",
    "/gradio_api/proxy={url_path:path}",
    "/gradio_api/stream/{event_id}",
    "/gradio_api/stream/{event_id}/close",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
    "/gradio_api/process_recording",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
    "/gradio_api/vibe-edit",
    "/gradio_api/vibe-code",
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file",
    "/gradio_api/undo-vibe-edit",
    "/gradio_api/runs",
    "/gradio_api/vibe-starter-queries",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/gradio_api/run-history/records",
    "/gradio_api/run-history/connect",
    "/gradio_api/run-history/records/{endpoint}/{record_id}/assets/{asset_id}",
    "/gradio_api/run-history/buckets",
    "/docs/oauth2-redirect",
]


@pytest.fixture(scope="module")
def served(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page with both passwords; guests and owners of the tests log in."""
    folder = tmp_path_factory.mktemp("rules")
    environment = {"OMS_PRESETS": str(presets), "OMS_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    environment |= {
        "OMS_PASSWORD": "correct horse",
        "OMS_GUEST_PASSWORD": "battery",
        "GRADIO_TEMP_DIR": str(folder / "up"),
    }
    with running_app(environment, folder / "app.txt") as address:
        yield address


def answered(method: str = "GET", path: str = "/config", space: bool = False, **headers: str) -> int:
    """The status of a request to the rules alone; 200 if it passed them."""

    async def passed(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"[]"})

    names = hosts("127.0.0.1") if not space else hosts("0.0.0.0", space="me-studio.hf.space")
    rules = RequestRules(passed, hosts=names, uploads=Uploads(models=True), space=space)
    given = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "client": ("127.0.0.1", 1),
        "query_string": b"",
    }
    scope["headers"] = [(name.encode(), value.encode()) for name, value in given.items()]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    with contextlib.suppress(StopIteration):
        rules(scope, receive, send).send(None)  # nothing in it waits, so it needs no event loop
    return int(sent[0]["status"])


ROUTES = """
import json, gradio
def of(routes):
    for route in routes:
        if hasattr(route, "original_router"):  # an included router
            yield from of(route.original_router.routes)
        yield from ([method, route.path] for method in getattr(route, "methods", None) or ())
with gradio.Blocks() as demo:
    gradio.Textbox()
print(json.dumps(list(of(demo.app.routes))))
"""


def test_every_route_of_gradio_is_open_by_a_rule_or_closed() -> None:
    # In a process of its own: Gradio leaves an event loop open.
    listed = subprocess.run([sys.executable, "-c", ROUTES], capture_output=True, text=True, check=True).stdout
    routes = {(method, path) for method, path in json.loads(listed)}
    assert len(routes) > 60
    neither = []
    for method, path in routes - {("HEAD", path) for _, path in routes}:
        plain = path.rstrip("/") or "/"
        concrete = plain.replace("{path:path}", "x/y").replace("{path_or_url:path}", "x/y").replace("{size}", "192")
        for name in ("api_name", "event_id", "session_hash", "id", "environment", "type", "file_name", "key"):
            concrete = concrete.replace("{" + name + "}", "name")
        if plain in CLOSED:
            assert rule_for(method, concrete) is None, (method, path)
        elif rule_for(method, concrete) is None:
            neither.append((method, path))
    assert not neither, "say in RULES or in CLOSED what becomes of these"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil", "", "[::1", "127.0.0.1@evil",
     "10.0.0.5:7860"],
)  # fmt: skip
def test_another_host_is_refused(host: str) -> None:
    assert answered(host=host) == 421


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:7860", "[::1]:7860", "localhost."])
def test_our_own_names_are_accepted(host: str) -> None:
    assert answered(host=host) == 200


def test_names_by_how_the_page_is_opened() -> None:
    assert "studio.example" in hosts("0.0.0.0", public_names=["Studio.example", ""])
    assert "192.168.1.7" in hosts("0.0.0.0") and "192.168.1.7" not in hosts("127.0.0.1")
    assert "evil.example" not in hosts("0.0.0.0")
    assert "abc.gradio.live" in hosts("127.0.0.1", share=True) and "abc.gradio.live" not in hosts("127.0.0.1")
    assert "me-studio.hf.space" in hosts("0.0.0.0", space="me-studio.hf.space")
    assert "" not in Hosts(frozenset({"", "a"}))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.path[:40])
def test_no_rule_lets_another_origin_in(rule: Any) -> None:
    example = "/" if rule.path.startswith("/|") else {r"/(s": "/static/a.js", r"/co": "/config"}.get(rule.path[:3])
    path = example or next(
        one for one in ("/login", *(f"{API}/{name}" for name in (
            "info", "queue/data", "heartbeat/x", "call/generate/x", "file=/x.png", "custom_component/a/b", "queue/join",
            "cancel", "upload"))) if rule_for(rule.methods[0], one) is rule or rule.path == ".*"
    )  # fmt: skip
    for origin in (EVIL, "null", "http://localhost:9999", "http://127.0.0.1:7861", "file://", "http://[::1"):
        assert answered(rule.methods[0], path, origin=origin) == 403
    for site in ("cross-site", "same-site"):
        assert answered(rule.methods[0], path, sec_fetch_site=site) == (200 if rule.public else 403)
    if rule.path != ".*":
        assert answered(rule.methods[0], path, origin="http://127.0.0.1:7860", sec_fetch_site="same-origin") == 200


def test_bodies_are_bounded() -> None:
    join = f"{API}/queue/join"
    assert answered("POST", join, content_length=str(10**6)) == 413
    assert answered("POST", join, content_length="1" * 400) == 413
    assert answered("POST", join, content_length="-1") == 413
    assert answered("GET", "/config", content_length="5") == 413
    assert answered("POST", f"{API}/upload", content_length=str(10**11)) == 413


def test_only_hugging_face_frames_a_space_and_nobody_another_page() -> None:
    assert answered(space=True, host="me-studio.hf.space", sec_fetch_site="none") == 200
    assert answered(path="/", space=True, host="me-studio.hf.space", sec_fetch_site="cross-site") == 200


def test_the_page_is_protected_by_headers_and_cookies(served: str) -> None:
    with Visitor(served, (OWNER, "correct horse")) as visitor:
        protected(visitor)


def protected(visitor: Visitor) -> None:
    assert failing_rules(visitor.http.get("/"), https=False) == KNOWN
    asked = dict.fromkeys(("__theme", "view", "deep_link", "x"), "<script>alert(1)</script>")
    assert "alert(1)" not in visitor.http.get("/", params=asked).text, "what is asked for is not in the page"
    cookies = visitor.http.post("/login", data={"username": OWNER, "password": "correct horse"}).headers
    assert all("samesite" in one.lower() for one in cookies.get_list("set-cookie"))
    assert visitor.http.get("/config", headers={"Origin": EVIL}).status_code == 403
    assert visitor.http.get("/config", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(("path", "runs"), [("/", True), (f"{API}/file=/x.html", False), ("/static/x.html", False)])
def test_inline_scripts_run_in_the_page_alone(path: str, runs: bool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def answer() -> None:
        added = ProtectingHeaders([], space=False).added(send, path)
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        await added({"type": "http.response.start", "status": 200, "headers": headers})
        await added({"type": "http.response.body", "body": b"<script>alert", "more_body": True})
        await added({"type": "http.response.body", "body": b"(1)</script>"})

    asyncio.run(answer())
    policy = dict(sent[0]["headers"])[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'self';") and ("sha256-" in policy) == runs
    assert b"".join(one["body"] for one in sent[1:]) == b"<script>alert(1)</script>"


@pytest.mark.parametrize("space", [False, True])
def test_cookies_are_strict(space: bool) -> None:
    headers = ProtectingHeaders([], space=space)
    given = [(b"set-cookie", b"access-token-unsecure-x=1; path=/"), (b"Set-Cookie", b"b=2; httponly; SameSite=strict")]
    kept = headers._with_policy({"type": "http.response.start", "status": 200, "headers": given}, ())["headers"]
    first, second = (value.lower() for name, value in kept if name.lower() == b"set-cookie")
    assert all((b"; secure" in one) == space and b"; httponly" in one for one in (first, second))
    assert b"samesite=lax" in first and second.count(b"samesite") == 1


def picture(width: int = 8, height: int = 8) -> bytes:
    """A PNG that says its size; the pixels of a large one are missing."""
    if width * height < 10_000:
        file = io.BytesIO()
        Image.new("RGB", (width, height)).save(file, "PNG")
        return file.getvalue()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_only_pictures_and_models_are_kept(served: str) -> None:
    with Visitor(served, (OWNER, "correct horse")) as visitor:
        kept(visitor)


def kept(visitor: Visitor) -> None:
    def sent(*files: tuple[str, bytes]) -> tuple[int, str]:
        answer = visitor.http.post(f"{API}/upload", files=[("files", file) for file in files])
        return answer.status_code, answer.text

    status, text = sent(("a.png", picture()), ("b.safetensors", b"x"))
    assert status == 200 and all(Path(one).is_file() for one in json.loads(text))
    for name, content in (
        ("a.html", b"<script>"), ("a.svg", b"<svg/>"), ("a.bin", b"x"), ("a.png", b"<script>"), ("a.gif", b"GIF89a"),
        ("a.png", picture(13_000, 13_000)), ("a.png.exe", picture()),
    ):  # fmt: skip
        status, text = sent((name, content))
        assert status == 415 and "\n" not in text and "/" not in text.replace("\\u", ""), (name, text)
    assert sent(*[(f"{i}.png", picture()) for i in range(40)])[0] == 415


def test_uploads_are_bounded_by_visitor_and_in_total(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(uploads, "PER_VISITOR", 250)
    monkeypatch.setattr(uploads, "PER_ALL", 600)
    monkeypatch.setattr(uploads, "MIN_COUNTED", 0)
    content = picture()
    assert len(content) < 100

    def stored(taken: Uploads, visitor: str, number: int) -> str | None:
        file = tmp_path / visitor / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content + b"\0" * (100 - len(content)))
        return taken._refusal(visitor, json.dumps([str(file)]).encode())

    taken = Uploads(models=False)
    assert [stored(taken, "a", i) is None for i in range(3)] == [True, True, False]
    assert not (tmp_path / "a/2.png").exists(), "a refused file is deleted"
    assert [stored(taken, name, 9) is None for name in "bcdefg"] == [True, True, True, True, False, False]


@pytest.mark.parametrize("ending", ["png", "jpeg", "webp"])
def test_pictures_that_are_too_large_are_refused_before_they_are_decoded(tmp_path: Path, ending: str) -> None:
    good = tmp_path / f"good.{ending}"
    Image.new("RGB", (16, 8)).save(good)
    with open_picture(good) as image:
        assert image.size == (16, 8)
    bad = tmp_path / f"bad.{ending}"
    bad.write_bytes(picture(20_000, 20_000) if ending == "png" else good.read_bytes()[:30])
    with pytest.raises(StudioError, match=r"pixels: take at most|cannot be read"), open_picture(bad):
        pass
    with pytest.raises(OSError, match="disk full"), open_picture(good):  # a fault of the caller's is no damaged picture
        raise OSError("disk full")


def test_guests_generate_and_the_owner_manages(served: str) -> None:
    with Visitor(served, (GUEST, "battery")) as guest, Visitor(served, (OWNER, "correct horse")) as owner:
        managed(guest, owner)


def managed(guest: Visitor, owner: Visitor) -> None:
    said = []
    for visitor in (guest, owner):
        add = visitor.event("own-add")
        by_path = visitor.after(add)
        said.append(json.dumps(visitor.call(by_path, visitor.values(by_path, own_path="/nothing/here"))))
    assert "by the owner only" in said[0] and "here is nothing at" in said[1]
    keep = guest.event("look-keep")
    assert "by the owner only" in json.dumps(guest.call(keep, guest.values(keep, look_title="mine")))
    assert "by the owner only" in json.dumps(
        guest.call(guest.event("catalogue"), guest.values(guest.event("catalogue")), {"action": "forget", "id": "x"})
    )
    prepare = guest.event("generate")
    assert guest.call(prepare, guest.values(prepare, prompt="sea"))["success"]


def test_passwords() -> None:
    permitted = login("secret", None)
    assert permitted is not None and login(None, None) is None
    assert permitted(OWNER, "secret")
    for name, password in (
        (OWNER, ""),
        (OWNER, "Secret"),
        (GUEST, ""),
        (GUEST, "None"),
        ("", "secret"),
        ("x", "secret"),
    ):
        assert not permitted(name, password)


def test_guessing_is_slowed_and_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(login_limit.time, "monotonic", lambda: now)
    limit, tried = LoginLimit(), 0
    for _ in range(24 * 60):  # a day, an attempt each minute
        if not limit.wait("a"):
            limit.begun("a")
            limit.ended("a", good=False)
            tried += 1
        now += 60
    assert tried < 120
    assert not limit.wait("b"), "others may log in"
    now += 10_000
    limit.begun("a")
    limit.ended("a", good=True)
    assert not limit.wait("a")


def test_many_guesses_at_once_are_locked_too(served: str) -> None:
    import httpx2

    with httpx2.Client(base_url=served, trust_env=False) as http:
        codes = [http.post("/login", data={"username": OWNER, "password": f"w{i}"}).status_code for i in range(12)]
    assert 429 in codes and codes.count(400) <= login_limit.FREE + 1
    time.sleep(login_limit.FIRST_WAIT * 1.2)


@pytest.mark.parametrize("name", ["OMS_PASSWORD", "OMS_GUEST_PASSWORD"])
@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_blank_password_is_none(monkeypatch: pytest.MonkeyPatch, name: str, blank: str) -> None:
    monkeypatch.setenv(name, blank)
    with pytest.raises(SystemExit) as ended:
        app.arguments(["--host", "0.0.0.0"])
    assert ended.value.code == 2


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_space_id_is_no_space(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SPACE_ID", value)
    assert app.arguments([]).host == "127.0.0.1"
    with pytest.raises(SystemExit):
        app.arguments(["--host", "0.0.0.0"])


def test_stop_is_heard_after_a_thousand_other_visitors() -> None:
    flags = StopFlags()
    with flags.running("me") as stop:
        for i in range(MAX_SESSIONS + 100):
            flags.reset(f"other {i}")
        flags.of("me").set()
        assert stop.is_set()
    assert len(flags._flags) <= MAX_SESSIONS + 1


def test_who_left_is_gone_and_who_listens_is_not() -> None:
    listeners = Listeners()
    assert not listeners.gone("a", 0.0), "without a middleware nobody is gone"
    listeners.active = True
    with listeners.listening("a"):
        time.sleep(0.02)
        assert not listeners.gone("a", 0.01)
    assert not listeners.gone("a", 10)
    time.sleep(0.02)
    assert listeners.gone("a", 0.01)
    assert not listeners.gone(None, 0.0)


def test_who_asks_again_after_a_while_is_not_gone_before_the_new_stream_opens() -> None:
    listeners = Listeners()
    listeners.active = True
    with listeners.listening("a"):
        pass
    time.sleep(0.06)
    assert listeners.gone("a", 0.05)
    listeners.asks("a")
    assert not listeners.gone("a", 0.05)
