"""Studio.generate against the stock pipeline, and its promises about noise, reuse, Stop and notes."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st

from oms_app import GenerateRequest, GenerateResult, Studio, StudioError, Variant
from oms_app.engine import denoise as denoising
from oms_app.errors import Stopped
from oms_app.models import domain
from oms_app.models.loading import ModelKey, load
from oms_app.models.scheduler_factory import make_scheduler
from oms_app.prestep.schedule import first_alpha_bar
from oms_app.prestep.step import for_scheduler, guide, ode_step, predicted_x0, sde_step
from oms_app.prestep.unet import TimeFreeUNet
from oms_app.schedulers import SCHEDULERS
from oms_app.schema import OMS, RAW, Progress

PROMPT = "black mountains at night"
CLASSES: dict[str, Any] = {
    "ddim": diffusers.DDIMScheduler,
    "pndm": diffusers.PNDMScheduler,
    "dpm++2m": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler-a": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
}


def pixels(result: GenerateResult, variant: str, index: int = 0) -> np.ndarray:
    return next(np.asarray(i.image, int) for i in result.images if (i.variant, i.index) == (variant, index))


def apart(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference, in levels of 255."""
    return int(np.abs(a - b).max())


@pytest.fixture(scope="module")
def stock(lumen: Path) -> StableDiffusionPipeline:
    """The stock pipeline on the same folder: a second implementation that shares no code with ours."""
    pipeline = StableDiffusionPipeline.from_pretrained(lumen, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_picture(stock: Any, scheduler: str, seed: int, steps: int = 4, **settings: Any) -> np.ndarray:
    kept = stock.scheduler
    settings_of = {"skip_prk_steps": True} if scheduler == "pndm" else {}  # as Stable Diffusion's own config has it
    stock.scheduler = CLASSES[scheduler].from_config(kept.config, **settings_of)
    try:
        generator = torch.Generator().manual_seed(seed)
        image = stock(PROMPT, num_inference_steps=steps, guidance_scale=5.0, generator=generator, **settings).images[0]
    finally:
        stock.scheduler = kept
    return np.asarray(image, int)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_raw_is_the_stock_pipelines_picture(studio: Studio, stock: Any, scheduler: str) -> None:
    request = GenerateRequest(prompt=PROMPT, seed=11, count=2, scheduler=scheduler)
    result = studio.generate(request)
    for index in range(2):
        assert apart(pixels(result, "raw", index), stock_picture(stock, scheduler, 11 + index)) <= 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("w", [1.0, 2.0])
def test_oms_is_the_stock_picture_from_the_corrected_noise(
    studio: Studio, stock: Any, lumen: Path, scheduler: str, w: float
) -> None:
    """x̃_T worked out by hand, given to the stock pipeline with the noise that follows x_S."""
    module = TimeFreeUNet.from_pretrained(lumen / "oms/oms_module")
    generator = torch.Generator().manual_seed(3)
    x_s = torch.randn((1, 4, 8, 8), generator=generator)
    with torch.no_grad():
        v = module(x_s, stock.encode_prompt("dark", "cpu", 1, False)[0])
        v_uncond = module(x_s, stock.encode_prompt("", "cpu", 1, False)[0])
    made = make_scheduler(stock.scheduler.config, scheduler, 4, torch.device("cpu"))
    x_t = ode_step(predicted_x0(guide(v_uncond, v, w)), x_s, first_alpha_bar(made))
    kept, stock.scheduler = stock.scheduler, made
    try:
        by_hand = stock(
            PROMPT,
            num_inference_steps=4,
            guidance_scale=5.0,
            latents=for_scheduler(x_t, made),
            generator=generator,
        ).images[0]
    finally:
        stock.scheduler = kept
    oms = Variant(name="oms", correction="oms", prompt="dark", guidance_scale=w)
    result = studio.generate(GenerateRequest(prompt=PROMPT, seed=3, scheduler=scheduler, variants=(RAW, oms)))
    assert apart(pixels(result, "oms"), np.asarray(by_hand, int)) <= 1
    assert apart(pixels(result, "oms"), pixels(result, "raw")) > 0


def test_negative_prompt_and_odd_size_reach_the_pipeline(studio: Studio, stock: Any) -> None:
    request = GenerateRequest(prompt=PROMPT, negative_prompt="snow", seed=5, width=72, height=88, variants=(RAW,))
    expected = stock_picture(stock, "ddim", 5, negative_prompt="snow", width=72, height=88)
    got = pixels(studio.generate(request), "raw")
    assert got.shape == (88, 72, 3)
    assert apart(got, expected) <= 1
    assert apart(expected, stock_picture(stock, "ddim", 5, width=72, height=88)) > 1  # the negative prompt matters


def test_results_are_ordered_and_filled_in(studio: Studio) -> None:
    result = studio.generate(GenerateRequest(prompt=PROMPT, seed=7, count=2))
    assert [(i.index, i.variant, i.seed) for i in result.images] == [
        (0, "raw", 7), (0, "oms", 7), (1, "raw", 8), (1, "oms", 8),
    ]  # fmt: skip
    request = result.request
    assert (request.width, request.height, request.num_inference_steps) == (64, 64, 4)
    assert (request.guidance_scale, request.scheduler, request.variants[1].module) == (5.0, "ddim", "lumen-oms")
    assert type(request) is GenerateRequest
    assert result.images[0].stats.mean == pytest.approx(pixels(result, "raw").mean())
    assert result.seconds.total >= result.seconds.denoise > 0


def test_a_seed_is_drawn_and_reported(studio: Studio) -> None:
    first, second = (studio.generate(GenerateRequest(prompt=PROMPT, variants=(RAW,))) for _ in range(2))
    assert first.seed != second.seed
    again = studio.generate(GenerateRequest(prompt=PROMPT, variants=(RAW,), seed=first.seed))
    assert apart(pixels(first, "raw"), pixels(again, "raw")) == 0


def test_the_same_request_gives_equal_bits(studio: Studio) -> None:
    request = GenerateRequest(prompt=PROMPT, seed=2, count=2, scheduler="euler-a")
    first = studio.generate(request)
    studio.forget()
    second = studio.generate(request)
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(first.images, second.images, strict=True))


@pytest.mark.parametrize("scheduler", ["ddim", "euler-a", "lcm"])
def test_another_grouping_stays_within_one_level(
    studio: Studio, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = (RAW, OMS, Variant(name="sde", correction="oms-sde"))
    together = studio.generate(GenerateRequest(prompt=PROMPT, seed=4, count=2, variants=variants, scheduler=scheduler))
    for index in range(2):
        for variant in variants:
            studio.forget()
            request = GenerateRequest(prompt=PROMPT, seed=4 + index, variants=(variant,), scheduler=scheduler)
            alone = pixels(studio.generate(request), variant.name)
            assert apart(alone, pixels(together, variant.name, index)) <= 1
    studio.forget()
    monkeypatch.setattr(denoising, "PIXELS_PER_CALL", 2 * 64 * 64)
    chunked = studio.generate(together.request)
    for a, b in zip(together.images, chunked.images, strict=True):
        assert apart(np.asarray(a.image, int), np.asarray(b.image, int)) <= 1


def test_variants_share_all_their_noise(studio: Studio) -> None:
    """Equal light by other words: whatever differs would be noise, from x_S or from the ancestral steps."""
    one = Variant(name="one", correction="oms", prompt="dark", prompt_b="light", mix=0.25)
    other = Variant(name="other", correction="oms", prompt="light", prompt_b="dark", mix=0.75)
    request = GenerateRequest(prompt=PROMPT, seed=9, scheduler="euler-a", variants=(RAW, one, other))
    result = studio.generate(request)
    assert apart(pixels(result, "one"), pixels(result, "other")) <= 1


def test_sde_draws_its_second_noise_after_x_s(studio: Studio, stock: Any, lumen: Path) -> None:
    module = TimeFreeUNet.from_pretrained(lumen / "oms/oms_module")
    generator = torch.Generator().manual_seed(6)
    x_s = torch.randn((1, 4, 8, 8), generator=generator)
    z = torch.randn((1, 4, 8, 8), generator=generator)
    with torch.no_grad():
        v = module(x_s, stock.encode_prompt(PROMPT, "cpu", 1, False)[0])
    alpha_bar = float(stock.scheduler.alphas_cumprod[999])
    by_hand = stock(
        PROMPT, num_inference_steps=4, guidance_scale=5.0, latents=sde_step(predicted_x0(v), z, alpha_bar)
    ).images[0]
    sde = Variant(name="sde", correction="oms-sde")
    result = studio.generate(GenerateRequest(prompt=PROMPT, seed=6, variants=(sde,)))
    assert apart(pixels(result, "sde"), np.asarray(by_hand, int)) <= 1


def counted(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the pipeline calls from here on."""
    sizes: list[int] = []
    denoise = denoising.denoise

    def counting(pipeline: Any, scheduler: Any, call: denoising.PipelineCall, *rest: Any) -> torch.Tensor:
        sizes.append(len(call.latents))
        return denoise(pipeline, scheduler, call, *rest)

    monkeypatch.setattr("oms_app.engine.studio.denoise", counting)
    return sizes


def test_other_oms_settings_reuse_the_raw_picture(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(studio, monkeypatch)
    first = studio.generate(GenerateRequest(prompt=PROMPT, seed=1))
    stronger = Variant(name="stronger", correction="oms", guidance_scale=2.0)
    second = studio.generate(GenerateRequest(prompt=PROMPT, seed=1, variants=(RAW, stronger)))
    assert sizes == [2, 1]
    assert apart(pixels(first, "raw"), pixels(second, "raw")) == 0
    third = studio.generate(GenerateRequest(prompt=PROMPT, seed=1, guidance_scale=4.0))  # the base's own: made anew
    assert sizes == [2, 1, 2]
    assert apart(pixels(first, "raw"), pixels(third, "raw")) > 0


def test_a_caller_cannot_spoil_the_cached_picture(studio: Studio) -> None:
    request = GenerateRequest(prompt=PROMPT, seed=1, variants=(RAW,))
    first = studio.generate(request)
    before = pixels(first, "raw").copy()
    first.images[0].image.paste((255, 0, 0), (0, 0, 64, 64))
    assert apart(pixels(studio.generate(request), "raw"), before) == 0


def test_equal_variants_are_made_once(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(studio, monkeypatch)
    same = Variant(name="again", correction="oms", prompt=PROMPT)  # OMS with its prompt spelt out
    result = studio.generate(GenerateRequest(prompt=PROMPT, seed=1, variants=(RAW, OMS, same)))
    assert sizes == [2]
    assert apart(pixels(result, "oms"), pixels(result, "again")) == 0


@pytest.mark.parametrize(("scheduler", "total"), [("ddim", 4), ("heun", 7)])
def test_progress_counts_the_pipelines_own_steps(studio: Studio, scheduler: str, total: int) -> None:
    seen: list[Progress] = []
    studio.generate(GenerateRequest(prompt=PROMPT, seed=1, scheduler=scheduler), on_progress=seen.append)
    steps = [(p.step, p.steps) for p in seen if p.stage == "denoise" and p.steps]
    assert steps == [(i + 1, total) for i in range(total)]
    assert [p.stage for p in seen if not p.steps] == ["load", "encode", "correct", "denoise", "decode"]


def test_stop_works_within_one_step(studio: Studio) -> None:
    seen: list[Progress] = []

    def stop() -> bool:
        return any(p.step == 2 for p in seen)

    request = GenerateRequest(prompt=PROMPT, seed=1, num_inference_steps=40)
    with pytest.raises(Stopped):
        studio.generate(request, on_progress=seen.append, should_stop=stop)
    assert max(p.step for p in seen) == 2
    again = studio.generate(request)  # the device is free, and nothing half made was kept
    assert len(again.images) == 2


def test_stop_works_while_waiting_for_the_device(studio: Studio) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold(_: Progress) -> None:
        inside.set()
        leave.wait(30)

    holder = threading.Thread(
        target=studio.generate, args=(GenerateRequest(prompt=PROMPT, seed=1),), kwargs={"on_progress": hold}
    )
    holder.start()
    assert inside.wait(30)
    try:
        with pytest.raises(Stopped):
            studio.generate(GenerateRequest(prompt="snow", seed=1), should_stop=lambda: True)
    finally:
        leave.set()
        holder.join(30)


def test_threads_get_their_own_pictures(studio: Studio) -> None:
    results: dict[int, GenerateResult] = {}

    def work(seed: int) -> None:
        results[seed] = studio.generate(GenerateRequest(prompt=PROMPT, seed=seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed in range(4):
        studio.forget()
        alone = studio.generate(GenerateRequest(prompt=PROMPT, seed=seed))
        for a, b in zip(alone.images, results[seed].images, strict=True):
            assert a.image.tobytes() == b.image.tobytes()


def test_notes_name_what_the_user_should_know(studio: Studio) -> None:
    oms = Variant(name="oms", correction="oms", prompt="mauve")
    request = GenerateRequest(
        prompt="black zebra " + "night " * 30, negative_prompt="snow", seed=1, guidance_scale=1.0, variants=(oms,)
    )
    notes = " | ".join(studio.generate(request).notes)
    assert "zebra, mauve" in notes
    assert "16 tokens" in notes and "truncated" in notes
    assert "negative prompt is ignored at CFG 1" in notes
    assert studio.generate(GenerateRequest(prompt=PROMPT, seed=1)).notes == ()


def test_unknown_words_need_no_weights(studio: Studio) -> None:
    assert studio.unknown_words("lumen", "Black zebra, zebra", "at night mauve") == ("zebra", "mauve")


def test_a_module_of_another_domain_is_refused_by_both_names(studio: Studio) -> None:
    alien = Variant(name="oms", correction="oms", module="alien-oms")
    with pytest.raises(StudioError, match=r"'alien-oms'.*'alien'.*'lumen'.*'lumen'"):
        studio.generate(GenerateRequest(prompt=PROMPT, seed=1, variants=(alien,)))
    forced = alien.model_copy(update={"force": True})
    result = studio.generate(GenerateRequest(prompt=PROMPT, seed=1, variants=(forced,)))
    assert any("colour casts" in note for note in result.notes)


def test_a_domain_survives_half_precision_and_a_new_decoder() -> None:
    from tiny import make_vae

    vae = make_vae(seed=0).requires_grad_(False)
    kept = domain.fingerprint(vae)
    rounded = make_vae(seed=0).half().float()
    assert 0 < domain.distance(kept, domain.fingerprint(rounded)) < domain.TOLERANCE / 2
    for weights in vae.decoder.parameters():
        weights += 1.0
    assert domain.fingerprint(vae) == kept
    assert not domain.same(kept, domain.fingerprint(make_vae(seed=1)))
    vae.register_to_config(scaling_factor=vae.config.scaling_factor * 1.1)  # the UNet then speaks another language
    assert not domain.same(kept, domain.fingerprint(vae))


def test_nan_weights_are_named_as_a_fault(presets: Path) -> None:
    own = Studio(presets=presets, device="cpu")
    key = ModelKey("base", (presets.parents[1] / "assets/lumen").resolve(), "cpu", torch.float32)
    with own._store.use(key) as base:
        base.pipeline.unet.conv_out.bias.data.fill_(float("nan"))
        with pytest.raises(StudioError, match="not finite numbers"):
            own.generate(GenerateRequest(prompt=PROMPT, seed=1, variants=(RAW,)))


def test_a_folder_is_a_model_too(studio: Studio, lumen: Path, tmp_path: Path) -> None:
    from tiny import make_base

    in_catalogue = studio.generate(GenerateRequest(prompt=PROMPT, seed=1, model=str(lumen), num_inference_steps=2))
    assert [i.variant for i in in_catalogue.images] == ["raw", "oms"]
    # A stranger with the same autoencoder: its latent domain is measured, and lumen's module is found by it.
    stranger = make_base(tmp_path / "stranger")
    result = studio.generate(GenerateRequest(prompt=PROMPT, seed=1, model=str(stranger), num_inference_steps=2))
    assert result.request.variants[1].module == "lumen-oms"
    assert result.request.width == 64
    # And one with another autoencoder finds none.
    odd = make_base(tmp_path / "odd", seed=5)
    with pytest.raises(StudioError, match="no OMS module of the latent domain"):
        studio.generate(GenerateRequest(prompt=PROMPT, seed=1, model=str(odd), num_inference_steps=2))


def test_a_schedule_without_a_leak_is_refused(studio: Studio, tmp_path: Path) -> None:
    import json

    from tiny import make_base

    folder = make_base(tmp_path / "rescaled")
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_betas_zero_snr": True}))
    request = GenerateRequest(prompt=PROMPT, seed=1, model=str(folder), num_inference_steps=2)
    with pytest.raises(StudioError, match="nothing to correct"):
        studio.generate(request)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "nope"}, "unknown model 'nope': choose one of"),
        ({"model": "absent"}, "are not at"),
        ({"model": "lumen-oms"}, "kind oms"),
        ({"model": "a.ckpt"}, "pickle"),
        ({"model": "a.safetensors"}, "diffusers folder"),
        ({"width": 256}, "take 32 to 128"),
        ({"scheduler": "lcm", "num_inference_steps": 51}, "take 1 to 50"),
        ({"loras": ({"id": "x"},)}, "unknown LoRA 'x'"),
        ({"variants": ({"name": "o", "correction": "oms", "module": "nope"},)}, "unknown model 'nope'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(studio: Studio, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StudioError) as caught:
        studio.generate(GenerateRequest.model_validate({"prompt": PROMPT, "seed": 1, **settings}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_every_number_of_steps_paints_or_says_why(studio: Studio, scheduler: str, steps: int) -> None:
    request = GenerateRequest(prompt=PROMPT, seed=1, scheduler=scheduler, num_inference_steps=steps)
    assert len(studio.generate(request).images) == 2


def test_a_pickle_and_foreign_code_are_refused(lumen: Path, tmp_path: Path) -> None:
    import json
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(lumen, copy)
    (copy / "unet/diffusion_pytorch_model.safetensors").rename(copy / "unet/diffusion_pytorch_model.bin")
    key = ModelKey("base", copy, "cpu", torch.float32)
    with pytest.raises(StudioError, match="pickle"):
        load(key)
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"unet": ["my_code", "Net"]}))
    with pytest.raises(StudioError, match="never run"):
        load(key)
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(StudioError, match="FluxPipeline"):
        load(key)


def test_inspect_shows_the_leak(studio: Studio) -> None:
    figures = studio.inspect("lumen")
    assert figures["terminal_snr"] == pytest.approx(4.682e-3, rel=1e-3)  # the paper's Table 1
    assert figures["first_timestep"] == 999
    assert figures["domain"] == "lumen"
    assert figures["oms_modules"] == ["lumen-oms"]


@given(count=st.integers(0, 70), side=st.sampled_from([64, 256, 512, 1024, 2048]))
def test_chunks_cover_everything_once(count: int, side: int) -> None:
    parts = denoising.chunks(count, side, side)
    assert [i for part in parts for i in part] == list(range(count))
    assert all(
        len(part) > 0 and (len(part) == 1 or len(part) * side * side <= denoising.PIXELS_PER_CALL) for part in parts
    )
    assert all(abs(len(a) - len(b)) <= 1 for a, b in pairwise(parts))
