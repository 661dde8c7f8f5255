"""The command line's contract: JSON alone on stdout, exit codes, one clear line for bad input."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from foreign_samples import png as foreign_png
from PIL import Image

from oms_app.cli import console
from oms_app.cli import entry as cli
from oms_app.cli.console import ProgressLine, output_on_stderr, print_result, table
from oms_app.cli.options import parse_lora
from oms_app.output import png
from oms_app.paths import PRESETS
from oms_app.schema import Lora, Progress, Transfer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def tiny_catalogue(presets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(presets))


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The JSON object that a command with --json prints: one line, and nothing else on stdout."""
    assert cli.main([*arguments, "--json"]) == 0
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    parsed = json.loads(out)
    assert isinstance(parsed, dict)
    return parsed


def test_generate_prints_what_the_contract_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    got = answer(capsys, "generate", "black mountains", "--seed", "1", "--count", "2", "--out", str(out))
    assert got["seed"] == 1
    assert got["model"] == "lumen"
    assert [(i["variant"], i["index"], i["seed"]) for i in got["images"]] == [
        ("raw", 0, 1), ("oms", 0, 1), ("raw", 1, 2), ("oms", 1, 2),
    ]  # fmt: skip
    assert set(got["seconds"]) == {"load", "encode", "correct", "denoise", "decode", "total"}
    for image in got["images"]:
        with Image.open(image["path"]) as picture:
            assert picture.format == "PNG"
            assert picture.size == (64, 64)
        assert Path(image["path"]).parent == out
        assert 0 <= image["mean"] <= 255
        assert 0 <= image["lightness"] <= 100
    assert len(list(out.iterdir())) == 4  # no temporary file is left


def test_a_picture_gives_its_settings_and_options_replace_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = ("--out", str(tmp_path))
    first = answer(
        capsys, "generate", "a sea", "--oms-prompt", "dark", "--steps", "2", "--count", "2", "--seed", "4", *out
    )
    raw, oms = first["images"][2:]
    assert oms["seed"] == 5
    again = answer(capsys, "generate", "--from", oms["path"], *out)
    assert again["seed"] == 5 and again["notes"] == first["notes"]
    for before, after in zip((raw, oms), again["images"], strict=True):
        with Image.open(before["path"]) as one, Image.open(after["path"]) as two:  # of a batch of 2 instead of 4
            assert np.abs(np.asarray(one, int) - np.asarray(two, int)).max() <= 1
    changed = answer(capsys, "generate", "snow", "--from", oms["path"], "--luminance", "30", "--seed", "9", *out)
    request = png.read_any(Path(changed["images"][1]["path"])).request
    assert (request.prompt, request.seed, request.num_inference_steps, request.count) == ("snow", 9, 2, 1)
    assert [one.correction for one in request.variants] == ["raw", "dial"]
    assert (request.variants[1].prompt, request.variants[1].luminance) == ("dark", 30)


def test_a_picture_of_another_program_gives_its_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = "Steps: 3, Sampler: Euler, Schedule type: Karras, CFG scale: 2, Seed: 7, Size: 64x72, Model: other"
    path = foreign_png(tmp_path / "a.png", parameters=f"sea\nNegative prompt: fog\n{line}")
    got = answer(capsys, "generate", "--from", str(path), "--out", str(tmp_path), "--guidance-scale", "4")
    request = png.read_any(Path(got["images"][1]["path"])).request
    assert (request.prompt, request.negative_prompt, request.seed, request.height) == ("sea", "fog", 7, 72)
    assert (request.num_inference_steps, request.guidance_scale, request.scheduler) == (3, 4.0, "euler")
    assert got["notes"][0].startswith("from A1111; not restored: model other, noise schedule Karras; its noise differs")
    for wrong, said in (("missing.png", "cannot be read"), ("plain.png", "contains no settings")):
        Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
        assert cli.main(["generate", "--from", str(tmp_path / wrong)]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["generate"]) == 2
    assert "the prompt is missing" in capsys.readouterr().err


def test_every_option_of_generate_reaches_the_request(capsys: pytest.CaptureFixture[str], own_home: Path) -> None:
    got = answer(
        capsys, "generate", "a black sea", "--variants", "raw,oms,oms-sde", "--oms-prompt", "dark", "--oms-prompt-b",
        "light", "--oms-mix", "0.5", "--oms-guidance-scale", "2", "--oms-module", "lumen-oms", "--negative-prompt",
        "snow", "--guidance-scale", "3", "--steps", "2", "--scheduler", "euler", "--width", "72", "--height", "64",
        "--device", "cpu", "--seed", "3",
    )  # fmt: skip
    restored = png.read(Path(got["images"][1]["path"]), {"lumen", "lumen-oms"}).request
    variant = restored.variants[1]
    assert (variant.prompt, variant.prompt_b, variant.mix, variant.guidance_scale) == ("dark", "light", 0.5, 2.0)
    assert (restored.negative_prompt, restored.guidance_scale, restored.num_inference_steps) == ("snow", 3.0, 2)
    assert (restored.scheduler, restored.width, restored.height, restored.seed) == ("euler", 72, 64, 3)
    assert [i["variant"] for i in got["images"]] == ["raw", "oms", "oms-sde"]
    assert Path(got["images"][0]["path"]).is_relative_to(own_home)  # without --out: the user's folder


def test_every_correction_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    got = answer(
        capsys, "generate", "sea", "--variants", "raw,oms,singdiffusion,offset_noise,signal_leak", "--oms-prompt",
        "dark", "--oms-guidance-scale", "2", "--offset-strength", "0.5", "--offset-per", "picture", "--oms-module",
        "lumen-oms", "--steps", "2", "--seed", "3",
    )  # fmt: skip
    assert [i["variant"] for i in got["images"]] == ["raw", "oms", "singdiffusion", "offset_noise", "signal_leak"]
    assert len({i["mean"] for i in got["images"]}) == 5


def test_without_json_a_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "black zebra", "--seed", "1", "--variants", "raw"]) == 0
    out, _ = capsys.readouterr()
    assert "raw" in out and "L*" in out and "zebra" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["models"],
        ["doctor"],
        ["inspect"],
        ["inspect", "--table"],
        ["evaluate", "luminance", "--captions", "2"],
        ["bench", "switch", "--runs", "1"],
    ],
    ids=" ".join,
)
def test_a_person_gets_a_table(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    out, _ = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) > 2 and not re.search(r"[{}\[\]]|None|'", out), "no Python object is printed"
    assert any(re.search(r"\S {2,}\S", line) for line in lines), "columns are apart"


def test_long_cells_stay_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a folder/" + "x" * 300 + "/[bold]picture.png"
    print_result({}, False, table(("seed", "file"), [(12, path), (345, None)]), "note [red]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"  12   {path}" and lines[3].split() == ["345", "-"]
    assert lines[4] == "note [red]", "text is not read as markup"
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_result({"mean": float("nan")}, True)


BAD = [
    (["generate"], "prompt"),
    (["generate", ""], "the prompt is empty"),
    (["generate", "   "], "the prompt is empty"),
    (["generate", "x" * 10_000], "10,000 characters: take at most 2,000"),
    (["generate", "a", "--seed", "-1"], "--seed is -1: take 0 to 4294967295"),
    (["generate", "a", "--seed", "4294967296"], "--seed is 4294967296: take 0 to 4294967295"),
    (["generate", "a", "--seed", "4294967295", "--count", "2"], "take a smaller seed"),
    (["generate", "a", "--steps", "0"], "--steps is 0: take 1 to 200"),
    (["generate", "a", "--steps", "many"], "--steps"),
    (["generate", "a", "--steps", "51", "--scheduler", "lcm"], "take 1 to 50"),
    (["generate", "a", "--guidance-scale", "nan"], "--guidance-scale is nan: take 0 to 30"),
    (["generate", "a", "--oms-guidance-scale", "inf"], "--oms-guidance-scale is inf: take 0 to 30"),
    (["generate", "a", "--oms-guidance-scale", "-1", "--variants", "raw"], "--oms-guidance-scale is -1.0: take"),
    (["generate", "a", "--oms-mix", "0.5"], "--oms-prompt-b"),
    (["generate", "a", "--oms-mix", "5", "--oms-prompt-b", "b"], "--oms-mix is 5.0: take -1 to 2"),
    (["generate", "a", "--offset-strength", "3"], "--offset-strength is 3.0: take 0 to 2"),
    (["generate", "a", "--offset-per", "pixel", "--variants", "raw"], "--offset-per is pixel: choose one of channel"),
    (["train", "signal-leak", "--base", "nope"], "unknown model 'nope'"),
    (["generate", "a", "--guidance-rescale", "2"], "--guidance-rescale is 2.0: take 0 to 1"),
    (["generate", "a", "--count", "0"], "--count is 0: take 1 to 16"),
    (["generate", "a", "--width", "100"], "--width is 100: take 64 to 2048 in steps of 8"),
    (["generate", "a", "--width", "1024"], "width 1024 is out of range for 'lumen': take 32 to 128 pixels"),
    (["generate", "a", "--model", "nope"], "unknown model 'nope': choose one of"),
    (["generate", "a", "--model", "x" * 300], "cannot be read (File name too long)"),
    (["generate", "a", "--model", "absent"], "'absent'"),
    (["generate", "a", "--model", "/tmp/a.ckpt"], "pickle"),
    (["generate", "a", "--variants", "raw,nope"], "--variants is nope: choose one of raw, oms, oms-sde, oms-reference"),
    (["generate", "a", "--variants", ","], "--variants is empty"),
    (["generate", "a", "--variants", "raw,raw"], "share a name"),
    (["generate", "a", "--scheduler", "nope"], "--scheduler is nope: choose one of ddim"),
    (["generate", "a", "--oms-module", "nope"], "unknown model 'nope'"),
    (["generate", "a", "--oms-module", "alien-oms"], "'alien'"),
    (["generate", "a", "--lora", "nope"], "unknown LoRA 'nope'"),
    (["generate", "a", "--lora", "nope:much"], "--lora is 'nope:much'"),
    (["generate", "a", "--device", "toaster"], "'toaster' is not available: choose one of auto, cpu"),
    (["generate", "a", "--out", __file__], "is a file"),
    (["generate", "a", "--out", __file__ + "/deeper"], "cannot be written to"),
    (["generate", "a", "--colour", "red"], "--colour"),
    (["generate", "a", "b"], "b"),
    (["paint"], "paint"),
    (["inspect", "--model", "nope"], "unknown model 'nope'"),
    (["evaluate", "luminance", "--captions", "0"], "--captions"),
    (["evaluate", "luminance", "--variants", "nope"], "--variants is nope"),
    (["train", "lumen", "--stage", "nope"], "--stage is 'nope': choose one of"),
    (["train", "lumen", "--from", "/nowhere/at/all"], "--from /nowhere/at/all"),
    (["train", "oms", "--base", "nope"], "unknown model 'nope'"),
    (["train", "oms", "--spread", "--base", "nope"], "unknown model 'nope'"),
    (["bench", "pair", "--runs", "0"], "--runs"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a)[:60] for a, _ in BAD])
def test_bad_input_is_one_clear_line_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    assert cli.main([*arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert message in err
    assert not (own_home / "pictures").exists()


def test_inspect_and_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    figures = answer(capsys, "inspect", "--model", "lumen")
    expected = {
        "alpha_bar_T",
        "terminal_snr",
        "first_timestep",
        "radius_training",
        "radius_sampling",
        "domain",
        "oms_modules",
    }
    assert expected <= set(figures)
    rows = answer(capsys, "inspect", "--table")["rows"]
    assert {"schedule", "snr", "radius_gap"} <= set(rows[0])


def test_models_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {m["id"]: m for m in answer(capsys, "models")["models"]}
    assert listed["lumen"]["available"] and not listed["absent"]["available"]
    assert {"id", "kind", "domain", "available"} <= set(listed["lumen-oms"])
    report = answer(capsys, "doctor")
    assert report["models"]["lumen"] and report["device"]


def test_a_model_that_was_never_downloaded_is_no_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(PRESETS / "models"))
    report = answer(capsys, "doctor")
    assert report["models"]["lumen"] and not report["models"]["sdxl"]
    assert report["ok"] is True and report["problems"] == []


def test_missing_files_of_an_embedded_or_added_model_are_a_problem(
    capsys: pytest.CaptureFixture[str], own_home: Path, tmp_path: Path
) -> None:
    added = {
        "id": "mine",
        "kind": "lora",
        "title": "Mine",
        "licence": "?",
        "folder": str(tmp_path / "gone.safetensors"),
    }
    (own_home / "models").mkdir(parents=True)
    (own_home / "models/own.json").write_text(json.dumps({"models": [added]}))
    report = answer(capsys, "doctor")
    assert report["ok"] is False
    assert [problem.split(":")[0] for problem in report["problems"]] == [
        "the files of absent are missing",  # an entry with a folder, as embedded models have
        "the files of mine are missing",
    ]


def test_ctrl_c_ends_with_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from oms_app.engine.studio import Studio

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Studio, "generate", interrupted)
    assert cli.main(["generate", "a"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip() == "error: stopped"


def test_what_training_logs_goes_to_stderr_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with output_on_stderr(logging.INFO):
            logging.getLogger("oms_app.training.lumen.stages").info("latents: second moment %.4f", 3.9399)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "latents: second moment 3.9399\n" * 2


@pytest.mark.parametrize(
    ("text", "name", "scale"),
    [
        ("style", "style", 1.0),
        ("style:0.5", "style", 0.5),
        ("my style.v2.safetensors:-1", "my style.v2.safetensors", -1.0),
        (r"C:\loras\style.safetensors", r"C:\loras\style.safetensors", 1.0),
        (r"C:\loras\style.safetensors:0.5", r"C:\loras\style.safetensors", 0.5),
        ("/home/a:b/style.SAFETENSORS", "/home/a:b/style.SAFETENSORS", 1.0),
    ],
)
def test_a_lora_may_be_a_path_with_colons(text: str, name: str, scale: float) -> None:
    assert parse_lora(text) == Lora(id=name, scale=scale)


def test_work_over_a_second_shows_what_it_does_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "FILE_SECONDS", 0.2)
    monkeypatch.setattr(console, "TICK_SECONDS", 0.05)
    with output_on_stderr() as progress:
        time.sleep(0.5)
        assert capsys.readouterr().err == "", "within the first second nothing is said"
        time.sleep(1.0)
        assert capsys.readouterr().err.startswith("loading the libraries (1 s)\n")
        progress(Progress(stage="load"))
        for step in range(1, 6):
            time.sleep(0.1)
            progress(Progress(stage="denoise", step=step, steps=10))
    captured = capsys.readouterr()
    assert re.search(r"^denoising, step [3-5] of 10, about [01] s left$", captured.err, re.MULTILINE)
    time.sleep(0.3)
    assert capsys.readouterr().err == captured.out == ""


def test_a_download_reports_its_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    progress = ProgressLine()
    for done in range(0, 2_000_000_001, 50_000_000):
        progress.show_transfer(Transfer(done=done, total=2_500_000_000))
    lines = capsys.readouterr().err.splitlines()
    assert 5 <= len(lines) <= 20 and re.match(r"downloaded GB 0\.\d\d of 2.50, about \d min left", lines[1])


def test_a_small_sample_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn_of_few(200, "captions", 100)
    assert capsys.readouterr().err == ""
    console.warn_of_few(20, "captions", 100)
    assert capsys.readouterr().err == "warning: 20 captions are few: the figures scatter; take 100 or more\n"
