"""Every way to start the sampler, through the whole engine: what the UNet sees first, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from oms_app import GenerateRequest, GenerateResult, Studio, StudioError, Variant
from oms_app.engine.denoise import draw
from oms_app.models.text import load_encoder
from oms_app.prestep.corrections import CORRECTIONS
from oms_app.prestep.leak import from_modes, low_modes
from oms_app.prestep.unet import TimeFreeUNet


def pixels(result: GenerateResult, variant: str) -> np.ndarray:
    return next(np.asarray(image.image, int) for image in result.images if image.variant == variant)


ALL = tuple(Variant(name=name, correction=name) for name in CORRECTIONS)


def test_every_correction_in_one_request(studio: Studio) -> None:
    """Different pictures from one seed; raw and oms as when asked for alone. A dial without settings is OMS."""
    request = GenerateRequest(prompt="mountains at night", seed=5, variants=ALL)
    result = studio.generate(request)
    pictures = [pixels(result, variant.name) for variant in ALL]
    assert len({picture.tobytes() for picture in pictures}) == len(CORRECTIONS) - 1
    assert np.array_equal(pixels(result, "oms"), pixels(result, "dial"))
    pair = studio.generate(GenerateRequest(prompt="mountains at night", seed=5))
    assert np.abs(pixels(pair, "oms") - pixels(result, "oms")).max() <= 1
    named = {variant.name: variant.module for variant in result.request.variants}
    assert named["offset_noise"] is None and str(named["singdiffusion"]).endswith("singdiffusion")


def first_input(studio: Studio, variant: Variant, prompt: str = "sea", **settings: Any) -> torch.Tensor:
    """x̃_T of one variant, (1, 4, 8, 8): what the base's UNet sees first."""
    seen: list[torch.Tensor] = []
    studio.forget()
    with studio._store.use(studio._resolver.base_key(studio.catalog.find("lumen", "base"))) as base:
        hook = base.pipeline.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        try:
            studio.generate(GenerateRequest(prompt=prompt, seed=9, variants=(variant,), **settings))
        finally:
            hook.remove()
    return seen[0][:1]


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_singdiffusion_predicts_x0_and_is_guided_as_the_base_is(
    studio: Studio, lumen: Path, guidance_scale: float
) -> None:
    got = first_input(studio, ALL[4], guidance_scale=guidance_scale)
    with torch.no_grad():
        module = TimeFreeUNet.from_pretrained(lumen / "singdiffusion/singdiffusion_module").float()
        encoder = load_encoder(lumen, torch.device("cpu"), torch.float32)
        x_s = draw(9, (4, 8, 8), torch.device("cpu"), torch.float32).x_s
        asked, none = (module(x_s, encoder.encode([text])) for text in ("sea", ""))
    y = asked if guidance_scale == 1.0 else (none + 5 * (asked - none)) / 5
    alpha_bar = 0.068265**2
    torch.testing.assert_close(got, alpha_bar**0.5 * y + (1 - alpha_bar) ** 0.5 * x_s, atol=1e-4, rtol=1e-4)


def test_a_signal_leak_knows_no_prompt_and_offset_noise_no_schedule(studio: Studio, lumen: Path) -> None:
    x_s = draw(9, (4, 8, 8), torch.device("cpu"), torch.float32).x_s
    leaks = [first_input(studio, ALL[6], prompt) for prompt in ("sea", "solid black background")]
    assert torch.equal(*leaks)
    alpha_bar = 0.068265**2
    u = (leaks[0] - (1 - alpha_bar) ** 0.5 * x_s) / alpha_bar**0.5
    torch.testing.assert_close(from_modes(low_modes(u), 8, 8), u, atol=1e-3, rtol=1e-3)  # low frequencies alone
    strong = Variant(name="strong", correction="offset_noise", offset_strength=1.0, offset_per="picture")
    moved = first_input(studio, strong) - x_s
    assert moved.std() < 1e-5 and moved.abs().mean() > 1e-3


def test_a_setting_that_a_correction_does_not_read_is_refused() -> None:
    for settings, message in (
        ({"correction": "offset_noise", "prompt": "dark"}, "offset_noise does not read prompt"),
        ({"correction": "singdiffusion", "guidance_scale": 2.0}, "singdiffusion does not read guidance_scale"),
        ({"correction": "signal_leak", "mix": 0.5, "prompt_b": "x"}, "signal_leak does not read"),
        ({"correction": "oms", "offset_strength": 0.3}, "oms does not read offset_strength"),
    ):
        with pytest.raises(ValueError, match=message):
            Variant.model_validate({"name": "x", **settings})


def test_statistics_of_another_domain_or_damaged_ones_are_refused(studio: Studio, presets: Path) -> None:
    alien = Variant(name="leak", correction="signal_leak", module="alien-leak")
    with pytest.raises(StudioError, match=r"signal-leak statistics 'alien-leak' is of latent domain 'alien'.*'lumen'"):
        studio.generate(GenerateRequest(prompt="sea", variants=(alien,)))
    forced = alien.model_copy(update={"force": True})
    result = studio.generate(GenerateRequest(prompt="sea", variants=(forced,), seed=1))
    assert any("expect colour casts" in note for note in result.notes)
    path = presets.parents[1] / "assets/alien-leak/statistics.safetensors"
    good = path.read_bytes()
    kinds = {good[:40]: "safetensors", b"": "safetensors", good.replace(b"mean", b"moan"): "signal-leak statistics"}
    for damaged, kind in kinds.items():
        path.write_bytes(damaged)
        studio.forget(models=True)
        with pytest.raises(StudioError, match=rf"statistics.safetensors cannot be read as {kind}"):
            studio.generate(GenerateRequest(prompt="sea", variants=(forced,), seed=1))
    path.write_bytes(good)
    studio.forget(models=True)


def test_a_flow_matching_base_is_refused(studio: Studio, lumen: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flow"
    shutil.copytree(lumen, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0})
    )
    with pytest.raises(StudioError, match="is a flow-matching model"):
        studio.generate(GenerateRequest(prompt="sea", model=str(folder)))


def test_a_zero_snr_base_is_painted_as_by_the_stock_pipeline(studio: Studio, lumen: Path, tmp_path: Path) -> None:
    """Rescaled betas, v-prediction, trailing timesteps, guidance rescale (Lin et al., arXiv 2305.08891)."""
    folder = tmp_path / "zero-snr"
    shutil.copytree(lumen, folder)
    path = folder / "scheduler/scheduler_config.json"
    config = json.loads(path.read_text()) | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    path.write_text(json.dumps(config))
    stock = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    stock.set_progress_bar_config(disable=True)
    assert float(stock.scheduler.alphas_cumprod[-1]) < 1e-6 and config["timestep_spacing"] == "trailing"
    pictures = []
    for rescale in (0.0, 0.7):
        raw = Variant(name="raw")
        request = GenerateRequest(
            prompt="sea", seed=4, model=str(folder), variants=(raw,), guidance_rescale=rescale, num_inference_steps=4
        )
        got = pixels(studio.generate(request), "raw")
        settings = {"num_inference_steps": 4, "guidance_scale": 5.0, "guidance_rescale": rescale}
        wanted = stock("sea", generator=torch.Generator().manual_seed(4), **settings).images[0]
        assert np.abs(got - np.asarray(wanted, int)).max() <= 1
        pictures.append(got)
    assert np.abs(pictures[0] - pictures[1]).max() > 1
    for name in CORRECTIONS.keys() - {"raw", "dial"}:
        with pytest.raises(StudioError, match="nothing to correct"):
            studio.generate(
                GenerateRequest(prompt="sea", model=str(folder), variants=(Variant(name="x", correction=name),))
            )


def test_a_zero_snr_schedule_on_a_model_that_predicts_noise_is_refused(
    studio: Studio, lumen: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "black"
    shutil.copytree(lumen, folder)
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_betas_zero_snr": True}))
    with pytest.raises(StudioError, match=r"predicts noise.*zero terminal SNR"):
        studio.generate(GenerateRequest(prompt="sea", model=str(folder), variants=(Variant(name="raw"),)))


def test_a_rescale_that_does_nothing_is_told(studio: Studio) -> None:
    request = GenerateRequest(prompt="sea", guidance_scale=1.0, guidance_rescale=0.7, seed=1)
    assert any("guidance rescale is ignored at CFG 1" in note for note in studio.generate(request).notes)
