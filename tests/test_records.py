"""The user's small files: damaged, foreign, shared by two processes, written while the process is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors.torch import save_file
from test_history import STATS

from oms_app import GenerateRequest, GenerateResult
from oms_app.engine.estimates import RunTimes
from oms_app.errors import StudioError
from oms_app.looks import LookLibrary
from oms_app.models import user_models
from oms_app.models.catalog import OWN, open_catalog
from oms_app.records import locked, read_record, remove_leftovers
from oms_app.schema import RAW, ImageResult, Seconds

REQUEST = GenerateRequest(
    prompt="sea", model="a", seed=1, variants=(RAW,), width=64, height=64, num_inference_steps=1, guidance_scale=1.0
)
SECONDS = Seconds(**dict.fromkeys(Seconds.model_fields, 1.0))
DAMAGED = {
    "empty": b"",
    "binary": bytes(range(256)),
    "half": b'{"version":1,"models":[{"id":"a"',
    "deep": b"[" * 100_000,
    "deep inside": b'{"models":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "null": b"null",
    "no list": b'{"models":"abc"}',
    "digits": b'{"models":' + b"9" * 10_000 + b"}",
}


@pytest.fixture
def own(presets: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    (own_home / "models").mkdir(parents=True)
    return own_home / "models" / OWN


def lora(path: Path) -> str:
    weights = {f"unet.a.lora_{one}.weight": torch.zeros(2, 2) for one in "AB"}
    save_file(weights, path)
    return str(path)


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_list_is_named_kept_and_does_not_stop_the_page(own: Path, tmp_path: Path, content: bytes) -> None:
    own.write_bytes(content)
    catalog = open_catalog()
    assert "cannot be read" in catalog.warnings[0] and "lumen" in catalog.entries
    user_models.add(catalog, lora(tmp_path / "style.safetensors"))
    assert [one["id"] for one in json.loads(own.read_text())["models"]] == ["style"]
    (aside,) = own.parent.glob(f"{OWN}.damaged-*")
    assert aside.read_bytes() == content


@pytest.mark.parametrize("kind", ["fifo", "link to itself", "folder", "too large"])
def test_what_is_no_plain_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "too large":
        path.write_bytes(b" " * 2_000)
    else:
        path.symlink_to(path)
    began = time.monotonic()
    with pytest.raises(StudioError, match="cannot be read"):
        read_record(path, max_bytes=1_000)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("folder", ["/tmp/a\0b", "/" + "a" * 5_000, "/tmp/\ud800", "/dev/null/x"])
def test_an_entry_with_a_path_that_cannot_be_is_not_available(own: Path, folder: str) -> None:
    own.write_text(json.dumps({"models": [{"id": "odd", "kind": "lora", "title": "odd", "folder": folder}]}))
    assert not next(info for info in open_catalog().infos() if info.id == "odd").available


def test_what_a_newer_version_wrote_stays(own: Path, tmp_path: Path) -> None:
    newer = {"id": "mine", "kind": "lora", "title": "mine", "folder": "/data/mine.safetensors", "new_field": 1}
    own.write_text(json.dumps({"version": 2, "sorted": True, "models": [newer, "unknown"]}))
    catalog = open_catalog()
    user_models.add(catalog, lora(tmp_path / "style.safetensors"))
    user_models.forget(catalog, "style")
    assert json.loads(own.read_text()) == {"version": 2, "sorted": True, "models": [newer, "unknown"]}


def test_two_programs_add_a_model_each(own: Path, tmp_path: Path) -> None:
    first, second = open_catalog(), open_catalog()
    user_models.add(first, lora(tmp_path / "one.safetensors"))
    user_models.add(second, lora(tmp_path / "two.safetensors"))
    assert [one["id"] for one in json.loads(own.read_text())["models"]] == ["one", "two"]


def test_two_programs_add_models_of_one_name(own: Path, tmp_path: Path) -> None:
    first, second = open_catalog(), open_catalog()
    for catalog, folder in ((first, tmp_path / "a"), (second, tmp_path / "b")):
        folder.mkdir()
        user_models.add(catalog, lora(folder / "style.safetensors"))
    again = open_catalog()
    assert not again.warnings and {Path(again.entries[one].folder).parent.name for one in again.own} == {"a", "b"}


def test_a_lock_is_held_against_other_processes(tmp_path: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from oms_app.records import locked
with locked(Path({str(tmp_path / "x.json")!r})):
    print("in", flush=True); sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout and other.stdout.readline()
        began = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("oms_app.records.LOCK_SECONDS", 0.2)
            with pytest.raises(TimeoutError), locked(tmp_path / "x.json"):
                pass
        assert time.monotonic() - began < 3
        other.kill()
    with locked(tmp_path / "x.json"):  # a killed process leaves no lock
        pass


def test_run_times_survive_what_is_in_their_file(tmp_path: Path) -> None:
    file = tmp_path / "pace.json"
    for content in (b"[" * 100_000, b'{"rates":{"a":[NaN]}}', b'{"rates":5}', b"", b'{"x":1}', bytes(range(200))):
        file.write_bytes(content)
        times = RunTimes(file)
        assert times.estimate([REQUEST], {"a": REQUEST}) is None, "no rate in it can be used"
        if content not in (b'{"rates":{"a":[NaN]}}', b'{"x":1}'):
            aside = max(tmp_path.glob("pace.json.damaged-*"), key=lambda one: one.stat().st_mtime_ns)
            assert aside.read_bytes() == content and not file.exists()
            assert "cannot be read" in times.warnings[0] and aside.name in times.warnings[0]


def test_a_file_that_stays_damaged_is_warned_of_once(tmp_path: Path) -> None:
    """It can be neither set aside nor replaced: a folder is in its place, and there are too many damaged copies."""
    (tmp_path / "pace.json").mkdir()
    for number in range(1, 1_000):
        (tmp_path / f"pace.json.damaged-{time.strftime('%Y%m%d')}-{number}").touch()
    times = RunTimes(tmp_path / "pace.json")
    image = ImageResult(variant="raw", index=0, seed=1, image=Image.new("RGB", (8, 8)), stats=STATS)
    for _ in range(20):
        times.learn(GenerateResult(request=REQUEST, seed=1, images=(image,), seconds=SECONDS, painted=1))
    assert len(times.warnings) == 1 and "cannot be read" in times.warnings[0]
    assert times.estimate([REQUEST], {"a": REQUEST}) == pytest.approx(3.0), "this session's runs are not lost"


def test_looks_that_are_no_plain_small_files_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.json")
    (tmp_path / "deep.json").write_bytes(b"[" * 60_000)
    (tmp_path / "gone.json").symlink_to("/nothing")
    (tmp_path / "passwd.json").symlink_to("/etc/passwd")
    for name in ("linked", "huge", "good"):
        look = {"id": name, "title": name, "thumbnail": f"{name}.jpg"}
        (tmp_path / f"{name}.json").write_text(json.dumps(look))
    (tmp_path / "linked.jpg").symlink_to("/etc/passwd")
    (tmp_path / "huge.jpg").write_bytes(b"x")
    os.truncate(tmp_path / "huge.jpg", 300_000_000)
    (tmp_path / "good.jpg").write_bytes(b"x")
    found = {look.id: picture for look, picture in LookLibrary(folder=tmp_path).looks()}
    assert (found["linked"], found["huge"]) == (None, None) and found["good"] is not None
    assert not {"f", "deep", "gone", "passwd"} & set(found)


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """Also if the clock was set since, back or forward."""
    old, new, other, future = (tmp_path / name for name in (".a.png-1.tmp", ".b.png-2.tmp", "c.tmp", ".d.png-3.tmp"))
    for path in (old, new, other, future):
        path.write_text("")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    os.utime(future, (time.time() + 24 * 60 * 60,) * 2)
    remove_leftovers(tmp_path, tmp_path / "absent")
    assert [one.exists() for one in (old, new, other, future)] == [False, True, True, False]
