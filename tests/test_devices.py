"""Every memory mode on a stand-in device (tests/standin.py): no operation meets tensors of both sides, the pictures are
the CPU's, and nothing stays there that should wait in main memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from standin import DEVICE, StandIn
from transformers import CLIPConfig, CLIPImageProcessor

from oms_app import GenerateRequest, Studio
from oms_app.engine.run import Run
from oms_app.models.memory import MemoryMode
from oms_app.schema import OMS, RAW, Lora, Progress

MODES: tuple[MemoryMode, ...] = ("full", "model_offload", "group_offload")


def make_lora(path: Path) -> Path:
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    width = 32
    tensors = {
        f"{stem}.lora_down.weight": torch.randn(2, width, generator=torch.Generator().manual_seed(0)),
        f"{stem}.lora_up.weight": torch.randn(32, 2, generator=torch.Generator().manual_seed(1)),
    }
    save_file(tensors, path)
    return path


def paint(studio: Studio, request: GenerateRequest) -> tuple[list[np.ndarray], list[Progress]]:
    news: list[Progress] = []
    result = studio.paint(
        studio.complete(request), Run(news.append, None)
    )  # on this thread, where the stand-in is entered
    return [np.asarray(image.image, int) for image in result.images], news


def test_the_stand_in_refuses_what_a_device_refuses(device: StandIn) -> None:
    a, b = torch.ones(3, device=DEVICE), torch.ones(3)
    assert (a.device, b.device, (a * 2)[1:].device, a.cpu().device.type) == (DEVICE, b.device, DEVICE, "cpu")
    assert b.to(DEVICE).device == DEVICE and b.device.type == "cpu" and torch.zeros_like(a).device == DEVICE
    with pytest.raises(RuntimeError, match="same device"):
        a + b
    with pytest.raises(TypeError, match="numpy"):
        a.numpy()
    layer = torch.nn.Linear(3, 3).to(DEVICE)
    assert layer.weight.device == DEVICE and layer(a).device == DEVICE
    with pytest.raises(RuntimeError, match="same device"):
        layer(b)
    before = device.bytes
    del layer
    assert device.bytes == before - 4 * 12


@pytest.mark.parametrize("lora", [False, True], ids=["", "lora"])
@pytest.mark.parametrize("mode", MODES)
def test_raw_and_oms_with_previews_in_every_mode(
    mode: MemoryMode, lora: bool, device: StandIn, presets: Path, studio: Studio, tmp_path: Path
) -> None:
    loras = (Lora(id=str(make_lora(tmp_path / "style.safetensors"))),) if lora else ()
    request = GenerateRequest(prompt="dark sea", seed=3, variants=(RAW, OMS), loras=loras, num_inference_steps=8)
    wanted = [np.asarray(image.image, int) for image in studio.generate(request).images]
    placed = Studio(presets=presets, home=tmp_path, memory=mode)
    assert placed.device == DEVICE
    got, news = paint(placed, request)
    assert sum(bool(one.previews) for one in news) >= 4
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(got, wanted, strict=True))
    assert len(placed._preview(placed.complete(request))) == 1  # on this thread too
    again, _ = paint(placed, request.model_copy(update={"seed": 4}))
    assert len(again) == 2
    statistics = placed.statistics()
    if mode == "full":
        assert statistics.bytes_used == 0 or device.bytes > 0
    else:
        assert device.bytes < 20_000, "between two requests the parts wait in main memory"


@pytest.fixture(scope="module")
def checked(lumen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with a safety checker, which finds nothing."""
    folder = tmp_path_factory.mktemp("checked") / "base"
    shutil.copytree(lumen, folder, ignore=shutil.ignore_patterns("oms", "singdiffusion", "signal_leak"))
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config=size | {"image_size": 32, "patch_size": 16}, projection_dim=16)
    checker = StableDiffusionSafetyChecker(config)
    for weights in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
        weights.data.fill_(2.0)  # a cosine is never as large
    checker.save_pretrained(folder / "safety_checker")
    CLIPImageProcessor(size=32, crop_size=32).save_pretrained(folder / "feature_extractor")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_the_safety_checker_waits_like_the_other_parts(
    mode: MemoryMode, checked: Path, device: StandIn, presets: Path, tmp_path: Path, studio: Studio
) -> None:
    request = GenerateRequest(prompt="sea", model=str(checked), seed=1, variants=(RAW,), num_inference_steps=2)
    request = request.model_copy(update={"width": 64, "height": 64})
    wanted = np.asarray(studio.generate(request).images[0].image, int)
    placed = Studio(presets=presets, home=tmp_path, memory=mode)
    for seed in (1, 1, 2):
        [got], _ = paint(placed, request.model_copy(update={"seed": seed}))
        if seed == 1:
            assert np.abs(got - wanted).max() <= 1
        if mode != "full":
            assert device.bytes < 20_000, "nothing waits on the device, the safety checker neither"


@pytest.mark.parametrize("mode", MODES)
def test_sdxl_in_every_mode(
    mode: MemoryMode, sdxl: Path, device: StandIn, presets: Path, tmp_path: Path, studio: Studio
) -> None:
    """Two text encoders, pooled embeddings, zeros for the empty negative."""
    request = GenerateRequest(
        prompt="sea", model=str(sdxl), seed=1, variants=(RAW, OMS), num_inference_steps=8, scheduler="euler",
        width=64, height=64,
    )  # fmt: skip
    wanted = [np.asarray(image.image, int) for image in studio.generate(request).images]
    got, news = paint(Studio(presets=presets, home=tmp_path, memory=mode), request)
    assert any(one.previews for one in news)
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(got, wanted, strict=True))
    assert mode == "full" or device.bytes < 20_000
