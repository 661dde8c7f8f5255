"""dev/full_size at tiny size: what generates the models and compares the pictures works, and finds a difference."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dev.full_size import cases, compare, generate, prove, published
from oms_app.models import single_file

PIXELS = 64


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> compare.Place:
    """Every model of dev/full_size, narrow, in its published layout."""
    made = compare.Place(tmp_path_factory.mktemp("full-size"), PIXELS)
    made.prepare()
    for name in generate.MODELS:
        generate.generate(made.models, name, tiny=True)
    return made


def failed(rows: list[compare.Row]) -> list[compare.Row]:
    """Rows that missed their target. Whether narrow random networks paint enough to compare is not their matter."""
    return [row for row in rows if not row.passed and "spread" not in row.measure and "0 or 255" not in row.measure]


@pytest.mark.parametrize(
    "case", ["sd15", "oms", pytest.param("sd21", marks=pytest.mark.slow), pytest.param("sdxl", marks=pytest.mark.slow)]
)
def test_a_proof_passes_on_narrow_networks(place: compare.Place, case: str) -> None:
    rows = cases.CASES[case].prove(place)
    assert rows and failed(rows) == []


def test_the_single_file_paints_as_its_folder(
    place: compare.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "configs/sd15"
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        for path in (place.models / "sd15" / part).glob("*.json"):
            (configs / part).mkdir(parents=True, exist_ok=True)
            (configs / part / path.name).write_text(path.read_text())
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")
    assert failed(cases.single_file(place)) == []


@pytest.mark.slow
def test_switching_and_eviction_are_measured(place: compare.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.measure: row.value for row in cases.switching(place)}
    assert rows["a budget for both bases: loads of the module"] == 1
    assert rows["a budget for both bases: loads of a base"] == 2
    rows = {row.measure: row.value for row in cases.eviction(place)}
    assert rows["load 1: resident after the eviction"] > 0 and rows["peak of the first load and painting"] > 0


def test_a_wrong_picture_is_found() -> None:
    wanted = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    got = wanted.copy()
    got[0, 0, 0] += 2 if got[0, 0, 0] < 250 else -2
    rows = compare.difference("raw", Image.fromarray(got), Image.fromarray(wanted))
    assert rows[0].value == 2 and not rows[0].passed
    assert compare.difference("raw", Image.fromarray(wanted), Image.fromarray(wanted))[0].passed
    flat = Image.new("RGB", (8, 8), "grey")
    assert not all(row.passed for row in compare.difference("raw", flat, flat))


def test_a_missed_target_and_a_failed_process_fail_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missed = compare.Row("x", 2.0, "", 1.0)
    row = asdict(missed) | {"passed": missed.passed}
    result = {"case": "c", "seconds": 1.0, "error": None, "rows": [row]}
    assert not prove.passed(result) and "FAILED" in prove.table({"cases": [result]})
    monkeypatch.setattr(prove.sys, "executable", shutil.which("false"))
    broken = prove.run_case("sd15", tmp_path)
    assert not prove.passed(broken) and "exit code" in prove.table({"cases": [broken]})


def test_the_configs_are_of_the_true_size() -> None:
    """Parameters as published: 860, 866 and 2,567 million, 123, 340 and 695, and 154 of OMS-B."""
    sizes = {}
    for name in ("sd15", "sd21", "sdxl"):
        config = published.unet(name, tiny=False)
        shapes = generate.shapes_of(lambda config=config: generate.UNet2DConditionModel.from_config(config))  # type: ignore[misc]
        sizes[name] = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert sizes == {"sd15": 859_520_964, "sd21": 865_910_724, "sdxl": 2_567_463_684}
    for name, size in (("clip-l", 123_060_480), ("vit-h", 340_387_840), ("bigg", 694_659_840)):
        shapes = generate.clip_shapes(published.text(name, tiny=False))
        positions = shapes.pop("text_model.embeddings.position_ids")
        assert sum(torch.Size(shape).numel() for shape in shapes.values()) == size and positions == (1, 77)
