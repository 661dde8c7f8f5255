"""A Hugging Face Space: its visitors are strangers to each other and to the machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, running_app
from observatory import KNOWN, failing_rules
from page_client import API, Visitor, ask

from oms_app.output.png import read_any

TOKENS = ("a" * 32, "b" * 32)


@pytest.fixture(scope="module")
def space(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page's address, and the folder of the machine that it may use."""
    machine = tmp_path_factory.mktemp("machine")
    with running_app(of_a_space(machine, presets), machine / "app.txt") as address:
        yield address.replace("0.0.0.0", "127.0.0.1"), machine


def of_a_space(machine: Path, presets: Path) -> dict[str, str]:
    """Environment variables."""
    (machine / "tmp").mkdir()
    return {
        "SPACE_ID": "someone/studio", "SPACE_HOST": "127.0.0.1", "OMS_PRESETS": str(presets), "HF_HUB_OFFLINE": "1",
        "OMS_HOME": str(machine / "home"), "TMPDIR": str(machine / "tmp"), "GRADIO_TEMP_DIR": str(machine / "cache"),
    }  # fmt: skip


def enter(visitor: Visitor, token: str) -> None:
    visitor.call(visitor.loading("oms-studio-visitor"), [token, ""])


def generate(visitor: Visitor, prompt: str) -> str:
    """Presses Generate in Create. Returns the last answer, which shows the pictures."""
    prepare = visitor.event("generate")
    visitor.call(prepare, visitor.values(prepare, prompt=prompt, Steps=2))
    run = visitor.after(prepare)
    assert visitor.call(run, visitor.values(run))["success"]
    shown = visitor.call(visitor.changed(run), [None])
    assert shown["success"], shown
    return json.dumps(shown)


def strip(visitor: Visitor, token: str) -> str:
    """What the page shows of the saved pictures when it is opened again."""
    return json.dumps(visitor.call(visitor.loading("oms-studio-visitor"), [token, "*"]))


def test_two_visitors_see_their_own_pictures_and_no_path(space: tuple[str, Path]) -> None:
    address, machine = space
    with Visitor(address) as mine, Visitor(address) as other:
        for visitor, token in zip((mine, other), TOKENS, strict=True):
            enter(visitor, token)
        assert str(machine / "cache") in generate(mine, "my own secret")
        assert "my own secret" in strip(mine, TOKENS[0])
        saved = [path for path in (machine / "tmp").rglob("*.png") if read_any(path).request.prompt == "my own secret"]
        assert len(saved) == 2
        theirs = [strip(other, TOKENS[1])]
        for event in (other.event("gallery-cards"), other.event("history-strip")):
            for action in ("open", "pick", "delete", "favourite"):
                click = {"do": action, "name": saved[0].name}
                theirs.append(json.dumps(other.call(event, other.values(event), click)))
        assert all("my own secret" not in text for text in theirs)
        assert all(path.is_file() for path in saved)
        for path in (*saved, machine / "home", machine / "app.txt", ROOT / "app.py", "/etc/passwd"):
            assert other.http.get(f"{API}/file={path}").status_code in (403, 404)
        answers = [ask(address, "generate", prompt="sea", seed=1, num_inference_steps=1, **more)[1]
                   for more in ({}, {"variants": ["nothing"]})]  # fmt: skip
        assert "event: complete" in answers[0] and "event: error" in answers[1]
        heard = "".join((*mine.heard, *other.heard, *theirs, *answers)).replace(str(machine / "cache"), "")
    # Gradio names a file of its cache, which is served, by its path; nothing else of the machine is named.
    for folder in (str(machine), str(ROOT), str(Path.home()) + "/"):
        assert folder not in heard, heard[max(0, heard.index(folder) - 200) : heard.index(folder) + 200]


def test_the_page_is_protected_by_headers(space: tuple[str, Path]) -> None:
    with Visitor(space[0]) as visitor:
        answer = visitor.http.get("/")
        assert failing_rules(answer, https=True) == KNOWN
        assert "https://huggingface.co" in answer.headers["content-security-policy"]


def test_the_files_of_a_sweep_are_beside_the_visitors_own_pictures(space: tuple[str, Path]) -> None:
    with Visitor(space[0]) as visitor:
        enter(visitor, "d" * 32)
        prepare = visitor.event("sweep-start")
        visitor.call(prepare, visitor.values(prepare, prompt="a sweep of mine", Steps=1))
        run = visitor.after(prepare)
        assert visitor.call(run, visitor.values(run))["success"]
        assert not list((space[1] / "tmp").rglob("*-sweep.*")), "they are not written while the device is held"
        shown = visitor.call(visitor.changed(run), [None])
        assert shown["success"] and ".webp" in json.dumps(shown) and ".gif" in json.dumps(shown)
    files = list((space[1] / "tmp").rglob("*-sweep.*"))
    (folder,) = {file.parent for file in files}
    assert len(files) == 2 and any(read_any(one).request.prompt == "a sweep of mine" for one in folder.glob("*.png"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_old_pictures_are_deleted_while_the_page_runs(presets: Path, tmp_path: Path) -> None:
    """test_visitors.py has the fast form. Here those older than 5 s are deleted, and the page looks once a second."""
    program = (
        "from oms_app.engine import visitors; visitors.KEPT, visitors.INTERVAL = 5.0, 1.0; "
        "from oms_app.cli.page import main; main()"
    )
    started = running_app(of_a_space(tmp_path, presets), tmp_path / "app.txt", ["-c", program])
    with started as address, Visitor(address.replace("0.0.0.0", "127.0.0.1")) as visitor:
        enter(visitor, "c" * 32)
        assert "an old one" in generate(visitor, "an old one")
        assert "an old one" in strip(visitor, "c" * 32)
        (folder,) = {path.parent for path in (tmp_path / "tmp").rglob("*.png") if ".history" not in path.parts}
        until = time.monotonic() + 40
        assert list((tmp_path / "cache").rglob("*.png")), "the page has copies of the pictures"
        while (folder.exists() or list((tmp_path / "cache/oms-studio").rglob("*"))) and time.monotonic() < until:
            time.sleep(0.2)
        assert not folder.exists() and not list((tmp_path / "cache/oms-studio").rglob("*"))
        assert "an old one" not in strip(visitor, "c" * 32)


REHEARSAL = """
import fcntl, socket, struct, sys
from pathlib import Path
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP: 127.0.0.1 works
clone, machine = map(Path, sys.argv[1:])
sys.path.insert(0, str(clone / "tests"))
from conftest import ROOT, running_app
from page_client import Visitor, ask
from test_space import of_a_space
assert ROOT == clone
try:
    socket.create_connection(("192.0.2.1", 80), 5)
    sys.exit("there is a network")
except OSError:
    pass
environment = of_a_space(machine, Path("unused"))
del environment["OMS_PRESETS"], environment["HF_HUB_OFFLINE"]  # as a Space has it
with running_app(environment, machine / "app.txt", seconds=400) as address:
    address = address.replace("0.0.0.0", "127.0.0.1")
    with Visitor(address) as visitor:
        assert visitor.http.get("/").status_code == 200
    status, text = ask(address, "generate", prompt="black mountains", seed=1, num_inference_steps=2)
assert status == 200 and "event: complete" in text, text
print("it answered")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_a_fresh_clone_answers_as_a_space_without_any_network(tmp_path: Path) -> None:
    """In a network namespace of its own, in which there is nothing but 127.0.0.1; with the embedded model."""
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this user may make no network namespace")
    clone, machine = tmp_path / "clone", tmp_path / "machine"
    machine.mkdir()
    cloned = subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), clone], capture_output=True)
    if cloned.returncode:
        pytest.skip("these files are no git repository")
    command = [*alone, sys.executable, "-c", REHEARSAL, str(clone), str(machine)]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=800)
    assert done.stdout.strip() == "it answered", done.stderr[-2000:]
    log = (machine / "app.txt").read_text()
    assert "Traceback" not in log and "onnection" not in log, log[-2000:]
