"""Whose pictures are whose on a shared page."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import gradio as gr
import pytest
from gradio.processing_utils import save_pil_to_cache
from PIL import Image
from test_history import OMS, keep

from oms_app.engine import visitors as visitors_module
from oms_app.engine.visitors import KEPT, Visitors
from oms_app.file_ages import FileAges
from oms_app.output.history import History
from oms_app.ui.gradio_compat import delete_old_in

TIME, DAY = time.time, 24 * 60 * 60
TOKENS = ("0" * 32, "1" * 32)


def test_each_visitor_has_a_folder_that_survives_a_reload(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, private=True)
    visitors.identify("session a", TOKENS[0])
    visitors.identify("session b", TOKENS[1])
    keep(visitors.history("session a").folder)
    assert visitors.history("session a").find().total == 1
    for other in ("session b", "unknown", None):
        assert visitors.history(other).find().total == 0
    visitors.identify("session a after a reload", TOKENS[0])
    assert visitors.history("session a after a reload").find().total == 1
    assert TOKENS[0] not in str(visitors.history("session a").folder), "the folder does not tell the token"


@pytest.mark.parametrize("token", ["", "../" * 12, "x" * 32, "0" * 31, "0" * 99])
def test_a_token_that_no_browser_makes_gives_nobody_elses_pictures(tmp_path: Path, token: str) -> None:
    visitors = Visitors(tmp_path, private=True)
    visitors.identify("someone", TOKENS[0])
    visitors.identify("stranger", token)
    folder = visitors.history("stranger").folder
    assert folder.parent == tmp_path and folder != visitors.history("someone").folder


def test_each_picture_is_deleted_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that could be brought back, sheets and thumbnails; newer ones stay."""

    def save(history: History, prompt: str) -> Path:
        path = history.folder / keep(history.folder, prompt, variants=(OMS,))[0]
        os.utime(path)
        return path

    now = 1e6
    visitors = Visitors(tmp_path, private=True, clock=lambda: now)
    for session, token in zip("ab", TOKENS, strict=True):
        visitors.identify(session, token)
    left, here = (visitors.history(session) for session in "ab")
    old, thrown = save(here, "old"), save(here, "thrown away")
    here.thumbnails([old.name])
    here.delete(thrown.name)
    (thrown,) = (here.folder / ".history/deleted").glob("*.png")
    (sheet := tmp_path / "1-sheet.png").write_bytes(b"x")
    (sweep := tmp_path / "1-sweep.webp").write_bytes(b"x")
    damaged = tmp_path / "damaged/.history"  # listed first or last, it must not keep the others
    damaged.mkdir(parents=True)
    (damaged / "index.sqlite3").mkdir()
    of_damaged = damaged.parent / keep(damaged.parent, "damaged", variants=(OMS,))[0]
    save(left, "of a visitor who left")
    with monkeypatch.context() as patch:  # the computer's clock is set: nothing becomes old
        for jump in (-DAY, DAY):
            patch.setattr(time, "time", lambda jump=jump: TIME() + jump)
            visitors.delete_old()
    assert all(path.exists() for path in (left.folder, old, thrown, sheet, sweep, of_damaged))
    now += KEPT + 60
    save(here, "new")
    monkeypatch.setattr(visitors_module, "INTERVAL", 0.05)
    visitors.delete_in_background()
    until = time.monotonic() + 20
    while (
        any(path.exists() for path in (left.folder, old, thrown, sheet, sweep, of_damaged)) and time.monotonic() < until
    ):
        time.sleep(0.02)
    assert not any(path.exists() for path in (left.folder, old, thrown, sheet, sweep, of_damaged))
    assert [one.prompt for one in here.find().pictures] == ["new"] and left.find().total == 0
    with closing(sqlite3.connect(here.folder / ".history/index.sqlite3")) as index:
        assert index.execute("SELECT count(*) FROM thumbnails").fetchone() == (0,)


def test_on_ones_own_machine_there_is_one_folder(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, private=False)
    visitors.identify("a", TOKENS[0])
    assert visitors.history("a") is visitors.history("b") and visitors.history(None).folder == tmp_path


def test_uploads_and_previews_are_deleted_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of Gradio's folder, whatever the computer's clock says; but not what the page has from its start."""
    now = 1e6
    ages = FileAges(lambda: now)
    shown = gr.Image(type="filepath")
    demo = SimpleNamespace(blocks={1: shown}, temp_file_sets=[shown.temp_files])
    paths = [
        Path(save_pil_to_cache(Image.new("RGB", (8, 8), (i, 0, 0)), str(tmp_path), format="png")) for i in range(4)
    ]
    first, known, start, unknown = paths
    shown.temp_files |= {str(one) for one in (first, known, start)}
    shown.keep_in_cache.add(str(start))
    first.unlink()  # an upload that was refused
    with monkeypatch.context() as patch:
        for days in (-400, 400):
            patch.setattr(time, "time", lambda days=days: TIME() + days * DAY)
            delete_old_in(tmp_path, cast(gr.Blocks, demo), ages, KEPT)
    assert all(one.exists() for one in (known, start, unknown)) and str(first) not in shown.temp_files
    now += KEPT + 60
    new = Path(save_pil_to_cache(Image.new("RGB", (8, 8), (0, 9, 0)), str(tmp_path), format="png"))
    for _ in range(2):  # the second one removes the folders that have become empty
        delete_old_in(tmp_path, cast(gr.Blocks, demo), ages, KEPT)
        now += 60
    assert sorted(tmp_path.rglob("*.png")) == sorted((start, new)) and shown.temp_files == {str(start)}
    assert {one for one in tmp_path.rglob("*") if one.is_dir()} == {start.parent, new.parent}
