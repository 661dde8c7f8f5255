"""Precision, where a model lies, and what happens when memory runs out: simulated at each stage, in tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.autoencoders.vae import Decoder
from tiny import make_vae
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import CLIPTextModel

from oms_app import GenerateRequest, GenerateResult, Studio, StudioError, Variant
from oms_app.bench.memory import Allocations
from oms_app.bench.memory import peak as allocated
from oms_app.engine import denoise as denoising
from oms_app.models import vae as vae_module
from oms_app.models.failures import is_out_of_memory
from oms_app.models.loading import load_base
from oms_app.models.memory import (
    OOM_NOTES,
    MemoryMode,
    ModelSize,
    OomFallback,
    Policy,
    choose_attention,
    size_on_disk,
)
from oms_app.paths import PRESETS
from oms_app.prestep.unet import TimeFreeUNet

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GB = 10**9
SD15, SDXL = ModelSize(1_066_000_000, 860_000_000), ModelSize(3_470_000_000, 2_570_000_000)
REQUEST = GenerateRequest(prompt="black mountains", seed=3, count=2)


@contextmanager
def short_of_memory(what: type[torch.nn.Module], fails: Callable[[torch.Tensor, int], bool]) -> Iterator[list[int]]:
    """CUDA's own error before a forward pass of `what`, where fails(first input, calls so far). Yields batch sizes."""
    calls: list[int] = []

    def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, what):
            calls.append(len(args[0]) if args else 0)
            if fails(args[0] if args else torch.empty(0), len(calls)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = register_module_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.fixture
def own(presets: Path, tmp_path: Path) -> Studio:
    return Studio(presets=presets, device="cpu", home=tmp_path)


def apart(a: GenerateResult, b: GenerateResult) -> int:
    return max(
        int(np.abs(np.asarray(x.image, int) - np.asarray(y.image, int)).max())
        for x, y in zip(a.images, b.images, strict=True)
    )


@pytest.mark.parametrize("what", [TimeFreeUNet, UNet2DConditionModel, Decoder, CLIPTextModel])
def test_once_short_of_memory_others_are_put_away_and_it_goes_on(
    own: Studio, studio: Studio, what: type[torch.nn.Module]
) -> None:
    with short_of_memory(what, lambda _, calls: calls == 1):
        result = own.generate(REQUEST)
    assert OOM_NOTES[OomFallback.EVICT] in result.notes
    assert apart(result, studio.generate(REQUEST)) <= 1
    assert own.generate(REQUEST).notes == studio.generate(REQUEST).notes  # the next one is none the worse for it


@pytest.mark.parametrize(("what", "most"), [(TimeFreeUNet, 1), (UNet2DConditionModel, 2), (Decoder, 1)])
def test_where_only_one_picture_fits_they_are_painted_singly(
    own: Studio, studio: Studio, what: type[torch.nn.Module], most: int
) -> None:
    wanted = studio.generate(REQUEST)
    with short_of_memory(what, lambda x, _: len(x) > most) as calls:
        result = own.generate(REQUEST)
        assert OOM_NOTES[OomFallback.ONE_BY_ONE] in result.notes
        assert apart(result, wanted) <= 1
        before = len(calls)
        again = own.generate(REQUEST.model_copy(update={"seed": 40}))
        assert all(n <= most for n in calls[before:])  # it is begun so at once now
        assert OOM_NOTES[OomFallback.ONE_BY_ONE] in again.notes


def test_where_nothing_helps_it_is_said_and_the_next_request_lives(own: Studio, studio: Studio) -> None:
    with (
        short_of_memory(UNet2DConditionModel, lambda *_: True) as calls,
        pytest.raises(StudioError, match=r"memory ran out.*CUDA out of memory.*smaller picture"),
    ):
        own.generate(REQUEST)
    assert len(calls) >= 3  # as it is, with the others put away, singly
    assert apart(own.generate(REQUEST), studio.generate(REQUEST)) <= 1


def test_pictures_that_were_finished_are_not_painted_twice(own: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoising, "PIXELS_PER_CALL", 64 * 64)  # one picture a call
    request = REQUEST.model_copy(update={"variants": (Variant(name="raw"),)})
    steps = request.num_inference_steps or 4
    with (
        short_of_memory(Decoder, lambda _, calls: calls == 2) as calls,
        short_of_memory(UNet2DConditionModel, lambda *_: False) as passes,
    ):
        own.generate(request)
    assert calls == [1, 1, 1]  # the first; the second, which fails; the second again
    assert len(passes) == 2 * steps, "the second's latents were kept, and not painted again"


def test_latents_are_decoded_in_tiles_before_anything_is_painted_again(own: Studio, studio: Studio) -> None:
    """Two pictures at a time do not fit the decoder."""
    request = REQUEST.model_copy(update={"width": 128, "height": 128, "count": 1, "num_inference_steps": 2})
    with (
        short_of_memory(Decoder, lambda x, _: len(x) > 1) as calls,
        short_of_memory(UNet2DConditionModel, lambda *_: False) as passes,
    ):
        result = own.generate(request)
    assert OOM_NOTES[OomFallback.ONE_BY_ONE] in result.notes
    assert passes == [1, 4, 4] and max(calls[2:]) == 1, "the OMS module's pass, and two steps of the pair"
    assert apart(result, studio.generate(request)) <= 1


@pytest.mark.parametrize(("native", "side"), [(64, 64), (128, 128)])
def test_tiles_save_memory_at_the_native_size(native: int, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library tiles only what is larger than the pictures that a VAE was trained on."""
    monkeypatch.setattr(vae_module, "LARGE_TILE", 64)
    monkeypatch.setattr(vae_module, "SMALL_TILE", 32)
    vae = make_vae().eval()
    vae.register_to_config(sample_size=native)
    latents = torch.randn(2, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    with Allocations() as whole:
        wanted = vae_module.decode_latents(vae, latents)
    with Allocations() as tiled:
        got = vae_module.decode_latents(vae, latents, tiled=True)
    assert tiled.peak <= 0.5 * whole.peak
    assert got.shape == wanted.shape and (got - wanted).abs().mean() < 0.3  # its groups are normed tile by tile


def test_sdxl_decodes_in_tiles_with_half_the_memory_or_less() -> None:
    """By its shapes at full size, on the meta device."""
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(PRESETS / "configs/sdxl/vae"))
        latents = torch.empty(1, 4, 128, 128)
        whole = allocated(lambda: vae_module.decode_latents(vae, latents))
        tiled = allocated(lambda: vae_module.decode_latents(vae, latents, tiled=True))
    assert whole > 2.5 * 2**30 and tiled <= 0.3 * whole


def test_other_errors_are_not_taken_for_it(own: Studio) -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_ladder_ends_with_offload_on_a_gpu_and_before_it_on_the_cpu() -> None:
    def climb(device: torch.device) -> list[OomFallback]:
        steps, relief = [], OomFallback.NONE.next(device)
        while relief is not None:
            steps.append(relief)
            relief = relief.next(device)
        return steps

    assert climb(CUDA) == [
        OomFallback.EVICT,
        OomFallback.ONE_BY_ONE,
        OomFallback.MODEL_OFFLOAD,
        OomFallback.GROUP_OFFLOAD,
    ]
    assert climb(CPU) == [OomFallback.EVICT, OomFallback.ONE_BY_ONE]


@pytest.mark.parametrize(
    ("size", "budget", "mode"),
    [
        (SD15, int(5.5 * GB), "full"),
        (SDXL, int(9.5 * GB), "full"),  # a card of 12 GB
        (SDXL, int(5.5 * GB), "model_offload"),  # of 8
        (SDXL, int(3.5 * GB), "group_offload"),  # of 6
        (SDXL, None, "full"),
    ],
)
def test_a_model_lies_where_it_fits(size: ModelSize, budget: int | None, mode: MemoryMode) -> None:
    policy = Policy(CUDA, device_budget=budget)
    assert policy.place(size, torch.float16) == mode
    assert Policy(CUDA, mode="full", device_budget=1).place(size, torch.float16) == "full"


def test_half_precision_is_for_large_models_on_a_gpu() -> None:
    assert Policy(CUDA).dtype(SD15.total) is torch.float16
    assert Policy(CUDA).dtype(5_000_000) is torch.float32
    assert Policy(CPU).dtype(SD15.total) is torch.float32
    assert Policy(CUDA, precision="bfloat16").dtype(5_000_000) is torch.bfloat16


def test_what_cannot_be_asked_for(presets: Path, tmp_path: Path) -> None:
    for settings in ({"precision": "float8"}, {"memory": "tiny"}, {"memory": "group_offload"}):
        with pytest.raises(StudioError, match=r"choose one of|choose auto or full"):
            Studio(presets=presets, device="cpu", home=tmp_path, **settings)  # type: ignore[arg-type]


def test_parameters_are_counted_from_headers(lumen: Path, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    counts = {
        name: sum(tensor.numel() for tensor in part.state_dict().values())
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }
    alone = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    alone.save_pretrained(tmp_path / "base")
    size = size_on_disk(tmp_path / "base")
    assert (size.total, size.largest) == (sum(counts.values()), max(counts.values()))
    alone.unet.save_pretrained(tmp_path / "base/unet", variant="fp16")  # both precisions: one of them is loaded
    assert size_on_disk(tmp_path / "base").total == sum(counts.values())
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 64)
    assert size_on_disk(tmp_path / "broken.safetensors") == ModelSize(0, 0)
    assert size_on_disk(tmp_path / "absent") == ModelSize(0, 0)


def test_half_precision_paints_what_the_stock_pipeline_paints_in_it(presets: Path, lumen: Path, tmp_path: Path) -> None:
    half = Studio(presets=presets, device="cpu", home=tmp_path, precision="bfloat16").generate(REQUEST)
    stock = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True, dtype=torch.bfloat16)
    stock.set_progress_bar_config(disable=True)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(3)).bfloat16()  # drawn in float32
    image = stock("black mountains", num_inference_steps=4, guidance_scale=5.0, latents=noise).images[0]
    raw = np.asarray(half.images[0].image, float)
    assert np.abs(raw - np.asarray(image, float)).mean() < 2.0  # one of two in a batch, in eight bits of mantissa
    assert [image.variant for image in half.images] == ["raw", "oms", "raw", "oms"]


def test_layers_that_wait_in_main_memory_paint_the_same(lumen: Path) -> None:
    def paint(mode: MemoryMode) -> np.ndarray:
        base = load_base(lumen, CPU, torch.float32, mode=mode)
        generator = torch.Generator().manual_seed(0)
        image = base.pipeline("black", num_inference_steps=2, generator=generator, output_type="np").images[0]
        return np.asarray(image)

    np.testing.assert_allclose(paint("group_offload"), paint("full"), atol=1e-5)


def test_attention_has_a_reason_and_is_shown_by_doctor(studio: Studio) -> None:
    from oms_app.cli.doctor import examine

    name, reason = choose_attention(CPU, torch.float32)
    assert name == "PyTorch" and "CUDA" in reason
    report = examine(studio)
    assert (report["attention"], report["attention_reason"]) == (name, reason)
    assert report["precision"] == {"small_models": "float32", "large_models": "float32"}
    assert json.dumps(report)


def test_a_picture_needs_little_more_memory_with_oms_beside_it() -> None:
    from oms_app.bench.memory import full_size

    figures = full_size("sd15")
    assert figures["weights"]["unet"] == 2 * 859_520_964  # Stable Diffusion 1.5's, in float16
    assert figures["unet_stage_ratio"] <= 1.15
    modes = figures["modes"]
    assert modes["group_offload"]["pair"] < modes["model_offload"]["pair"] < modes["full"]["pair"] < 4 * 2**30


def test_allocations_are_counted_while_they_live() -> None:
    from oms_app.bench.memory import Allocations

    with Allocations() as counted:
        a = torch.empty(1_000, dtype=torch.uint8)
        b = a.view(10, 100)  # shares its storage
        c = torch.empty(500, dtype=torch.uint8)
        del c
        d = torch.empty(300, dtype=torch.uint8)
    assert (counted.now, counted.peak) == (1_300, 1_500)
    del a, b, d
    assert counted.now == 0
