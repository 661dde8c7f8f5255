"""Training for any base: what is read from disk, what is refused, and the way from pictures to a module that paints."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import IMAGE, WIDTH, WORDS
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from oms_app import GenerateRequest, Studio, Variant
from oms_app.cli import entry as cli
from oms_app.errors import StudioError
from oms_app.models.catalog import MARKER
from oms_app.models.loading import OWN_ENCODER, load_module
from oms_app.models.text import load_encoder
from oms_app.training.data import find, open_square
from oms_app.training.encoded import _array

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def png(value: int | tuple[int, ...] = 0, size: tuple[int, int] = (IMAGE, IMAGE), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, value if mode != "RGB" or isinstance(value, tuple) else (value,) * 3).save(out, "PNG")
    return out.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def linked(presets: Path, folder: Path, but: tuple[str, ...] = ()) -> Path:
    """The tiny Lumen as a folder that the catalogue does not know, without its modules and some other parts."""
    folder.mkdir()
    for part in (presets.parents[1] / "assets/lumen").iterdir():
        if part.name not in ("oms", "singdiffusion", "signal_leak", *but):
            (folder / part.name).symlink_to(part)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Black and white pictures in each layout, and two that cannot be used."""
    folder = tmp_path / "data"
    (folder / "deeper").mkdir(parents=True)
    rows = [{"file_name": f"{i}.png", "text": "black" if i % 2 else "white"} for i in range(4)]
    rows.append({"file_name": "broken.png", "text": "night"})
    for i in range(4):
        (folder / f"{i}.png").write_bytes(png(0 if i % 2 else 255))
    (folder / "broken.png").write_bytes(b"\x80\x04this is no picture")
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "bare.png").write_bytes(png())
    (folder / "deeper/metadata.csv").write_text('file_name,text\nsea.png,"sea, at night"\n')
    (folder / "deeper/sea.png").write_bytes(png(20))
    (folder / "deeper/beside.png").write_bytes(png(200))
    (folder / "deeper/beside.txt").write_text(" ".join(["snow"] * 40))  # more than the 16 tokens of the tiny CLIP
    shard(
        folder / "000.tar",
        {"a/0.png": png(30), "a/0.txt": b"a black sea\n", "a/1.png": png(30), "a/1.json": b'{"caption": "a city"}'},
    )
    return folder


def test_every_layout_is_found_and_nothing_without_a_caption(data: Path) -> None:
    listing = find(data)
    got = {one.name: one.caption for one in listing.pictures}
    assert got == {
        "0.png": "white", "1.png": "black", "2.png": "white", "3.png": "black", "broken.png": "night",
        "deeper/sea.png": "sea, at night", "deeper/beside.png": " ".join(["snow"] * 40),
        "000.tar/a/0.png": "a black sea", "000.tar/a/1.png": "a city",
    }  # fmt: skip
    assert listing.uncaptioned == ("bare.png",)
    inner = next(one for one in listing.pictures if one.name == "000.tar/a/0.png")
    assert (open_square(inner, 8, (0,)) == 30).all()
    assert listing.digest() == find(data).digest()
    (data / "deeper/beside.txt").write_text("snow")
    assert listing.digest() != find(data).digest()


def outside_shard(folder: Path) -> None:
    shard(folder / "0.tar", {"../evil.png": png(), "../evil.txt": b"sea"})


def absolute_shard(folder: Path) -> None:
    shard(folder / "0.tar", {"/etc/evil.png": png()})


def outside_metadata(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "../evil.png", "text": "sea"}\n')


def link_outside(folder: Path) -> None:
    (folder / "a.png").write_bytes(png())
    (folder / "a.txt").symlink_to("/etc/hostname")


def metadata_without_text(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,caption\na.png,sea\n")


def broken_metadata(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": \n')


def no_captions(folder: Path) -> None:
    (folder / "a.png").write_bytes(png())


def no_pictures(folder: Path) -> None:
    (folder / "notes.txt").write_text("sea")


def compressed_shard(folder: Path) -> None:
    (folder / "0.tar").write_bytes(b"\x1f\x8b no tar")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "is empty"),
        (no_captions, "has 1 pictures and no captions: write metadata.jsonl"),
        (no_pictures, "contains no pictures"),
        (outside_shard, "'../evil.png', a path that leads outside"),
        (absolute_shard, "'/etc/evil.png', a path that leads outside"),
        (outside_metadata, "leads outside"),
        (link_outside, "leads outside"),
        (metadata_without_text, "line 2: file_name and text are required"),
        (broken_metadata, "cannot be read as captions"),
        (compressed_shard, "cannot be read as an uncompressed .tar shard"),
    ],
)
def test_data_that_cannot_be_used_says_why_and_ends_with_2(
    make: Callable[[Path], None],
    said: str,
    tmp_path: Path,
    presets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    assert cli.main(["train", "oms", "--model", "lumen", "--data", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "lumen-oms", "--data", "DATA"], "'lumen-oms' is a model of kind oms, not base"),
        (["--model", "FLUX", "--data", "DATA"], "is a FluxPipeline"),
        (["--data", "/nowhere"], "--data /nowhere is not a folder"),
        (["--data", "DATA", "--encoder", "/nowhere/t5"], "--encoder '/nowhere/t5' is not a text encoder"),
        (["--data", "DATA", "--encoder", "DATA"], "contains no .safetensors weights"),
        (["--data", "DATA", "--resolution", "100"], "--resolution is 100: take 64 to 2048 in steps of 8"),
        (["--data", "DATA", "--learning-rate", "nan"], "--learning-rate is nan: take a value above 0, up to 1"),
        (["--data", "DATA", "--size", "XL"], "--size"),
        (["--data", "DATA", "--smoke"], "--smoke"),
        (["--batch", "4"], "--batch needs --data"),
        (["--spread", "--minutes", "1"], "--spread takes only --base, --out, --device and --smoke"),
        (["--spread"], "contains no OMS module: train one there first, or name the folder of one"),
    ],
)
def test_what_cannot_be_trained_says_why_and_ends_with_2(
    arguments: list[str],
    said: str,
    data: Path,
    presets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    flux = linked(presets, data.with_name("flux"), but=("model_index.json",))
    (flux / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    places = {"DATA": str(data), "FLUX": str(flux)}
    (data / "bare.png").unlink()  # else it is named before what is wrong
    assert cli.main(["train", "oms", *(places.get(a, a) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err.splitlines()[-1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04.",
        png()[:60],
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        png(0, (60_000, 6_000), "1"),
        png(9_000, mode="I;16"),
    ],
    ids=["empty", "pickle", "cut off", "postscript", "a bomb", "16 bits"],
)
def test_what_is_no_picture_is_told_so(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    (tmp_path / "a.txt").write_text("sea")
    with pytest.raises(StudioError):
        open_square(find(tmp_path).pictures[0], 8, (0,))


def test_a_square_is_cut_out_whole_and_transparent_is_white(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[..., 0] = np.arange(60) * 4  # red tells where a square was cut, and whether it was flipped
    Image.fromarray(wide).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png((0, 0, 0, 0), (9, 9), "RGBA"))
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,sea\nb.png,snow\n")
    a, b = find(tmp_path).pictures
    cuts = [open_square(a, 20, (seed,))[0, :, 0].astype(int) for seed in range(20)]
    steps = {tuple(np.diff(cut)) for cut in cuts}
    assert steps == {(4,) * 19, (-4,) * 19}  # unscaled, both ways round
    assert len({min(cut) for cut in cuts}) > 5
    assert (open_square(a, 20, (3,)) == open_square(a, 20, (3,))).all()
    assert (open_square(b, 4, (0,)) == 255).all()


def painted(studio: Studio, model: str, module: str) -> dict[str, np.ndarray]:
    variants = (Variant(name="raw"), Variant(name="oms", correction="oms", module=module))
    request = GenerateRequest(
        prompt="black sea", seed=3, model=model, width=IMAGE, height=IMAGE, num_inference_steps=2, variants=variants
    )
    return {image.variant: np.asarray(image.image, int) for image in studio.generate(request).images}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    code = cli.main(["train", "oms", "--device", "cpu", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    answer = json.loads(out)
    assert isinstance(answer, dict)
    return answer, err


def test_from_pictures_to_a_module_that_paints(
    data: Path, studio: Studio, presets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    out = tmp_path / "module"
    command = ["--model", "lumen", "--data", str(data), "--out", str(out), "--batch", "3", "--micro-batch", "2"]
    got, err = run(capsys, *command, "--steps", "2")
    assert "broken.png cannot be read" in err and "bare.png" in err
    assert got == {
        "out": str(out), "pictures": 8, "skipped": 2, "truncated": 1, "steps": 2, "batch": 4, "learning_rate": 5e-5,
        "parameters": got["parameters"],
    }  # fmt: skip
    module = load_module(out, CPU, torch.float32)
    assert module.unet.config["cross_attention_dim"] == WIDTH
    assert module.encoder_name == "lumen"  # named, not copied
    pair = painted(studio, "lumen", str(out))
    assert np.abs(pair["raw"] - pair["oms"]).max() > 1

    # The same command goes on: nothing is encoded again, and no step is made twice.
    work = out.with_name("module-work")
    before = (work / "latents.npy").stat().st_mtime_ns
    again, err = run(capsys, *command, "--steps", "3")
    assert again["steps"] == 3 and "encoded 0 parts" in err
    assert (work / "latents.npy").stat().st_mtime_ns == before
    assert json.loads((work / "oms.json").read_text())["pictures"] == 12
    assert cli.main(["train", "oms", "--device", "cpu", *command, "--size", "B"]) == 2
    assert "was begun with size 'S', not 'B': give another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_encoding_goes_on_and_the_light_is_learned(
    presets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A base by path: the module brings its encoder, and answers with minus the latents that a word goes with."""
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    monkeypatch.setattr("oms_app.training.encoded.PART", 2)
    data = tmp_path / "data"
    data.mkdir()
    for i in range(6):
        (data / f"{i}.png").write_bytes(png(255 * (i % 2)))
        (data / f"{i}.txt").write_text("white" if i % 2 else "black")
    base, out = linked(presets, tmp_path / "base"), tmp_path / "module"
    command = ["--model", str(base), "--data", str(data), "--out", str(out), "--batch", "6", "--learning-rate", "5e-3"]
    run(capsys, *command, "--steps", "1")
    work = out.with_name("module-work")
    marks = sorted(work.glob("part-*.json"))
    assert len(marks) == 3
    marks[1].unlink()
    latents = np.load(work / "latents.npy", mmap_mode="r+")
    assert not np.allclose(latents[0], latents[1]) and np.abs(latents[2] - latents[0]).max() < 1e-2  # up to the flip
    latents[:] = 7.0
    _, err = run(capsys, *command, "--steps", "1")
    assert "encoded 1 parts" in err and (latents[2:4] != 7.0).all() and (latents[4:] == 7.0).all()

    # The random autoencoder barely tells black from white, so it is told here what they are.
    latents[0::2], latents[1::2] = -1.0, 1.0
    latents.flush()
    (work / "oms.pt").unlink()
    run(capsys, *command, "--steps", "50")
    module = load_module(out, CPU, torch.float32)
    assert module.encoder_name == OWN_ENCODER
    told = load_encoder(out, CPU, torch.float32).encode(["black", "white"])
    noise = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        black, white = (-module.unet(noise, one[None].expand(8, -1, -1)).mean().item() for one in told)
    assert white - black > 0.5, (black, white)


@pytest.mark.slow
def test_two_processes_share_the_work(data: Path, presets: Path, tmp_path: Path) -> None:
    for i in range(70):  # more than one part
        (data / f"more{i:02}.png").write_bytes(png(i, (8, 8)))
        (data / f"more{i:02}.txt").write_text("black")
    out = tmp_path / "module"
    done = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
            "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
            "-m", "oms_app", "train", "oms", "--model", "lumen", "--data", str(data),
            "--out", str(out), "--steps", "2", "--batch", "4", "--micro-batch", "1", "--device", "cpu", "--json",
        ],
        cwd=ROOT,
        env={**os.environ, "OMS_PRESETS": str(presets), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if line.startswith("{")]  # gloo writes lines of its own there
    assert len(answers) == 1  # the main process alone answers
    answer = json.loads(answers[0])
    assert (answer["pictures"], answer["skipped"], answer["batch"], answer["steps"]) == (78, 2, 4, 2)
    for process in (1, 2):
        assert f"process {process} of 2 encoded 1 parts" in done.stderr
    curve = json.loads((out.with_name("module-work") / "oms.json").read_text())
    assert curve["pictures"] == 8  # of both
    assert load_module(out, CPU, torch.float32).encoder_name == "lumen"


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 encoder in a folder by itself, as Google publishes them."""
    folder = tmp_path_factory.mktemp("t5")
    words: list[Any] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0)]
    tokenizer = T5Tokenizer(vocab=[*words, *((f"▁{word}", -2.0) for word in WORDS)], extra_ids=0)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(2)
    config = T5Config(vocab_size=len(tokenizer), d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def test_a_disk_that_is_too_small_is_told_before(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"needs 2000000\.0 GB and the disk has"):
        _array(tmp_path / "latents.npy", (10**6, 10**9))


def test_t5_reads_as_transformers_has_it_whatever_stands_beside(t5: Path) -> None:
    encoder = load_encoder(t5, CPU, torch.float32)
    one, two = encoder.encode(["a black sea", "a black sea at night in the snow"])
    assert one.shape == (77, 24) and not torch.equal(one, two)
    model, tokenizer = T5EncoderModel.from_pretrained(t5).eval(), T5Tokenizer.from_pretrained(t5)
    with torch.no_grad():  # without any padding: the mask keeps it out of the words
        wanted = model(**tokenizer("a black sea", return_tensors="pt")).last_hidden_state[0]
    assert torch.allclose(one[: len(wanted)], wanted, atol=1e-5)
    assert encoder.beyond("sea") == ""
    assert encoder.beyond(" ".join(["sea"] * 80)) == "sea sea sea sea"


def test_a_module_that_reads_t5_brings_it_along(
    data: Path, t5: Path, studio: Studio, presets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    out = tmp_path / "module"
    got, _ = run(
        capsys, "--model", "lumen", "--data", str(data), "--out", str(out), "--encoder", str(t5), "--steps", "1",
        "--batch", "2",
    )  # fmt: skip
    assert got["learning_rate"] == 3.5e-5 and got["truncated"] == 0
    here, there = (load_encoder(folder, CPU, torch.float32).encode(["black sea"]) for folder in (out, t5))
    assert torch.allclose(here, there, atol=5e-3)  # float16 on disk
    assert np.ptp(painted(studio, "lumen", str(out))["oms"]) > 0


def test_an_encoder_of_the_catalogue_is_named_and_found_again(
    data: Path, t5: Path, presets: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    root = tmp_path / "world"
    shutil.copytree(presets, root / "presets/models")
    (root / "assets").symlink_to(presets.parents[1] / "assets")
    told = {"id": "tiny-t5", "kind": "text", "title": "T5", "repository": "a/b", "files": ["*"], "size": 9}
    (root / "presets/models/tiny-t5.json").write_text(json.dumps(told))
    shutil.copytree(t5, own_home / "models/tiny-t5")
    (own_home / "models/tiny-t5" / MARKER).write_text("{}")
    monkeypatch.setenv("OMS_PRESETS", str(root / "presets/models"))
    out = tmp_path / "module"
    run(
        capsys, "--model", "lumen", "--data", str(data), "--out", str(out), "--encoder", "tiny-t5", "--steps", "1",
        "--batch", "2",
    )  # fmt: skip
    assert load_module(out, CPU, torch.float32).encoder_name == "tiny-t5"
    studio = Studio(presets=root / "presets/models", device="cpu", home=own_home)
    assert np.ptp(painted(studio, "lumen", str(out))["oms"]) > 0


def test_a_module_is_not_trained_from_scenes_for_a_base_that_is_not_lumens(
    presets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    base = linked(presets, tmp_path / "other", but=("vocabulary.json",))
    assert cli.main(["train", "oms", "--model", str(base)]) == 2
    assert "give --data FOLDER" in capsys.readouterr().err
