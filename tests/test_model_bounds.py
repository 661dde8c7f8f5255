"""Model files that would stop the program: absurd configs, files that are truncated while they are in use, bombs."""

from __future__ import annotations

import json
import os
import re
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
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, T5Config, T5Tokenizer

from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.models.config_bounds import check_config
from oms_app.models.folders import load_part, load_tokenizer
from oms_app.models.lora_formats import read_lora
from oms_app.models.reading import read_header
from oms_app.models.tensor_files import TensorFile, read_tensors
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


def test_tensors_are_those_that_the_library_reads(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.uint8, torch.bool)
    made = {str(kind): torch.arange(6).to(kind).view(2, 3) for kind in kinds}
    save_file(made | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}, tmp_path / "w.safetensors")
    read, wanted = read_tensors([tmp_path / "w.safetensors"]), load_file(tmp_path / "w.safetensors")
    assert read.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert torch.equal(read[name].float(), tensor.float()), name
    assert read_tensors([tmp_path / "w.safetensors"], torch.float16)["scalar"].dtype == torch.float16


def test_a_file_that_is_truncated_while_it_is_read_is_an_error(tmp_path: Path, lumen: Path) -> None:
    """Mapped into memory, it would end this process."""
    shutil.copytree(lumen, tmp_path / "mine")
    read, file = TensorFile.get_tensor, tmp_path / "mine/unet/diffusion_pytorch_model.safetensors"
    count = 0

    def truncating(self: TensorFile, name: str) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 5:
            os.truncate(file, 2**14)
        return read(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorFile, "get_tensor", truncating)
        with pytest.raises(StudioError, match="changed while it was read"):
            load_part(UNet2DConditionModel, tmp_path / "mine/unet", torch.float32)
    assert count >= 5


def test_the_regular_expressions_of_a_tokenizers_file_are_not_run(tmp_path: Path, lumen: Path) -> None:
    """One that takes for ever would keep the only thread of the device. CLIP's own are used in their place."""
    shutil.copytree(lumen / "tokenizer", tmp_path / "tokenizer")
    file = tmp_path / "tokenizer/tokenizer.json"
    for_ever = {"Regex": "(a+)+$"}
    file.write_text(
        json.dumps(
            json.loads(file.read_text())
            | {"normalizer": {"type": "Replace", "pattern": for_ever, "content": " "}}
            | {"pre_tokenizer": {"type": "Split", "pattern": for_ever, "behavior": "Removed", "invert": False}}
        )
    )
    encoder = CLIPTextConfig.from_pretrained(lumen / "text_encoder")
    slow, plain = (load_tokenizer(folder, encoder) for folder in (file.parent, lumen / "tokenizer"))
    began = time.process_time()
    text = "a" * 200 + "!"
    assert slow(text, truncation=True).input_ids == plain(text, truncation=True).input_ids
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extra_ids": 10**9}, "extra_ids is 1000000000: take 0 to 10,000"),
        ({"extra_ids": "100"}, "extra_ids is 100: take 0 to 10,000"),
        ({"vocab": "cut"}, "incomplete: it has 4 tokens"),
        ({"vocab": "split"}, "incomplete: it splits known words"),
        ({"large": True}, "spiece.model is larger than"),
    ],
)
def test_a_t5_tokenizer_is_checked(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    words = ["sea", "mountain", "night", "black", "white"]
    letters = [(letter, -1.0) for letter in sorted(set("".join(words)))]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    vocab = [*special, *letters, *((f"▁{word}", -2.0) for word in words)]
    encoder = T5Config(vocab_size=len(vocab) + (200 if change.get("vocab") == "cut" else 0))
    if change.get("vocab") == "cut":
        vocab = special
    if change.get("vocab") == "split":  # letters are likelier than words
        vocab = [*special, *((one, -0.001) for one, _ in letters), *((f"▁{word}", -90.0) for word in words)]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    if "vocab" not in change and "large" not in change:
        load_tokenizer(tmp_path, encoder, T5Tokenizer)
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    if "large" in change:
        (tmp_path / "spiece.model").write_bytes(b"")
        os.truncate(tmp_path / "spiece.model", 2**30)
    with pytest.raises(StudioError, match=re.escape(said)):
        load_tokenizer(tmp_path, encoder, T5Tokenizer)


# A model loaded in a process of its own: its bytes, and the most memory that loading took, by its size.
PEAK = """
import sys
from pathlib import Path
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig
from oms_app.models.folders import load_part, load_tokenizer
def of(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
folder = Path(sys.argv[1])
load_part(UNet2DConditionModel, Path(sys.argv[2]), torch.float32)
before = of("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
model = load_part(UNet2DConditionModel, folder, torch.float32)
size = sum(one.numel() * one.element_size() for one in model.parameters())
print(size, (of("VmHWM") - before) / size)
"""


@pytest.mark.parametrize("width", [224, pytest.param(448, marks=pytest.mark.slow)])
def test_loading_takes_little_more_memory_than_the_model(tmp_path: Path, lumen: Path, width: int) -> None:
    config = dict(UNet2DConditionModel.load_config(lumen / "unet"))
    config |= {"block_out_channels": [width] * len(config["block_out_channels"]), "norm_num_groups": 8}
    config |= {"attention_head_dim": width // 8, "layers_per_block": 1}
    UNet2DConditionModel.from_config(config).save_pretrained(tmp_path / "large")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "large"), str(lumen / "unet")],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    size, share = map(float, done.stdout.split())
    print(f"{size / 1e6:.0f} MB: {share:.3f}")
    assert size > 50e6 and share <= 1.2, done.stdout


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
def test_weights_that_are_truncated_between_two_requests_end_in_one_line(
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
    assert len(done.stdout.splitlines()) == 2, "the line of the request between"


def test_a_folder_that_is_moved_while_its_model_is_loaded_is_one_line(studio: Studio, base: Path) -> None:
    request = GenerateRequest(prompt="sea", model=str(base), num_inference_steps=1, seed=1, variants=(RAW,))
    before = studio.generate(request)
    away = base.rename(base.with_name("moved"))
    with pytest.raises(StudioError) as error:
        studio.generate(request.model_copy(update={"seed": 2}))
    assert base.name in str(error.value) and "\n" not in str(error.value)
    assert studio.generate(GenerateRequest(prompt="sea", num_inference_steps=1, seed=1)).images
    moved = studio.generate(request.model_copy(update={"model": str(away)}))
    assert moved.images[0].image.tobytes() == before.images[0].image.tobytes()


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
