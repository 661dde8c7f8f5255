"""Evaluations: their figures for synthetic pictures and features, small runs through the engine, and their records."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from oms_app import Studio, StudioError
from oms_app.evaluate import pictures
from oms_app.evaluate.luminance import luminance
from oms_app.evaluate.pictures import CaptionEntry, EvalJob, EvalSamples, Records, collect_samples
from oms_app.evaluate.plots import plot_mean_frequencies
from oms_app.evaluate.quality import clip_scores, frechet_distance, manifold_metrics, quality
from oms_app.schema import OMS, RAW, GenerateRequest, GenerateResult, Variant

ENTRIES = [CaptionEntry(caption=c, scene_seeds=(1, 2, 3, 4)) for c in ("black", "white", "red", "blue sea")]


def flat_scene(seed: int) -> np.ndarray:
    return np.full((8, 8, 3), 20 * seed, np.uint8)


def samples_of(
    means: dict[str, np.ndarray],
    scenes: np.ndarray,
    features: dict[str, np.ndarray] | None = None,
    scene_features: np.ndarray | None = None,
) -> EvalSamples:
    captions = tuple(f"caption {i}" for i in range(len(scenes)))
    if scene_features is None:
        scene_features = np.empty((0, 0, 0), np.float32)
    return EvalSamples("lumen", 0, captions, means, scenes, features or {}, scene_features)


def test_perfect_pictures_reach_the_floor_and_grey_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    light = rng.uniform(0, 255, 300)
    scenes = light[:, None] + rng.normal(0, 5, (300, 4))
    means = {"raw": np.full(300, 128.0), "oms": light + rng.normal(0, 5, 300), "half": 64 + light / 2}
    figures = luminance(samples_of(means, scenes), resamples=50)
    assert figures["wasserstein"]["oms"] == pytest.approx(figures["floor"], abs=2)
    assert figures["wasserstein"]["raw"] > 50
    assert abs(figures["ratio"]["oms"]) < 0.05
    assert figures["ratio"]["half"] == pytest.approx(0.5, abs=0.1)
    low, high = figures["interval"]["ratio"]["half"]
    assert 0.4 < low < high < 0.6
    assert "raw" not in figures["ratio"]


def test_a_run_through_the_engine(studio: Studio, own_home: Path) -> None:
    reported: list[tuple[int, int]] = []
    samples = collect_samples(
        studio,
        captions=2,
        variants=(RAW, OMS),
        entries=ENTRIES[:2],
        draw_scene=flat_scene,
        on_caption=lambda done, total: reported.append((done, total)),
    )
    figures = luminance(samples, resamples=20)
    assert figures["n"] == 2
    assert set(figures["wasserstein"]) == {"raw", "oms"}
    assert set(figures["ratio"]) == {"oms"}
    assert figures["mean"]["scenes"] == 50
    assert reported == [(1, 2), (2, 2)]
    with pytest.raises(StudioError, match="take at most 2"):
        collect_samples(studio, captions=3, variants=(RAW,), entries=ENTRIES[:2])


def pixels(images: np.ndarray) -> np.ndarray:
    """A feature extractor: each picture at 4 × 4 pixels."""
    b, h, w, _ = images.shape
    return images.reshape(b, 4, h // 4, 4, w // 4, 3).mean((2, 4)).reshape(b, -1).astype(np.float32)


def test_what_was_made_is_not_made_again_and_other_variants_add_to_it(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[list[str]] = []
    real = studio.generate

    def counted(request: GenerateRequest) -> GenerateResult:
        requested.append([variant.name for variant in request.variants])
        return real(request)

    monkeypatch.setattr(studio, "generate", counted)

    def run(captions: int, *variants: Variant) -> EvalSamples:
        return collect_samples(
            studio,
            captions=captions,
            variants=variants,
            seed=4,
            feature_extractor=pixels,
            entries=ENTRIES,
            draw_scene=flat_scene,
        )

    first = run(2, RAW)
    assert requested == [["raw"], ["raw"]]
    again = run(3, RAW, OMS.model_copy(update={"name": "other name"}))
    assert requested[2:] == [["other name"], ["other name"], ["raw", "other name"]]
    assert np.array_equal(again.means["raw"][:2], first.means["raw"])
    assert np.array_equal(again.features["raw"][:2], first.features["raw"])
    assert again.scene_features.shape == (3, 4, 48)
    run(3, RAW, OMS)
    assert len(requested) == 5  # a variant is identified by its settings, not by its name


class AtOnce:
    """Replaces a multiprocessing context: a process does its work when it is started, the first `dying` do none."""

    Queue = queue.Queue

    def __init__(self, dying: int) -> None:
        self.dying, self.started = dying, 0

    def Process(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> SimpleNamespace:
        def start() -> None:
            self.started += 1
            if self.started > self.dying:
                target(*args)

        return SimpleNamespace(start=start, is_alive=lambda: False)


@pytest.mark.parametrize("dying", [0, 1])
def test_processes_share_the_captions_and_the_caller_does_the_rest_if_one_dies(
    studio: Studio, own_home: Path, monkeypatch: pytest.MonkeyPatch, dying: int
) -> None:
    generated: list[int] = []

    def run_caption(job: EvalJob, _: Studio, i: int, records: dict[str, Records]) -> None:
        generated.append(i)
        records["scenes"].add(i, [1.0 * i] * 4, None)
        records["of raw"].add(i, 2.0 * i, None)

    context = AtOnce(dying)
    monkeypatch.setattr(pictures.multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setattr(EvalJob, "run_caption", run_caption)
    monkeypatch.setattr(pictures, "Studio", lambda home, device: studio)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    entries, reported = ENTRIES * 20, []

    def collected() -> EvalSamples:
        return collect_samples(
            studio,
            captions=60,
            variants=(RAW,),
            seed=77 + dying,  # the records of the other case exist already
            entries=entries,
            processes=2,
            on_caption=lambda done, total: reported.append((done, total)),
        )

    samples = collected()
    assert context.started == 2 and sorted(generated) == list(range(60))
    assert generated[:30] == list(range(dying, 60, 2))  # the first share, or the second if the first died
    assert samples.means["raw"].tolist() == [2.0 * i for i in range(60)]
    assert reported == [(i + 1, 60) for i in range(60)]
    reported.clear()
    collected()
    assert context.started == 2 and len(generated) == 60 and reported == [(60, 60)]


@pytest.mark.parametrize("alive", [True, False])
def test_a_process_ends_where_its_parent_was_killed(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    generated: list[int] = []
    job: Any = SimpleNamespace(
        read_records=dict, missing=lambda records: [4, 5, 6], run_caption=lambda studio, i, records: generated.append(i)
    )
    monkeypatch.setattr(pictures, "Studio", lambda home, device: studio)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    parent = SimpleNamespace(is_alive=lambda: alive)
    monkeypatch.setattr(pictures.multiprocessing, "parent_process", lambda: parent)
    pictures._run_share(tmp_path, "cpu", job, 0, 2, queue.Queue())
    assert generated == ([4, 6] if alive else [])


def test_a_line_cut_off_while_it_was_written_is_made_again(tmp_path: Path) -> None:
    records = Records(tmp_path, RAW)
    records.add(0, 1.5, np.array([1.0, 2.0], np.float32))
    records.add(1, 2.5, None)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-9])
    again = Records(tmp_path, RAW)
    assert again.has(0, True) and not again.has(1, False)
    again.add(1, 3.5, np.array([3.0, 4.0], np.float32))
    assert Records(tmp_path, RAW).means(2).tolist() == [1.5, 3.5]
    assert Records(tmp_path, RAW).features(2).tolist() == [[1, 2], [3, 4]]


def test_new_weights_begin_anew(studio: Studio, lumen: Path) -> None:
    before = pictures.state_key(studio, {"lumen"})
    assert pictures.state_key(studio, {"lumen"}) == before
    weights = next((lumen / "unet").glob("*.safetensors"))
    stat = weights.stat()
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert pictures.state_key(studio, {"lumen"}) != before
    assert pictures.state_key(studio, {"lumen"}) != pictures.state_key(studio, set()), "its files count if it is used"
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_fid_is_the_distance_of_two_gaussians() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    b = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 1
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(expected, rel=1e-4)


def test_precision_and_coverage_tell_sameness_from_variety() -> None:
    rng = np.random.default_rng(2)
    real = rng.normal(size=(200, 4)).astype(np.float32)
    alike = rng.normal(size=(200, 4)).astype(np.float32)
    collapsed = (0.05 * rng.normal(size=(200, 4))).astype(np.float32)
    assert manifold_metrics(real, alike)["coverage"] > 0.8 > 0.3 > manifold_metrics(real, collapsed)["coverage"]
    assert manifold_metrics(real, collapsed)["precision"] > 0.95
    assert manifold_metrics(real, real + 100)["precision"] == 0


def test_the_clip_score_is_a_cosine() -> None:
    image = np.array([[3.0, 4.0], [1.0, 0.0], [-1.0, 0.0]], np.float32)
    text = np.array([[6.0, 8.0], [1.0, 1.0], [2.0, 0.0]], np.float32)
    assert clip_scores(image, text) == pytest.approx([100, 100 / np.sqrt(2), 0])


def test_quality_ranks_what_is_nearer_to_the_scenes() -> None:
    rng = np.random.default_rng(3)
    n, d = 120, 5
    text = rng.normal(size=(n, d)).astype(np.float32)  # the captions' features
    scenes = text[:, None] + 0.2 * rng.normal(size=(n, 4, d)).astype(np.float32)
    good = text + 0.2 * rng.normal(size=(n, d)).astype(np.float32)
    dull = 0.2 * text + 0.2 * rng.normal(size=(n, d)).astype(np.float32)
    empty = np.zeros(n)
    figures = quality(
        samples_of({"raw": empty, "oms": empty}, np.zeros((n, 4)), {"raw": dull, "oms": good}, scenes),
        lambda texts: text,
    )
    assert figures["n"] == n
    table = figures["figures"]
    assert set(table) == {"raw", "oms", "scenes"}
    assert table["oms"]["fid"]["value"] < table["raw"]["fid"]["value"] / 3
    assert table["oms"]["coverage"]["value"] == pytest.approx(table["scenes"]["coverage"]["value"], abs=0.1)
    for measure in ("clip_score", "coverage", "recall"):
        difference = figures["minus_raw"]["oms"][measure]
        assert difference["interval"][0] > 0
        assert difference["interval"][0] < difference["value"] < difference["interval"][1]
        assert figures["minus_oms"]["raw"][measure]["value"] == pytest.approx(-difference["value"])
    with pytest.raises(ValueError, match="at least 14"):
        quality(samples_of({}, np.zeros((4, 4)), {}, scenes[:4]), lambda texts: text[:4])


def test_the_plot_is_written(tmp_path: Path) -> None:
    path = plot_mean_frequencies(
        samples_of({"raw": np.full(9, 120.0)}, np.full((9, 4), 30.0)), tmp_path / "new" / "means.png"
    )
    assert path.stat().st_size > 1000
