"""Malicious and damaged files: each ends with 2 and one clear line, and the next request works."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from oms_app.cli import entry as cli
from oms_app.models.catalog import MARKER

UNET = "unet/diffusion_pytorch_model.safetensors"


class Bomb:
    """What a pickle may contain: unpickling it would create a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        import os

        return os.mkdir, (str(self.folder),)


@pytest.fixture
def world(presets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny world, whose base model may be damaged; the user's folder is tmp_path/home."""
    root = tmp_path / "world"
    shutil.copytree(presets.parents[1], root)
    monkeypatch.setenv("OMS_PRESETS", str(root / "presets/models"))
    monkeypatch.setenv("OMS_HOME", str(tmp_path / "home"))
    return root


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pickled(base: Path, tmp: Path) -> None:
    (base / UNET).unlink()
    (base / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp / "exploded")))


def truncated(base: Path, tmp: Path) -> None:
    whole = (base / UNET).read_bytes()
    (base / UNET).write_bytes(whole[: len(whole) // 2])


def endless_header(base: Path, tmp: Path) -> None:
    (base / UNET).write_bytes((2**62).to_bytes(8, "little") + b"{}")


def not_finite(base: Path, tmp: Path) -> None:
    tensors = load_file(base / UNET)
    save_file({name: np.full_like(value, np.nan) for name, value in tensors.items()}, base / UNET, {"format": "pt"})


def remote_code(base: Path, tmp: Path) -> None:
    edit(base / "model_index.json", unet=["evil_module", "UNet2DConditionModel"])
    (base / "unet/evil_module.py").write_text(f"import os; os.mkdir({str(tmp / 'exploded')!r})")


def remote_pipeline(base: Path, tmp: Path) -> None:
    edit(base / "model_index.json", _class_name=["pipeline", "EvilPipeline"])
    (base / "pipeline.py").write_text(f"import os; os.mkdir({str(tmp / 'exploded')!r})")


def auto_map(base: Path, tmp: Path) -> None:
    edit(base / "text_encoder/config.json", auto_map={"AutoModel": "evil.Evil"}, architectures=["Evil"], hidden_size=-4)
    (base / "text_encoder/evil.py").write_text(f"import os; os.mkdir({str(tmp / 'exploded')!r})")


def word_as_width(base: Path, tmp: Path) -> None:
    edit(base / "text_encoder/config.json", hidden_size="wide")


def absurd_size(base: Path, tmp: Path) -> None:
    edit(base / "unet/config.json", block_out_channels=[10**9, 10**9])


def list_config(base: Path, tmp: Path) -> None:
    (base / "unet/config.json").write_text("[1, 2]")


def no_index(base: Path, tmp: Path) -> None:
    (base / "model_index.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickled, "is a pickle, which can run any code"),
        (truncated, "cannot be read as safetensors"),
        (endless_header, "cannot be read as safetensors"),
        (not_finite, "not finite numbers"),
        (remote_code, "needs code from 'evil_module', which is never run"),
        (remote_pipeline, "this version runs"),
        (auto_map, "cannot be read as a base model"),
        (word_as_width, "cannot be read as a base model"),
        (absurd_size, "memory ran out"),
        (list_config, "contains no JSON object"),
        (no_index, "cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_base_is_refused(
    world: Path, tmp_path: Path, damage: Callable[[Path, Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "assets/lumen", world / "assets/damaged")
    damage(world / "assets/damaged", tmp_path)
    assert cli.main(["generate", "sea", "--model", str(world / "assets/damaged"), "--variants", "raw"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "exploded").exists()
    assert cli.main(["generate", "sea", "--variants", "raw", "--steps", "1"]) == 0


def test_a_module_of_another_domain_is_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "sea", "--oms-module", "alien-oms"]) == 2
    assert "'alien'" in capsys.readouterr().err


def test_a_truncated_module_is_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (world / "assets/lumen/oms/oms_module").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:5_000])
    assert cli.main(["generate", "sea"]) == 2
    assert "cannot be read as an OMS module" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["a file of it", "the folder itself"])
def test_a_link_out_of_the_models_folder_is_not_followed(
    world: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = json.loads((world / "presets/models/lumen.json").read_text()) | {"id": "fetched"}
    entry |= {"folder": "", "repository": "a/b", "files": ["*"], "size": 1}
    (world / "presets/models/fetched.json").write_text(json.dumps(entry))
    folder = tmp_path / "home/models/fetched"
    folder.parent.mkdir(parents=True)
    outside = tmp_path / "outside"
    shutil.copytree(world / "assets/lumen", outside)
    (outside / MARKER).write_text("{}")
    if what == "a file of it":
        shutil.copytree(outside, folder)
        (folder / UNET).unlink()
        (folder / UNET).symlink_to(outside / UNET)
    else:
        folder.symlink_to(outside)
    assert cli.main(["generate", "sea", "--model", "fetched"]) == 2
    assert "is a link that leads out of the models folder" in capsys.readouterr().err
