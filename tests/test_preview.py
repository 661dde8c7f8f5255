"""What is shown before a picture is done: the light that OMS will bring, and the pictures as they are painted."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from oms_app import GenerateRequest, Studio, StudioError, Variant
from oms_app.engine import preview
from oms_app.models.loading import ModelKey, load
from oms_app.models.scheduler_factory import make_scheduler
from oms_app.models.vae import fit_rgb_map, rgb_map_of
from oms_app.prestep.schedule import x0_of_step
from oms_app.prestep.step import guide, predicted_x0
from oms_app.prestep.unet import TimeFreeUNet
from oms_app.schedulers import SCHEDULERS
from oms_app.schema import OMS, RAW, ImageResult, Progress

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "black mountains at night"


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, int)


def shown(studio: Studio, **settings: Any) -> tuple[ImageResult, ...]:
    found = studio.preview(GenerateRequest.model_validate({"prompt": PROMPT, "seed": 3} | settings))
    assert found is not None, "nobody else has the device"
    return found


def test_the_preview_is_the_decoded_x0_that_the_step_injects(studio: Studio, lumen: Path) -> None:
    """x̂0 worked out by hand with the stock pipeline's text encoder and VAE."""
    stock = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    module = TimeFreeUNet.from_pretrained(lumen / "oms/oms_module")
    x_s = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        v = [module(x_s, stock.encode_prompt(text, "cpu", 1, False)[0]) for text in ("dark", "")]
        x0 = predicted_x0(guide(v[1], v[0], 2.0))
        decoded = stock.vae.decode(x0 / stock.vae.config.scaling_factor).sample
    by_hand = stock.image_processor.postprocess(decoded, output_type="pil")[0]
    dark = Variant(name="dark", correction="oms", prompt="dark", guidance_scale=2.0)
    raw_has_none = (RAW, dark, Variant(name="offset", correction="offset_noise"))
    (found,) = shown(studio, variants=raw_has_none)
    assert (found.variant, found.index, found.seed) == ("dark", 0, 3)
    assert np.abs(pixels(found.image) - pixels(by_hand)).max() <= 1
    assert found.stats.mean == pytest.approx(pixels(found.image).mean())


def test_the_preview_follows_every_control(studio: Studio) -> None:
    between = {"name": "oms", "correction": "oms", "prompt": "dark", "prompt_b": "light"}
    seen = [
        shown(studio, variants=[between | own], seed=seed)[0].image.tobytes()
        for own, seed in (({}, 3), ({"mix": 0.5}, 3), ({"mix": 1.0}, 3), ({"guidance_scale": 2.0}, 3), ({}, 4))
    ]
    assert len(set(seen)) == len(seen)
    again = shown(studio, variants=[between])[0].image.tobytes()
    assert again == seen[0]


def test_the_light_of_the_other_remedies_is_seen_too(studio: Studio) -> None:
    names = ("oms-sde", "singdiffusion", "signal_leak")
    found = shown(studio, variants=[{"name": name, "correction": name} for name in names])
    assert [one.variant for one in found] == list(names)
    assert shown(studio, variants=[RAW]) == ()


def test_a_large_preview_is_decoded_in_small(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "MOST_CELLS", 8)
    (found,) = shown(studio, variants=[OMS], width=128, height=64)
    assert found.image.size == (64, 64)


def test_a_preview_never_waits_for_a_running_request(studio: Studio) -> None:
    started, go_on = threading.Event(), threading.Event()

    def hold(progress: Progress) -> None:
        started.set()
        go_on.wait(60)

    work = threading.Thread(target=studio.generate, args=(GenerateRequest(prompt=PROMPT, seed=1),),
                            kwargs={"on_progress": hold})  # fmt: skip
    work.start()
    try:
        assert started.wait(60)
        assert studio.preview(GenerateRequest(prompt=PROMPT, seed=1)) is None
    finally:
        go_on.set()
        work.join(60)
    assert studio.preview(GenerateRequest(prompt=PROMPT, seed=1)) is not None


def test_a_preview_refuses_what_generate_refuses(studio: Studio) -> None:
    with pytest.raises(StudioError, match="alien"):
        shown(studio, variants=[{"name": "oms", "correction": "oms", "module": "alien-oms"}])


def test_generate_finds_the_previews_prediction(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    shown(studio)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the module ran again")

    monkeypatch.setattr(TimeFreeUNet, "forward", never)
    studio.generate(GenerateRequest(prompt=PROMPT, seed=3))


def test_the_map_to_colours_is_exact_where_decoding_is_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    decode = torch.randn((5, 3), generator=generator)
    latents = torch.randn((3, 4, 6, 7), generator=generator)
    rgb = torch.einsum("bchw,cd->bdhw", latents, decode[:4]) + decode[4].view(1, 3, 1, 1)
    fitted = fit_rgb_map(latents, rgb)
    assert fitted.shape == (5, 3)
    assert torch.allclose(fitted, decode, atol=1e-4)
    others = torch.randn((2, 4, 3, 3), generator=generator)
    expected = torch.einsum("bchw,cd->bdhw", others, decode[:4]) + decode[4].view(1, 3, 1, 1)
    assert torch.allclose(preview.apply_rgb_map(others, fitted), expected, atol=1e-4)


@pytest.mark.skipif(not (ROOT / "assets/lumen/vae").is_dir(), reason="the embedded model is not trained yet")
def test_the_map_shows_the_embedded_models_pictures_in_their_colours() -> None:
    base: Any = load(ModelKey("base", ROOT / "assets/lumen", "cpu", torch.float32))
    vae: AutoencoderKL = base.pipeline.vae
    rgb_map = rgb_map_of(base.pipeline)
    for path in sorted((ROOT / "assets/lumen/examples").glob("*.png"))[:2]:
        with Image.open(path) as file:
            picture = torch.from_numpy(np.array(file.convert("RGB"))).movedim(-1, 0)[None] / 127.5 - 1
        with torch.no_grad():
            latents = vae.encode(picture).latent_dist.mode() * vae.config.scaling_factor
        small = torch.nn.functional.interpolate(picture, size=latents.shape[-2:], mode="area")
        error = (preview.apply_rgb_map(latents, rgb_map) - small).abs().mean() * 127.5
        assert error < 16, "of 255: the colours are those of the picture"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_x0_is_found_at_every_step_of_every_scheduler(name: str, kind: str) -> None:
    """A network that knows the picture: from what it sees and the timestep alone it answers ε, v or x0."""
    if kind == "sample" and name in ("pndm", "euler-a"):
        pytest.skip("these schedulers know no prediction of x0")
    config = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, timestep_spacing="trailing", prediction_type=kind,
    ).config  # fmt: skip
    scheduler = make_scheduler(config, name, 5, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randn((2, 4, 4, 4), generator=generator)
    sample = torch.randn((2, 4, 4, 4), generator=generator) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        x_t = scheduler.scale_model_input(sample, timestep)
        root = float(scheduler.alphas_cumprod[int(timestep)]) ** 0.5
        root_noise = (1 - root**2) ** 0.5
        noise = (x_t - root * x0) / root_noise
        output = {"epsilon": noise, "v_prediction": root * noise - root_noise * x0, "sample": x0}[kind]
        assert torch.allclose(x0_of_step(scheduler, output, timestep, sample), x0, atol=2e-3)
        answer = scheduler.step(output, timestep, sample)
        sample = answer.prev_sample
    assert torch.isfinite(sample).all()


@pytest.mark.parametrize("scheduler", ["ddim", "heun", "dpm++2m"])
def test_progress_shows_what_every_picture_is_becoming(studio: Studio, scheduler: str) -> None:
    seen: list[Progress] = []
    request = GenerateRequest(prompt=PROMPT, seed=1, count=2, num_inference_steps=20, scheduler=scheduler)
    result = studio.generate(request, on_progress=seen.append)
    looks = [progress for progress in seen if progress.previews]
    assert 6 <= len(looks) <= 8 and looks[0].step <= 5
    for progress in looks:
        assert {(one.variant, one.index) for one in progress.previews} == {
            ("raw", 0), ("oms", 0), ("raw", 1), ("oms", 1),
        }  # fmt: skip
        assert all(one.image.size == (8, 8) for one in progress.previews)
    studio.forget()
    alone = studio.generate(request)
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(result.images, alone.images, strict=True))
    seen.clear()
    dark = Variant(name="dark", correction="oms", prompt="dark")
    studio.generate(request.model_copy(update={"variants": (RAW, dark)}), on_progress=seen.append)
    assert {one.variant for progress in seen for one in progress.previews} == {"dark"}, "raw is there already"
