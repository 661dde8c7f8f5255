"""The report: a small one from beginning to end, resuming, and the conclusions of its text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oms_app import Studio
from oms_app.evaluate import report
from oms_app.evaluate.pictures import CaptionEntry
from oms_app.evaluate.report import Extent, PartStore
from oms_app.evaluate.results_page import compare, met, verdict
from oms_app.output.sheets import labelled
from oms_app.prestep.corrections import CORRECTIONS

TINY = Extent(captions=14, seeds=1, light_prompts=1, light_seeds=1, fidelity=1, pair_runs=1, first_pages=1, sweeps=2)


@pytest.mark.slow
def test_a_small_report(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.first_page, "start_once", lambda: 1.5)
    monkeypatch.setattr("oms_app.evaluate.quality.HALVES", 4)
    entries = [
        CaptionEntry(caption=f"{word} hills", scene_seeds=(1, 2, 3, 4)) for word in ("dark", "light") for _ in range(7)
    ]
    rng = np.random.default_rng(0)
    out = tmp_path / "docs" / "results.md"

    def run() -> str:
        report.write(
            studio,
            out,
            extent=TINY,
            entries=entries,
            draw_scene=lambda seed: rng.integers(0, 255, (64, 64, 3), np.uint8),
        )
        return out.read_text()

    text = run()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == len(set(headings)) == 7
    for method in CORRECTIONS:
        assert f"| {method} |" in text
    assert "1.50 s, median of 1" in text and "SD1.5, OMS" in text and " nan" not in text
    pictures = sorted((out.parent / "pictures").iterdir())
    assert [path.name for path in pictures] == ["means.png", "sweep_cfg.png", "sweep_prompts.png"]
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.width > 200
    measured: list[str] = []
    monkeypatch.setattr(report.solid, "measure", lambda *_: measured.append("solid"))
    assert run() == text
    assert measured == []  # stored by the first run


def test_the_page_names_the_command_that_wrote_it() -> None:
    assert report.command(report.FULL) == "evaluate report"
    assert report.command(report.QUICK) == "evaluate report --quick"
    assert report.command(replace(report.FULL, captions=300)) == "evaluate report --captions 300"


def test_parts_survive_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(KeyboardInterrupt):
        parts = PartStore(path)
        assert parts.get("a", lambda: {"x": (1, 2)}) == {"x": [1, 2]}

        def stopped() -> Any:
            raise KeyboardInterrupt

        parts.get("b", stopped)
    again = PartStore(path)
    assert again.get("a", stopped) == {"x": [1, 2]}
    assert again.get("b", lambda: 3) == 3
    assert json.loads(path.read_text()) == {"a": {"x": [1, 2]}, "b": 3}


def test_intervals_decide_which_method_is_better() -> None:
    assert compare({"interval": (0.1, 0.3)}, "coverage") == 1
    assert compare({"interval": (0.1, 0.3)}, "fid") == -1
    assert compare({"interval": (-3.0, -0.1)}, "wasserstein") == 1
    assert compare({"interval": (-0.1, 0.3)}, "clip_score") == 0
    assert met(True) == "yes" and "no" in met(False)


def test_the_text_says_in_what_another_method_is_better() -> None:
    def figures(low: float, high: float) -> dict[str, Any]:
        return {"value": (low + high) / 2, "interval": (low, high)}

    even = {m: figures(-1, 1) for m in ("fid", "clip_score", "precision", "recall", "density", "coverage")}
    good = {
        "minus_raw": {"oms": even | {"clip_score": figures(1, 2), "coverage": figures(-2, -1)}},
        "minus_oms": {"raw": even, "signal_leak": even | {"recall": figures(0.1, 0.2), "clip_score": figures(-3, -2)}},
    }
    text = verdict(good, {"signal_leak": figures(-4, -2)})
    assert "CLIP score +1.50 (+1.00 … +2.00), which favours OMS" in text
    assert "coverage -1.500 (-2.000 … -1.000), which **favours raw**" in text
    assert (
        "signal_leak compared with OMS: **better** in light (W), recall; worse in CLIP score; no clear difference in"
        in text
    )


def test_a_grid_has_a_label_for_each_row_and_column() -> None:
    black = Image.new("RGB", (20, 10))
    sheet = labelled([[black, black, black], [black, black, black]], ["one", "two"], ["a", "b", "c"])
    assert (np.asarray(sheet)[-9, -9] == 0).all() and sheet.width > 60
    with pytest.raises(ValueError, match="do not fit"):
        labelled([[black]], ["one"], ["a", "b"])
