"""`evaluate spread`: its prompts, its figures from numbers that are known, its text, and a small run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oms_app import Studio, StudioError
from oms_app.evaluate import spread
from oms_app.evaluate.held_out import select_prompts
from oms_app.evaluate.luminance import luminance
from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.evaluate.pictures import CaptionEntry, EvalSamples
from oms_app.evaluate.results_page import section_of
from oms_app.paths import EMBEDDED_FOLDER


def samples_of(deviation: float) -> EvalSamples:
    """Two prompts × 200 seeds: raw is grey, OMS each prompt's mean, "spread" the mean with a deviation; scenes: 40."""
    rng = np.random.default_rng(0)
    middle = np.repeat([80.0, 160.0], 200)
    scenes = np.concatenate([rng.normal(m, 40, (50, 4))[np.arange(200) % 50] for m in (80, 160)])
    means = {
        "raw": np.full(400, 128.0),
        "oms": middle + rng.normal(0, 2, 400),
        "spread": middle + rng.normal(0, deviation, 400),
    }
    empty = np.empty((0, 0, 0), np.float32)
    return EvalSamples("lumen", 0, ("dark",) * 200 + ("light",) * 200, means, scenes, {}, empty)


def figures_of(deviation: float) -> dict[str, object]:
    samples = samples_of(deviation)
    black = {name: {"average": 4.0, "greatest": 9.0} for name in ("oms", "spread")}
    within = {"seeds": 200, **spread.within_prompts(samples)}
    return {"captions": luminance(samples, resamples=50), "prompts": within, "black": black}


def test_the_variety_of_the_scenes_meets_the_targets_and_a_mean_does_not() -> None:
    good, narrow = figures_of(40.0), figures_of(2.0)
    assert [row[3] for row in spread.rows(good)] == ["yes", "yes", "", "", "yes"]
    assert [row[3] for row in spread.rows(narrow)] == ["**no**", "**no**", "", "", "yes"]
    within = spread.within_prompts(samples_of(40.0))
    assert within["n"] == 2 and set(within["by_prompt"]) == {"dark", "light"}
    assert within["deviation"]["scenes"] == pytest.approx(40, rel=0.15)
    assert within["deviation"]["oms"] == pytest.approx(2, rel=0.2)
    assert within["mean_error"]["raw"] == pytest.approx(40, abs=8) and within["mean_error"]["spread"] < 8


def test_black_that_is_no_longer_black_is_seen() -> None:
    figures = figures_of(40.0)
    figures["black"] = {"oms": {"average": 4.0, "greatest": 9.0}, "spread": {"average": 60.0, "greatest": 200.0}}
    assert spread.rows(figures)[-1][3] == "**no**"


def test_each_prompt_has_scenes_of_that_caption() -> None:
    prompts = spread.read_prompts() if (EMBEDDED_FOLDER / "prompts.json").exists() else ()
    if not prompts:
        pytest.skip("the prompts were not selected yet")
    from oms_app.training.scenes.painter import draw

    assert [one.caption for one in prompts] == [text for text, _ in PROMPTS[: spread.PROMPT_COUNT]]
    for one in prompts:
        assert len(set(one.scene_seeds)) == spread.SCENES_PER_PROMPT
        assert one.caption in draw(one.scene_seeds[0]).captions and one.caption in draw(one.scene_seeds[-1]).captions


def test_prompts_are_selected_from_a_pool() -> None:
    pool = {text: list(range(100)) for text, _ in PROMPTS}
    found = select_prompts(pool)
    assert len(found) == spread.PROMPT_COUNT and found[0]["scene_seeds"] == list(range(64))
    with pytest.raises(ValueError, match="only 5 of 64 scenes are called 'mountains'"):
        select_prompts(pool | {"mountains": [1, 2, 3, 4, 5]})


def test_a_damaged_file_of_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('{"captions": [{"caption": "mountains", "scene_seeds": [1]}]}')
    with pytest.raises(StudioError, match="restore that file"):
        spread.read_prompts(path)


def test_a_small_run_resumes_and_writes_its_section(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "captions": 2,
        "prompts": 2,
        "seeds": 2,
        "entries": tuple(CaptionEntry(caption=c, scene_seeds=(1, 2, 3, 4)) for c in ("black", "sea")),
        "prompt_entries": tuple(spread.PromptEntry(caption=c, scene_seeds=range(6)) for c in ("city", "forest")),
        "draw_scene": lambda seed: np.full((8, 8, 3), 20 * seed, np.uint8),
    }
    monkeypatch.setattr(spread, "BLACK_SEEDS", 2)
    figures = spread.measure(studio, **settings)  # type: ignore[arg-type]
    assert figures["prompts"]["by_prompt"].keys() == {"city", "forest"}
    assert set(figures["captions"]["wasserstein"]) == {"raw", "oms", "spread"}
    results = tmp_path / "results.md"
    results.write_text("# Results\n\n## Dials\n\nx\n")
    spread.write(figures, results)
    page = results.read_text()
    assert page.startswith("# Results\n\n## Dials\n\nx\n\n## Spread\n")
    assert "evaluate spread --captions 2 --prompts 2 --seeds 2" in section_of(page, spread.HEADING)
    generated: list[object] = []
    original = studio.generate

    def counting(request: object, **more: object) -> object:
        generated.append(request)
        return original(request, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(studio, "generate", counting)
    again = spread.measure(studio, **settings)  # type: ignore[arg-type]
    assert again["prompts"] == figures["prompts"] and len(generated) == 1, "only black is made again"
