"""`evaluate dials`: its prompts, its figures from synthetic pictures, its text, and a small run through the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oms_app import Studio
from oms_app.evaluate import dial_page, dials
from oms_app.evaluate.dial_rivals import brightness_word
from oms_app.evaluate.dial_table import measure, rows
from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.evaluate.results_page import section_of, with_section
from oms_app.evaluate.subject_classifier import LABELS
from oms_app.training.first_scenes.captions import COLOURS
from oms_app.training.first_scenes.painter import VOCABULARY
from oms_app.training.scenes import painter


def synthetic(off: float = 0.0, *, sign: int = 1) -> list[dict[str, Any]]:
    """Records of flat pictures with the asked light; `off` points too bright, and lit from the wrong side at -1."""
    records = []
    ramp = np.linspace(-20, 20, 32)
    for i in range(3):
        prompt = {}
        for name in [*dials.settings(), *(f"exact {x}" for x in dials.EXACT_LEVELS), "fixed", "gain 20", "gain 80"]:
            kind, _, which = name.partition(" ")
            level = float(which) if which.isdigit() else 50.0
            picture = np.full((32, 32, 3), 2.55 * (level + off))
            if kind == "tint":
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
            prompt[name] = [dials.figures_of(shown, "a", 20.0 + i, "a")] * 2
        records.append(prompt)
    return records


def test_the_prompts_are_neutral_and_known_to_both_generations() -> None:
    texts = [text for text, _ in PROMPTS]
    words = {word for text in texts for word in text.split()}
    assert len(set(texts)) == 50
    assert words <= set(VOCABULARY) and words <= set(painter.VOCABULARY)
    assert {label for _, label in PROMPTS} <= set(LABELS)
    assert not words & {"dark", "light", "bright", "night", "day", "sun", "sunny", "fog", "snow", *COLOURS}


def test_perfect_pictures_meet_every_target() -> None:
    found = rows(measure(synthetic()))
    assert len(found) == 10
    assert [row for row in found if row[3] != "yes"] == []


def test_wrong_pictures_miss_the_targets() -> None:
    missed = {row[0] for row in rows(measure(synthetic(off=25.0, sign=-1))) if row[3] != "yes"}
    assert any("one run" in title for title in missed) and any("--exact" in title for title in missed)
    assert any("tint at" in title for title in missed) and any("left-" in title for title in missed)


def test_lost_subjects_and_clipping_are_seen() -> None:
    records = synthetic()
    for prompt in records:
        prompt["luminance 20"] = [one | {"subject": False} for one in prompt["luminance 20"]]
        prompt["luminance 40"] = [one | {"clipped": 0.5} for one in prompt["luminance 40"]]
    missed = [row[0] for row in rows(measure(records)) if row[3] != "yes"]
    assert len(missed) == 2 and "clipped" in missed[0] and "20 %" in missed[1]


def test_the_section_is_replaced_and_kept() -> None:
    text = dial_page.section(measure(synthetic()))
    page = with_section("# Results\n\n## Light\n\nx\n", text)
    page = with_section(page, "## Last\n\ny\n")
    assert with_section(page, text) == page == with_section(page.replace("gain", "loss"), text)
    assert section_of(page, dial_page.HEADING) == text and section_of(page, "## Light") == "## Light\n\nx\n"
    assert section_of("# Results\n", dial_page.HEADING) == ""
    assert "gain in linear light" in text and "offset noise" not in text


def test_words_follow_the_brightness() -> None:
    assert [brightness_word(x) for x in (5, 20, 50, 80)] == ["pitch black", "very dark", "", "very bright"]


def test_a_small_run_resumes(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dials, "FIXED_SEEDS", 2)
    monkeypatch.setattr(dial_page, "SHEET_PROMPTS", ("a cat",))
    reported: list[tuple[int, int]] = []
    records = dials.collect(
        studio, prompts=1, seeds=1, rivals=False, on_prompt=lambda done, total, _: reported.append((done, total))
    )
    assert reported == [(1, 1)]
    monkeypatch.setattr(dials.DialRun, "_generate", lambda *_, **__: pytest.fail("made again"))
    assert dials.collect(studio, prompts=1, seeds=1, rivals=False) == records
    monkeypatch.undo()
    dial_page.write(measure(records), studio, tmp_path)
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert "## Tint" in (tmp_path / "dials.md").read_text()


def test_blind_pairs_keep_their_key_apart(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_page, "BLIND_PAIRS", 4)
    dial_page.write_blind(studio, tmp_path / "pairs")
    assert sorted(path.name for path in (tmp_path / "pairs").iterdir()) == [
        *(f"{i:02}.png" for i in range(1, 5)),
        "questions.txt",
    ]
    assert "dial" not in (tmp_path / "pairs" / "questions.txt").read_text()
    assert (tmp_path / "pairs-key" / "key.json").exists()
