"""Faults from outside: signals, full or missing folders, odd consoles, addresses, proxies. One line, or it works."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, hear_ctrl_c
from page_client import API, Visitor, ask
from PIL import Image

from oms_app.cli import logs, startup
from oms_app.engine.worker import DeviceWorker
from oms_app.errors import StudioError, without_paths
from oms_app.models.failures import is_out_of_memory


@pytest.fixture
def environment(presets: Path, tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "OMS_PRESETS": str(presets), "OMS_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


@contextmanager
def page(environment: dict[str, str], *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, str(ROOT / "app.py"), "--device", "cpu", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=hear_ctrl_c,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield process, line.split()[-1].rstrip("/") if "OMS Studio is at" in line else line
        finally:
            process.kill()


def refused(environment: dict[str, str], *command: str) -> str:
    """The one line of a command that ends with 2."""
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-800:]
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("starting")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_the_page_while_it_generates(environment: dict[str, str], number: signal.Signals) -> None:
    """Also: the address of IPv6, a proxy, and a temporary folder that cannot be written to do not stop it."""
    odd = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9", "GRADIO_TEMP_DIR": "/proc/nobodys"}
    host = "::1" if number == signal.SIGTERM else "127.0.0.1"
    with page(environment | odd, "--host", host) as (process, address):
        assert address.startswith("http"), address
        assert "complete" in ask(address, "generate", prompt="sea", seed=1, num_inference_steps=1)[1]
        long = {"prompt": "sea", "seed": 2, "num_inference_steps": 200, "width": 128, "height": 128}
        with Visitor(address) as visitor:
            begun = visitor.http.post(f"{API}/call/v2/generate", json=long).json()["event_id"]
            with visitor.http.stream("GET", f"{API}/call/generate/{begun}"):
                time.sleep(1.0)
                began = time.monotonic()
                process.send_signal(number)
                code = process.wait(timeout=20)
        assert code in (0, 130) and time.monotonic() - began < 2
        assert process.stdout and "Traceback" not in process.stdout.read()
    assert not list((Path(environment["OMS_HOME"]) / "pictures").glob(".*.tmp"))


SAVING = """
import sys
from pathlib import Path
from PIL import Image
from test_history import OMS, STATS
from oms_app import GenerateRequest, GenerateResult
from oms_app.output import png
from oms_app.schema import ImageResult, Seconds
picture = Image.effect_noise((3000, 3000), 60).convert("RGB")
images = tuple(ImageResult(variant="oms", index=i, seed=i, image=picture, stats=STATS) for i in range(4))
request = GenerateRequest(prompt="sea", seed=0, count=4, variants=(OMS,))
seconds = Seconds(**dict.fromkeys(Seconds.model_fields, 1.0))
try:
    png.save(GenerateResult(request=request, seed=0, images=images, seconds=seconds, painted=4), Path(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_while_pictures_are_saved_leaves_whole_ones(environment: dict[str, str], tmp_path: Path) -> None:
    folder, path = tmp_path / "saved", os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", SAVING, str(folder)]
    with subprocess.Popen(
        command, env=environment | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    ) as saving:
        until = time.monotonic() + 120
        while not list(folder.glob("*.png")) or not list(folder.glob(".*.tmp")):  # the second one is written
            assert saving.poll() is None and time.monotonic() < until, saving.stderr and saving.stderr.read()
            time.sleep(0.005)
        began = time.monotonic()
        saving.send_signal(signal.SIGINT)
        _, told = saving.communicate(timeout=20)
    assert saving.returncode == 130 and time.monotonic() - began < 2 and told == ""
    assert not list(folder.glob(".*.tmp")), "nothing is half-written"
    assert 1 <= len(list(folder.glob("*.png"))) < 4
    for one in folder.glob("*.png"):
        with Image.open(one) as picture:
            picture.load()


def test_addresses_that_cannot_be(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} is taken" in refused(environment, "app.py", "--port", port)
    safe = environment | {"OMS_PASSWORD": "x"}
    assert "is unknown" in refused(safe, "app.py", "--host", "no.such.host.invalid")
    assert "cannot be listened on" in refused(safe, "app.py", "--host", "203.0.113.7")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("-m oms_app generate sea --nothing", "error: No such option: --nothing"),
        ("-m oms_app generate sea --seed many", "error: Invalid value for '--seed': Input should be a valid integer"),
        ("app.py --nothing", "error: unrecognized arguments: --nothing; --help shows the options"),
        ("app.py --port many", "error: argument --port: invalid int value: 'many'; --help shows the options"),
        ("app.py --port 0", "error: --port is 0: take 1 to 65535"),
        ("app.py --host 0.0.0.0", "error: --host 0.0.0.0 can be reached from other computers: set a password"),
    ],
)
def test_wrong_options_are_one_line_of_one_style(environment: dict[str, str], command: str, said: str) -> None:
    line = refused(environment, *command.split())
    assert line.startswith(said)


@pytest.mark.slow
def test_places_that_cannot_be(environment: dict[str, str], tmp_path: Path) -> None:
    generate = ("-m", "oms_app", "generate", "sea", "--steps", "1", "--seed", "1")
    assert "nosuchuser" in refused(environment | {"OMS_HOME": "~nosuchuser/x"}, *generate)
    assert "nosuchuser" in refused(environment | {"OMS_HOME": "~nosuchuser/x"}, "app.py")
    assert "cannot be written to" in refused(environment, *generate, "--out", str(tmp_path / ("a" * 300)))
    assert "cannot be written to" in refused(environment | {"OMS_HOME": "/proc/x"}, *generate)
    assert "does not exist" in refused(environment | {"OMS_PRESETS": "/nope"}, "-m", "oms_app", "models")


@pytest.mark.slow
def test_a_console_that_is_not_utf8(environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "画像"
    for encoding in ("cp1252", "ascii"):
        done = subprocess.run(
            [sys.executable, "-m", "oms_app", "generate", "sea 海", "--steps", "1", "--seed", "1", "--out", str(out)],
            cwd=ROOT, env=environment | {"PYTHONIOENCODING": encoding}, capture_output=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-500:]
    assert len(list(out.glob("*.png"))) == 4


@pytest.mark.slow
def test_a_full_disk_costs_the_file_and_not_the_picture(environment: dict[str, str]) -> None:
    """The limit of a file's size fails writes as a full disk does."""
    with page(environment) as (process, address):
        assert "complete" in ask(address, "generate", prompt="sea", seed=1, num_inference_steps=1)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))
        status, text = ask(address, "generate", prompt="sea", seed=2, num_inference_steps=1)
        assert status == 200 and "Traceback" not in text and ("not saved" in text or "error" in text)
        with Visitor(address) as visitor:
            prepare = visitor.event("generate")
            visitor.call(prepare, visitor.values(prepare, prompt="sea"))
            run = visitor.after(prepare)
            assert visitor.call(run, visitor.values(run))["success"]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert "event: complete" in ask(address, "generate", prompt="sea", seed=3, num_inference_steps=1)[1]
        pictures = Path(environment["OMS_HOME"]) / "pictures"
        assert not list(pictures.glob(".*.tmp"))
        # A folder that disappears is made again; a file in its place is named in one line.
        import shutil

        shutil.rmtree(pictures)
        assert "event: complete" in ask(address, "generate", prompt="sea", seed=4, num_inference_steps=1)[1]
        shutil.rmtree(pictures)
        pictures.write_text("")
        assert "Traceback" not in ask(address, "generate", prompt="sea", seed=5, num_inference_steps=1)[1]
        pictures.unlink()
        assert "event: complete" in ask(address, "generate", prompt="sea", seed=6, num_inference_steps=1)[1]


def test_loopback_is_kept_off_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "NO_PROXY",
        "no_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")
    startup.keep_loopback_off_proxies()
    assert os.environ["NO_PROXY"] == "example.org"
    monkeypatch.setenv("ALL_PROXY", "socks5://x")
    monkeypatch.setenv("no_proxy", "")
    startup.keep_loopback_off_proxies()
    assert os.environ["NO_PROXY"].split(",") == ["example.org", "localhost", "127.0.0.1", "::1"]


def test_an_error_in_the_device_worker_is_the_callers_and_the_next_work_runs() -> None:
    worker = DeviceWorker()

    def fails(error: BaseException) -> Any:
        raise error

    for error in (RuntimeError("could not create a primitive"), MemoryError(), SystemExit(3), KeyboardInterrupt()):
        # What would end the page in the thread of its caller becomes an ordinary error there.
        with pytest.raises(type(error) if isinstance(error, Exception) else RuntimeError):
            worker.run(lambda error=error: fails(error))  # type: ignore[misc]
    assert worker.run(lambda: 7) == 7
    assert is_out_of_memory(RuntimeError("could not create a primitive"))


def test_logs_rotate_and_hold_prompts_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 2_000)
    monkeypatch.setattr(logs, "KEPT", 2)
    root, prompts = logging.getLogger(), logging.getLogger("oms_app.prompts")
    before = list(root.handlers)
    try:
        for asked in (False, True):
            logs.start(tmp_path / str(asked) / "oms.log", prompts=asked)
            prompts.debug("a secret prompt")
            for _ in range(100):
                logging.getLogger("oms_app.x").info("a line of the log that is long enough to rotate the file")
        texts = {one: "".join(f.read_text() for f in (tmp_path / str(one)).iterdir()) for one in (False, True)}
        assert "a line" in texts[False] and "secret" not in texts[False] and prompts.level == logging.DEBUG
        assert len(list((tmp_path / "False").iterdir())) == 3
    finally:
        for handler in [one for one in root.handlers if one not in before]:
            root.removeHandler(handler)
            handler.close()
        prompts.setLevel(logging.NOTSET)
    with pytest.raises(StudioError, match="cannot be written"):
        logs.start(Path("/proc/nothing/oms.log"), prompts=False)


def test_a_crash_report_names_places_and_no_values(tmp_path: Path) -> None:
    def fail(prompt: str) -> None:
        try:
            json.loads(prompt)
        except ValueError as error:
            raise RuntimeError(f"cannot paint {prompt} for {Path.home()}/pictures") from error

    try:
        fail("a secret prompt")
    except RuntimeError as error:
        path = logs.write_report(tmp_path / "crashes", error)
    assert path is not None
    text = path.read_text()
    assert "RuntimeError" in text and "JSONDecodeError" in text and "in fail" in text
    assert "secret" not in text and str(Path.home()) + "/" not in text
    assert logs.write_report(Path("/proc/nothing"), RuntimeError()) is None
    assert logs.short_path("/home/me/x/lib/python3.11/site-packages/torch/a.py") == "site-packages/torch/a.py"


def test_messages_to_strangers_hold_no_folder_of_the_server() -> None:
    folders = [Path("/home/me/oms"), Path("/home/me")]
    text = without_paths("/home/me/oms/pictures/a.png cannot be written; see /home/me", folders)
    assert text == "pictures/a.png cannot be written; see me"
