"""The judge and the benchmarks that call it: it learns, and the prompts are what their tables say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oms_app.evaluate import fidelity, light_words
from oms_app.evaluate import subject_classifier as judges
from oms_app.training.lumen.stages import HELD_OUT
from oms_app.training.scenes import painter as scenes
from oms_app.training.scenes.captions import COLOURS
from oms_app.training.scenes.figures import FIGURES, SHAPES
from oms_app.training.scenes.landscapes import LANDSCAPES


def test_labels_name_every_kind_of_scene_once() -> None:
    assert len(set(judges.LABELS)) == len(judges.LABELS)
    assert {judges.label(scenes.draw(seed).facts) for seed in range(40)} <= set(judges.LABELS)


def test_the_judge_sees_other_scenes_than_the_base_model() -> None:
    assert judges.FIRST > HELD_OUT + 1_000_000


def test_a_judge_learns_in_a_few_steps_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "UNSEEN", 40)
    trained = judges.train_judge(tmp_path / "work", tmp_path / "judge", steps=60, count=160)
    again, accuracy = judges.load(tmp_path / "judge")
    pictures = np.stack([scenes.draw(seed).image for seed in range(6)])
    assert np.array_equal(judges.judged(trained, pictures), judges.judged(again, pictures))
    assert accuracy["n"] == 40 and accuracy["accuracy"] > 2 / len(judges.LABELS)


def test_the_prompts_of_the_fidelity_benchmark_are_balanced_and_known() -> None:
    grounds, landscapes = fidelity.ground_prompts(), fidelity.scene_prompts()
    assert len(grounds) == len(landscapes) == 100
    words = {w for prompt, *_ in [*grounds, *landscapes] for w in prompt.replace(",", "").split()}
    assert words <= set(scenes.VOCABULARY)
    counts = {ground: sum(g == ground for _, _, g in grounds) for ground in COLOURS}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {label for _, label, _ in grounds} == {f"shape {s}" for s in SHAPES} | {f"figure {s}" for s in FIGURES}
    assert {label for _, label in landscapes} == {f"landscape {s}" for s in LANDSCAPES}
    assert all(f" {ground} background" in prompt for prompt, _, ground in grounds)


def test_the_border_alone_decides_on_the_ground() -> None:
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[16:-16, 16:-16] = 0
    assert fidelity.border_distance(picture, "white") == pytest.approx(0.0, abs=1e-6)
    assert fidelity.border_distance(picture, "black") == pytest.approx(100.0, abs=1e-3)


def test_neutral_prompts_say_nothing_of_light() -> None:
    assert len(light_words.PROMPTS) == 20
    assert not {w for p in light_words.PROMPTS for w in p.split()} & {"dark", "light", "night", "bright", *COLOURS}
