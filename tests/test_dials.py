"""`evaluate dials`: its prompts, its figures from synthetic pictures, its text, and small runs through the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from oms_app import GenerateRequest, Studio
from oms_app.errors import StudioError
from oms_app.evaluate import dial_blind, dial_cost, dial_page, dial_rivals, dials
from oms_app.evaluate.dial_jobs import collect, weights_of
from oms_app.evaluate.dial_rivals import Rivals, brightness_word
from oms_app.evaluate.dial_table import measure, rows
from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.evaluate.results_page import section_of, with_section
from oms_app.evaluate.subject_classifier import LABELS
from oms_app.schema import OMS
from oms_app.training.scenes import painter
from oms_app.training.scenes.words import COLOURS

COST = {
    "ratio": {"brightness": 1.0, "tint": 1.04},
    "seconds": {"free": 1.0, "brightness": 1.0, "tint": 1.04},
    "runs": 9,
    "threads": 1,
    "extra_decodes": {"brightness": 1, "tint": 5},
    "extra_pixels": {"brightness": 0.25, "tint": 0.4},
}
ABOUT = {"model": "lumen", "weights": "w", "judged": True, "free": "oms", "cost": COST}


def synthetic(off: float = 0.0, *, sign: int = 1) -> list[dict[str, Any]]:
    """Records of flat pictures with the asked light; `off` points too bright, and lit from the wrong side at -1."""
    records = []
    ramp = np.linspace(-20, 20, 32)
    variants = [variant.name for part in dials.settings().values() for variant in part]
    for i in range(3):
        prompt: dict[str, list[dict[str, Any]]] = {"exact runs": [{"runs": 2}]}
        for name in [*variants, "gain 20", "gain 80", "gain tint"]:
            kind, _, which = name.partition(" ")
            level = float(which) if which.isdigit() else 50.0
            picture = np.full((32, 32, 3), 2.55 * (level + off))
            if kind == "tint" or which == "tint":
                tint = dials.TINTS.get(which, dials.RIVAL_TINT[0])
                picture[:] = np.array(list(bytes.fromhex(tint[1:]))) + off
            if which in ("left", "right"):
                picture -= sign * (1 if which == "left" else -1) * ramp[None, :, None]
            if which in ("top", "bottom"):
                picture -= sign * (1 if which == "top" else -1) * ramp[:, None, None]
            if which in ("centre", "vignette"):
                picture[8:24, 8:24] += sign * 40
            if kind == "painted":
                picture = np.asarray(dials.painted_light().resize((32, 32)), float)
            shown = np.asarray(np.clip(np.round(picture), 1, 254), np.uint8)
            prompt[name] = [dials.figures_of(shown) | {"clip": 20.0 + i, "subject": True}] * 2
        records.append(prompt)
    return records


@pytest.fixture
def figures() -> dict[str, Any]:
    return measure(synthetic(), ABOUT)


def test_the_prompts_are_neutral_and_known_to_both_generations() -> None:
    texts = [text for text, _ in PROMPTS]
    words = {word for text in texts for word in text.split()}
    assert len(set(texts)) == 50
    assert words <= set(painter.VOCABULARY)
    assert {label for _, label in PROMPTS} <= set(LABELS)
    assert not words & {"dark", "light", "bright", "night", "day", "sun", "sunny", "fog", "snow", *COLOURS}


def test_the_first_prompts_are_of_every_kind() -> None:
    kinds = [label.split()[0] for _, label in PROMPTS]
    for first in range(3, 51):
        for kind in ("landscape", "shape", "figure"):
            assert 1 <= kinds[:first].count(kind) == pytest.approx(kinds.count(kind) * first / 50, abs=1.5)


def test_perfect_pictures_meet_every_target(figures: dict[str, Any]) -> None:
    found = rows(figures)
    assert [row for row in found if row[3] not in ("yes", "")] == []
    assert [row[0].split()[0] for row in found if row[3] == ""] == ["spread", "dial"]  # measured elsewhere


def test_wrong_pictures_miss_the_targets() -> None:
    cost = COST | {"ratio": {"brightness": 1.0, "tint": 1.1}}
    missed = [row[0] for row in rows(measure(synthetic(off=25.0, sign=-1), ABOUT | {"cost": cost})) if "no" in row[3]]
    for title in ("one run", "--exact", "tint at", "left-", "cost"):
        assert any(title in one for one in missed)


def test_lost_subjects_and_clipping_are_seen() -> None:
    records = synthetic()
    for prompt in records:
        prompt["luminance 20"] = [one | {"subject": False} for one in prompt["luminance 20"]]
        prompt["luminance 40"] = [one | {"clipped": 0.5} for one in prompt["luminance 40"]]
        prompt["light top"] = [one | {"subject": False} for one in prompt["light top"]]
    missed = [row[0] for row in rows(measure(records, ABOUT)) if "no" in row[3]]
    assert len(missed) == 3 and "clipped" in missed[0] and "20 %" in missed[1] and "direction" in missed[2]


def test_the_section_is_made_from_the_stored_figures_and_kept_by_reports(
    figures: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "results.md").write_text("# Results\n\n## Light\n\nx\n")
    dial_page.update(figures, tmp_path)
    dial_page.update(figures | {"model": "other"}, tmp_path)
    page = (tmp_path / "results.md").read_text()
    text = dial_page.section(json.loads((tmp_path / "dials.json").read_text()))
    assert section_of(page, dial_page.HEADING) == text and section_of(page, "## Light") == "## Light\n\nx\n"
    assert with_section(with_section(page, "## Last\n\ny\n"), text).endswith("## Last\n\ny\n")
    assert "gain in linear light" in text and "offset noise" not in text and "### The dials of other" in text


def test_words_follow_the_brightness() -> None:
    assert [brightness_word(x) for x in (5, 20, 50, 80)] == ["pitch black", "very dark", "", "very bright"]


def test_a_dial_without_light_is_one_more_step(studio: Studio) -> None:
    oms, free = studio.generate(GenerateRequest(prompt="sea", seed=3, variants=(OMS, dials.FREE))).images
    assert np.array_equal(np.asarray(oms.image), np.asarray(free.image))


def assert_alike(one: Any, other: Any) -> None:
    """Equal but for a few pixels, which processes that began with other numbers of threads round differently."""
    if isinstance(one, float):
        assert one == pytest.approx(other, abs=0.01)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        assert_alike(list(one.values()), [other[key] for key in one])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_alike(mine, theirs)
    else:
        assert one == other


@pytest.mark.slow
def test_one_process_and_two_measure_the_same(presets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio(presets=presets, device="cpu", home=tmp_path / "one")
    reported: list[tuple[int, int]] = []
    alone = collect(
        studio, prompts=2, seeds=1, rivals=False, on_pictures=lambda done, total, _: reported.append((done, total))
    )
    assert reported[-1][0] == reported[-1][1] and reported == sorted(reported)
    other = Studio(presets=presets, device="cpu", home=tmp_path / "two")
    shared = collect(other, prompts=2, seeds=1, rivals=False, processes=2)
    assert_alike(shared.records, alone.records)
    monkeypatch.setattr(dials.Painter, "run", lambda *_: pytest.fail("made again"))
    assert collect(studio, prompts=1, seeds=1, rivals=False).records == alone.records[:1]
    monkeypatch.undo()
    monkeypatch.setattr(dial_page, "SHEET_PROMPTS", ("a cat",))
    dial_page.write(measure(alone.records, alone.about), studio, tmp_path)
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert "## Tint" in (tmp_path / "dials.md").read_text()


@pytest.mark.slow
def test_no_process_outlives_a_killed_parent(presets: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "oms_app", "evaluate", "dials", "--processes", "2", "--seeds", "1"]
    environment = os.environ | {"OMS_PRESETS": str(presets), "OMS_HOME": str(tmp_path / "home")}
    parent = subprocess.Popen(
        [*command, "--no-rivals", "--out", str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        made = tmp_path / "home/evaluation/dials"
        _until(lambda: len(list(made.glob("brightness-*"))) >= 1 or parent.poll() is not None, 240)
        children = _children(parent.pid)
        assert len(children) >= 2
    finally:
        parent.kill()
        parent.wait()
    _until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 20)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def _until(is_so: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_a_base_without_module_and_judge_says_what_is_not_measured(studio: Studio, base: Path, tmp_path: Path) -> None:
    weights = base / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    torch.manual_seed(7)
    save_file(
        {name: torch.randn_like(tensor) * tensor.std() + tensor.mean() for name, tensor in tensors.items()}, weights
    )
    measured = collect(studio, model=str(base), prompts=1, seeds=1)
    figures = measure(measured.records, measured.about)
    assert (figures["free"], figures["judged"], figures["model"]) == ("raw", False, "my-model")
    dial_page.write(figures, studio, tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert page.count("not measured") == 3 and "median ≤ 2" in page and str(tmp_path) not in page
    assert not (tmp_path / "dials.md").exists()


def test_the_cost_counts_the_decodes_of_the_feedback(studio: Studio) -> None:
    found = dial_cost.cost(studio, "lumen", runs=1)
    assert all(found["extra_decodes"][name] >= 1 and found["ratio"][name] > 0 for name in dial_cost.DIALS)
    assert all(0 < pixels <= found["extra_decodes"][name] for name, pixels in found["extra_pixels"].items())


def test_other_ways_act_on_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_rivals, "STEPS", 6)
    asked = dials.rival_tasks()
    made = Rivals(offset_scale=0.3).pictures("mountains", [1], asked)
    for way in ("offset", "signal_leak", "recentre", "words"):
        means = {name: made[f"{way} {name}"][0].reshape(-1, 3).mean(0) for name in asked}
        assert means["80"].mean() > means["20"].mean() + (10 if way == "words" else 40)
        assert way == "words" or means["tint"][2] > means["tint"][0] + 25
    assert abs(made["recentre 20"][0].mean() / 2.55 - 20) < 10 and abs(made["recentre 80"][0].mean() / 2.55 - 80) < 10


def test_a_gain_reaches_brightness_and_tint() -> None:
    rng = np.random.default_rng(0)
    (dark,), (bright,), (blue,) = dials.gains([rng.integers(20, 200, (32, 32, 3), np.uint8)]).values()
    assert dark.mean() / 2.55 == pytest.approx(20, abs=0.3) and bright.mean() / 2.55 == pytest.approx(80, abs=0.3)
    assert blue.reshape(-1, 3).mean(0) == pytest.approx([0x30, 0x60, 0xFF], abs=1.5)


def test_blind_pairs_give_nothing_away_and_are_scored(
    studio: Studio, figures: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_blind, "PAIRS", 8)
    pairs, answers = tmp_path / "pairs", tmp_path / "answers.json"
    dial_blind.write_pairs(studio, pairs, rng=np.random.default_rng(2))
    assert sorted(path.name for path in pairs.iterdir()) == [*(f"{i:02}.png" for i in range(1, 9)), "questions.txt"]
    assert not {"dial", "gain", "20", "80"} & set((pairs / "questions.txt").read_text().split())
    for path in pairs.glob("*.png"):
        with Image.open(path) as shown:
            assert (shown.size, shown.mode, shown.info) == ((64 * 2 + 12, 64), "RGB", {})
    key = json.loads((tmp_path / "pairs-key/key.json").read_text())
    assert {pair["left"] for pair in key["pairs"].values()} == {"dial", "gain"}

    chosen = {name: "left" if pair["left"] == "dial" else "right" for name, pair in key["pairs"].items()}
    answers.write_text(json.dumps(chosen | {"02": "left" if chosen["02"] == "right" else "right"}))
    found = dial_blind.score(pairs, answers)
    assert (found["dial"], found["pairs"], found["by_level"]["80"]) == (7, 8, {"dial": 3, "pairs": 4})
    with pytest.raises(StudioError, match="no figures"):
        dial_page.add_ranking(found, tmp_path)
    dial_page.update(figures | {"weights": weights_of(studio, "lumen")}, tmp_path)
    dial_page.add_ranking(found, tmp_path)
    assert "dial preferred in 7 of 8 (20 %: 4 of 4, 80 %: 3 of 4)" in (tmp_path / "results.md").read_text()
    dial_page.update(figures | {"weights": "others"}, tmp_path)
    assert "not ranked yet" in (tmp_path / "results.md").read_text()
    answers.write_text(json.dumps({name: side for name, side in chosen.items() if name != "03"}))
    with pytest.raises(StudioError, match="03"):
        dial_blind.score(pairs, answers)
