"""Model files that would stop the program: absurd configs, files that are truncated while they are in use, bombs."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.models.config_bounds import check_config
from oms_app.models.lora_formats import read_lora
from oms_app.models.own_memory import copy_into_memory
from oms_app.models.reading import read_header
from oms_app.schema import RAW, GenerateRequest

ABSURD: list[tuple[str, dict[str, Any]]] = [
    ("unet/config.json", {"in_channels": 10**9}),
    ("unet/config.json", {"layers_per_block": 10**6}),
    ("unet/config.json", {"layers_per_block": [2, 10**6]}),
    ("unet/config.json", {"block_out_channels": [8] * 10**5}),
    ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 10**5}),
    ("unet/config.json", {"transformer_layers_per_block": 10**7}),
    ("unet/config.json", {"transformer_layers_per_block": [[1, 10**7]]}),
    ("unet/config.json", {"attention_head_dim": 0}),
    ("unet/config.json", {"norm_num_groups": 0}),
    ("unet/config.json", {"cross_attention_dim": -1}),
    ("unet/config.json", {"sample_size": 10**400}),
    ("unet/config.json", {"attention_head_dim": "many"}),
    ("text_encoder/config.json", {"num_hidden_layers": 10**7}),
    ("text_encoder/config.json", {"num_attention_heads": 0}),
    ("text_encoder/config.json", {"vocab_size": 10**12}),
    ("text_encoder/config.json", {"max_position_embeddings": 10**10}),
    ("vae/config.json", {"latent_channels": 10**9}),
    ("vae/config.json", {"scaling_factor": 0.0}),
    ("vae/config.json", {"layers_per_block": 10**6}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 2 * 10**9}),
    ("scheduler/scheduler_config.json", {"trained_betas": ["a"]}),
    ("scheduler/scheduler_config.json", {"beta_start": -5, "beta_end": 1e300}),
]


@pytest.mark.parametrize(("file", "values"), ABSURD, ids=lambda value: str(value)[:50])
def test_absurd_configs_are_refused_before_anything_is_built(
    base: Path, studio: Studio, file: str, values: dict[str, Any]
) -> None:
    path = base / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    began = time.monotonic()
    with pytest.raises(StudioError) as refused:
        studio.generate(GenerateRequest(prompt="sea", model=str(base), variants=(RAW,), num_inference_steps=1, seed=1))
    assert time.monotonic() - began < 20
    assert "\n" not in str(refused.value)
    assert "cannot be read as" not in str(refused.value), "that is what a library says after it began to build"


def test_published_configs_are_within_the_bounds() -> None:
    files = sorted((ROOT / "presets/configs").rglob("*config.json"))
    assert len(files) > 8
    for file in files:
        check_config(json.loads(file.read_text()), file.name)


def test_copied_weights_are_equal_shared_as_before_and_no_longer_mapped(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({"a": torch.arange(4096.0), "b": torch.ones(8)}, tmp_path / "w.safetensors")
    model: Any = torch.nn.Module()
    for name, tensor in load_file(tmp_path / "w.safetensors").items():
        model.register_parameter(name, torch.nn.Parameter(tensor))
    model.tied = model.a
    copy_into_memory(model)
    os.truncate(tmp_path / "w.safetensors", 100)
    assert model.a.sum() == 4096 * 4095 / 2 and model.tied.data_ptr() == model.a.data_ptr()


TRUNCATED = """
import os, sys
from pathlib import Path
from oms_app import GenerateRequest, Studio
studio, folder = Studio(device="cpu"), Path(sys.argv[1])
request = GenerateRequest(prompt="sea", model=str(folder), num_inference_steps=1, seed=1)
studio.generate(request)
for file in folder.rglob("*.safetensors"):
    os.truncate(file, 100)
try:
    studio.generate(request.model_copy(update={"seed": 2}))
except ValueError as error:  # the folder is read again, since its files changed
    print(str(error)[:200])
studio.generate(GenerateRequest(prompt="sea", num_inference_steps=1, seed=3))
print("alive")
"""


@pytest.mark.slow
def test_weights_that_are_truncated_while_they_are_loaded_end_in_one_line(
    presets: Path, lumen: Path, tmp_path: Path
) -> None:
    shutil.copytree(lumen, tmp_path / "mine")
    environment = os.environ | {
        "OMS_PRESETS": str(presets),
        "OMS_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATED, str(tmp_path / "mine")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.endswith("alive\n"), (done.returncode, done.stdout, done.stderr[-500:])


def sparse(path: Path, tensors: dict[str, Any], size: int) -> Path:
    header = json.dumps(tensors).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + size)
    return path


def test_loras_and_headers_are_bounded(tmp_path: Path) -> None:
    huge = {"unet.a.lora_A.weight": {"dtype": "F32", "shape": [5 * 2**28], "data_offsets": [0, 5 * 2**30]}}
    with pytest.raises(StudioError, match="a LoRA has at most"):
        read_lora(sparse(tmp_path / "huge.safetensors", huge, 5 * 2**30))
    many = {f"lora_{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(60_000)}
    with pytest.raises(StudioError, match="tensors, more than"):
        read_header(sparse(tmp_path / "many.safetensors", many, 0))


@pytest.mark.parametrize("content", [b"{}", b"[" * 100_000, b"\xff\xfe"], ids=["empty", "deep", "binary"])
def test_one_damaged_module_disables_no_other(
    presets: Path, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    module = shutil.copytree(presets.parents[1] / "assets/alien", tmp_path / "module")
    (module / "domain.json").write_bytes(content)
    entry = {"id": "damaged", "kind": "oms", "title": "damaged", "folder": str(module)}
    (own_home / "models").mkdir(parents=True)
    (own_home / "models/own.json").write_text(json.dumps({"models": [entry]}))
    studio = Studio(device="cpu")
    result = studio.generate(GenerateRequest(prompt="sea", num_inference_steps=1, seed=1))
    assert [image.variant for image in result.images] == ["raw", "oms"]
    assert any("damaged is left out" in warning for warning in studio.catalog.warnings)
