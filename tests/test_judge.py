"""The subject classifier and the benchmarks that use it: it learns, and their prompts are balanced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oms_app.evaluate import fidelity, light_words, subject_classifier
from oms_app.training.lumen.stages import HELD_OUT
from oms_app.training.scenes import painter
from oms_app.training.scenes.figures import FIGURES
from oms_app.training.scenes.landscapes import LANDSCAPES
from oms_app.training.scenes.shapes import SHAPES
from oms_app.training.scenes.words import COLOURS


def test_labels_name_every_kind_of_scene_once() -> None:
    assert len(set(subject_classifier.LABELS)) == len(subject_classifier.LABELS)
    assert {subject_classifier.label_of(painter.draw(seed).facts) for seed in range(40)} <= set(
        subject_classifier.LABELS
    )


def test_the_classifier_is_trained_on_other_scenes_than_the_base_model() -> None:
    assert subject_classifier.FIRST > HELD_OUT + 1_000_000


@pytest.mark.slow
def test_a_classifier_learns_in_a_few_steps_and_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_classifier, "UNSEEN", 40)
    trained = subject_classifier.train_classifier(tmp_path / "work", tmp_path / "classifier", steps=60, count=160)
    again, accuracy = subject_classifier.load(tmp_path / "classifier")
    pictures = np.stack([painter.draw(seed).image for seed in range(6)])
    assert np.array_equal(subject_classifier.classify(trained, pictures), subject_classifier.classify(again, pictures))
    assert accuracy["n"] == 40 and accuracy["accuracy"] > 2 / len(subject_classifier.LABELS)


def test_the_prompts_of_the_fidelity_benchmark_are_balanced_and_known() -> None:
    backgrounds, landscapes = fidelity.background_prompts(), fidelity.scene_prompts()
    assert len(backgrounds) == len(landscapes) == 100
    words = {w for prompt, *_ in [*backgrounds, *landscapes] for w in prompt.replace(",", "").split()}
    assert words <= set(painter.VOCABULARY)
    counts = {colour: sum(c == colour for _, _, c in backgrounds) for colour in COLOURS}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {label for _, label, _ in backgrounds} == {f"shape {s}" for s in SHAPES} | {f"figure {s}" for s in FIGURES}
    assert {label for _, label in landscapes} == {f"landscape {s}" for s in LANDSCAPES}
    assert all(f" {colour} background" in prompt for prompt, _, colour in backgrounds)


def test_only_the_border_decides_on_the_background() -> None:
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[16:-16, 16:-16] = 0
    assert fidelity.border_distance(picture, "white") == pytest.approx(0.0, abs=1e-6)
    assert fidelity.border_distance(picture, "black") == pytest.approx(100.0, abs=1e-3)


def test_neutral_prompts_do_not_mention_light() -> None:
    assert len(light_words.PROMPTS) == 20
    assert not {w for p in light_words.PROMPTS for w in p.split()} & {"dark", "light", "night", "bright", *COLOURS}
