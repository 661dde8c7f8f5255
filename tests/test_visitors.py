"""Whose pictures are whose on a shared page."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from test_history import keep

from oms_app.engine.visitors import DAY, Visitors

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


def test_pictures_of_a_visitor_are_deleted_a_day_after_the_last(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, private=True)
    for name in ("0" * 32, "1" * 32):
        folder = tmp_path / name
        keep(folder)
        if name[0] == "0":
            os.utime(folder, (time.time() - DAY - 60,) * 2)
    visitors.identify("someone", TOKENS[0])
    assert not (tmp_path / ("0" * 32)).exists() and (tmp_path / ("1" * 32)).exists()


def test_on_ones_own_machine_there_is_one_folder(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, private=False)
    visitors.identify("a", TOKENS[0])
    assert visitors.history("a") is visitors.history("b") and visitors.history(None).folder == tmp_path
