"""Schedules, the one more step and its hand-over: closed forms, properties, and diffusers as second implementation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr as diffusers_rescale
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from oms_app.prestep import schedule, step
from oms_app.prestep.corrections import CORRECTIONS
from oms_app.prestep.leak import LeakStatistics, from_modes, low_modes
from oms_app.prestep.methods import OffsetNoise, Start, copy_of
from oms_app.schedulers import SCHEDULERS as REQUESTED_SCHEDULERS
from oms_app.schema import Variant

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
SPACINGS = ("leading", "trailing")
scalars = st.floats(-3.0, 3.0, allow_nan=False)
alpha_bars = st.floats(0.0, 1.0)
seeds = st.integers(0, 2**31)


def make_scheduler(name: str, steps: int = 20, **settings: Any) -> Any:
    cls = getattr(diffusers, SCHEDULERS[name])
    if name == "pndm":
        settings = {"skip_prk_steps": True, **settings}
    scheduler = cls(**{**BETAS, **settings})
    scheduler.set_timesteps(steps)
    return scheduler


def draw(seed: int, count: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 4, 3, 3, generator=generator, dtype=dtype) for _ in range(count))


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (schedule.scaled_linear_betas(), BETAS),
        (schedule.linear_betas(), {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}),
        (schedule.cosine_betas(), {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_betas_agree_with_diffusers(ours: Tensor, theirs: dict) -> None:
    scheduler = diffusers.DDIMScheduler(**theirs)
    assert ours.shape == (1000,) and ours.dtype == torch.float64
    torch.testing.assert_close(ours.float(), scheduler.betas, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(schedule.alphas_cumprod(ours).float(), scheduler.alphas_cumprod, rtol=1e-3, atol=1e-7)


def test_the_flaw_of_stable_diffusion() -> None:
    """Eq. 11 and 12: √ᾱ_T = 0.068265, √(1-ᾱ_T) = 0.997667."""
    alpha_bar = schedule.alphas_cumprod(schedule.scaled_linear_betas())[-1]
    assert float(alpha_bar.sqrt()) == pytest.approx(0.068265, abs=5e-7)
    assert float((1 - alpha_bar).sqrt()) == pytest.approx(0.997667, abs=5e-7)
    assert float(schedule.snr(alpha_bar)) == pytest.approx(0.004682, abs=5e-7)


def test_table_1() -> None:
    rows = schedule.table1()
    assert [row["schedule"] for row in rows] == ["cosine", "linear", "LDM pixels", "LDM latents"]
    assert [row["snr"] for row in rows] == pytest.approx([2.428e-09, 4.036e-05, 4.682e-03, 4.682e-03], rel=3e-4)
    closed_form = [3.6e-07, 5.965e-03, 6.893e-01, 3.445e-02]
    assert [row["radius_gap"] for row in rows] == pytest.approx(closed_form, rel=1e-2)
    # The paper's own figures are sampled: within 1 %, but for the cosine row, one float32 step at 443.
    assert [row["radius_gap"] for row in rows[1:]] == pytest.approx([6.0119e-03, 6.8893e-01, 3.4447e-02], rel=1e-2)
    assert [row["radius_sampling"] for row in rows] == pytest.approx([443.4050, 443.4050, 443.4050, 128.0])


def test_radii_agree_with_sampling() -> None:
    alpha_bar, dimensions = 0.3, 4096
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(400, dimensions, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(400, dimensions, generator=generator, dtype=torch.float64)
    lengths = schedule.add_noise(x0, noise, alpha_bar).norm(dim=1)
    training, sampling = schedule.radii(dimensions, 1 / 3, alpha_bar)
    assert float((lengths**2).mean().sqrt()) == pytest.approx(training, rel=2e-3)
    assert sampling == 64.0


@given(st.floats(1e-5, 0.01), st.floats(0.011, 0.05), st.integers(2, 60))
def test_rescaled_betas_end_at_zero_and_keep_the_first_step(start: float, end: float, timesteps: int) -> None:
    betas = schedule.linear_betas(timesteps, start, end)
    rescaled = schedule.alphas_cumprod(schedule.rescale_zero_terminal_snr(betas))
    assert float(rescaled[-1]) == 0.0
    assert float(rescaled[0]) == pytest.approx(float(schedule.alphas_cumprod(betas)[0]))
    assert bool((rescaled[1:] < rescaled[:-1]).all())


def test_rescaled_betas_agree_with_diffusers() -> None:
    betas = schedule.scaled_linear_betas()
    torch.testing.assert_close(schedule.rescale_zero_terminal_snr(betas), diffusers_rescale(betas))


@given(alpha_bars, seeds)
def test_v_gives_back_the_picture(alpha_bar: float, seed: int) -> None:
    """Eq. 9 undoes Eq. 3 and 8."""
    x0, noise = draw(seed, 2)
    x_t, v = schedule.add_noise(x0, noise, alpha_bar), schedule.v_target(x0, noise, alpha_bar)
    torch.testing.assert_close(schedule.x0_from_v(x_t, v, alpha_bar), x0, rtol=0, atol=1e-10)


def test_noise_and_v_agree_with_diffusers_per_timestep() -> None:
    scheduler = make_scheduler("ddim")
    x0, noise = draw(0, 2, torch.float32)
    t = torch.tensor([999, 3])
    alpha_bar = scheduler.alphas_cumprod[t]
    torch.testing.assert_close(schedule.add_noise(x0, noise, alpha_bar), scheduler.add_noise(x0, noise, t))
    torch.testing.assert_close(schedule.v_target(x0, noise, alpha_bar), scheduler.get_velocity(x0, noise, t))


def test_target_at_pure_noise_is_the_negated_picture() -> None:
    x0, noise = draw(1, 2)
    v = schedule.v_target(x0, noise, 0.0)
    torch.testing.assert_close(v, -x0)
    torch.testing.assert_close(step.predicted_x0(v), x0)
    torch.testing.assert_close(step.predicted_x0(v), schedule.x0_from_v(noise, v, 0.0))


# --- the step --------------------------------------------------------------------------------------------------------


def test_steps_in_numbers() -> None:
    """Eq. 20, Eq. 17 and the published code, at Stable Diffusion's ᾱ_T."""
    alpha_bar = float(schedule.alphas_cumprod(schedule.scaled_linear_betas())[-1])
    x0_hat, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)
    exact = 0.068265 * 2.0 - 0.997667
    assert float(step.ode_step(x0_hat, noise, alpha_bar)) == pytest.approx(exact, abs=2e-6)
    assert float(step.sde_step(x0_hat, noise, alpha_bar)) == pytest.approx(exact, abs=2e-6)
    quirk = 0.068265 * 2.0 - 0.995340
    assert float(step.reference_step(x0_hat, noise, alpha_bar)) == pytest.approx(quirk, abs=2e-6)


def test_the_corrected_start_has_the_distribution_of_training() -> None:
    """With a perfect x̂0 = E[x0 | c] and x0 = x̂0 exactly, x̃_T is distributed as Eq. 12 has x_T."""
    alpha_bar = 0.2
    x_s = torch.randn(1, 4, 200, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_T = step.ode_step(torch.full_like(x_s, 1.5), x_s, alpha_bar)
    assert float(x_T.mean()) == pytest.approx(math.sqrt(0.2) * 1.5, abs=0.01)
    assert float(x_T.std()) == pytest.approx(math.sqrt(0.8), abs=0.01)


@given(seeds, scalars)
def test_guidance_at_its_landmarks_and_between(seed: int, w: float) -> None:
    """Eq. 21: 0 unconditional, 1 conditional, a straight line through both."""
    uncond, cond = draw(seed, 2)
    torch.testing.assert_close(step.guide(uncond, cond, 0.0), uncond)
    torch.testing.assert_close(step.guide(uncond, cond, 1.0), cond)
    torch.testing.assert_close(step.guide(uncond, cond, w), (1 - w) * uncond + w * cond)


@given(seeds, scalars, scalars, scalars)
def test_guidance_is_linear(seed: int, w: float, p: float, q: float) -> None:
    a, b, c, d = draw(seed, 4)
    both = step.guide(p * a + q * c, p * b + q * d, w)
    torch.testing.assert_close(both, p * step.guide(a, b, w) + q * step.guide(c, d, w), rtol=0, atol=1e-10)


@pytest.mark.parametrize("move", [step.ode_step, step.sde_step, step.reference_step])
@given(seed=seeds, alpha_bar=alpha_bars, p=scalars, q=scalars)
def test_steps_are_linear(move: Callable[..., Tensor], seed: int, alpha_bar: float, p: float, q: float) -> None:
    a, b, x, y = draw(seed, 4)
    both = move(p * a + q * b, p * x + q * y, alpha_bar)
    torch.testing.assert_close(both, p * move(a, x, alpha_bar) + q * move(b, y, alpha_bar), rtol=0, atol=1e-10)


@given(seeds, scalars, alpha_bars)
def test_mixing_before_the_step_is_mixing_after_it(seed: int, s: float, alpha_bar: float) -> None:
    a, b, x_s = draw(seed, 3)
    before = step.ode_step(step.mix([a, b], [1 - s, s]), x_s, alpha_bar)
    after = step.mix([step.ode_step(a, x_s, alpha_bar), step.ode_step(b, x_s, alpha_bar)], [1 - s, s])
    torch.testing.assert_close(before, after, rtol=0, atol=1e-10)


@given(seeds, st.lists(scalars, min_size=1, max_size=4))
def test_mix_is_the_weighted_sum(seed: int, weights: list[float]) -> None:
    x0s = draw(seed, len(weights))
    expected = sum((w * x0 for w, x0 in zip(weights, x0s, strict=True)), torch.zeros_like(x0s[0]))
    torch.testing.assert_close(step.mix(x0s, weights), expected)


@pytest.mark.parametrize("weights", [[], [1.0, 2.0]])
def test_mix_refuses_a_wrong_number_of_weights(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=f"1 predictions and {len(weights)} weights"):
        step.mix(draw(0), weights)
    with pytest.raises(ValueError, match="at least one"):
        step.mix([], [])


# --- schedulers ------------------------------------------------------------------------------------------------------


def first_unet_input(latents: Tensor, scheduler: Any) -> Tensor:
    """What a stock pipeline does between `latents=` and its first UNet call."""
    latents = latents * scheduler.init_noise_sigma
    return scheduler.scale_model_input(latents, scheduler.timesteps[0])


def test_every_scheduler_on_offer_is_tested_here() -> None:
    assert set(SCHEDULERS) == set(REQUESTED_SCHEDULERS)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_unet_first_sees_the_corrected_latent(name: str, steps: int, spacing: str) -> None:
    scheduler = make_scheduler(name, steps, timestep_spacing=spacing, steps_offset=1)
    (x_T,) = draw(5, dtype=torch.float32)
    latents = step.for_scheduler(x_T, scheduler)
    assert latents.dtype == torch.float32
    scheduler.set_timesteps(steps)  # the pipeline does so again
    torch.testing.assert_close(first_unet_input(latents, scheduler), x_T, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm++2m", "unipc"])
def test_the_hand_over_holds_for_karras_sigmas(name: str) -> None:
    scheduler = make_scheduler(name, use_karras_sigmas=True, timestep_spacing="leading")
    (x_T,) = draw(6, dtype=torch.float32)
    torch.testing.assert_close(first_unet_input(step.for_scheduler(x_T, scheduler), scheduler), x_T, rtol=0, atol=1e-4)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", ["euler", "euler-a", "heun"])
def test_the_hand_over_agrees_with_its_formula(name: str, spacing: str) -> None:
    """x̃_T·√(σ_0²+1)/init_noise_sigma, with σ_0 = √((1-ᾱ_τ)/ᾱ_τ)."""
    scheduler = make_scheduler(name, timestep_spacing=spacing)
    (x_T,) = draw(7)
    alpha_bar = schedule.first_alpha_bar(scheduler)
    sigma = math.sqrt((1 - alpha_bar) / alpha_bar)
    expected = x_T * math.sqrt(sigma**2 + 1) / float(scheduler.init_noise_sigma)
    torch.testing.assert_close(step.for_scheduler(x_T, scheduler), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_hand_over_leaves_the_scheduler_as_it_was(name: str) -> None:
    scheduler = make_scheduler(name)
    before = {key: value for key, value in vars(scheduler).items() if not isinstance(value, Tensor)}
    step.for_scheduler(draw(0)[0], scheduler)
    assert {key: value for key, value in vars(scheduler).items() if not isinstance(value, Tensor)} == before


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_first_alpha_bar_is_that_of_the_first_timestep(name: str, spacing: str) -> None:
    scheduler = make_scheduler(name, timestep_spacing=spacing)
    tau = round(float(scheduler.timesteps[0]))
    exact = float(schedule.alphas_cumprod(schedule.scaled_linear_betas())[tau])
    assert schedule.first_alpha_bar(scheduler) == pytest.approx(exact, rel=2e-3)
    if spacing == "trailing":
        assert tau == 999
    step.check_terminal_snr(scheduler)


def test_karras_sigmas_are_read_where_the_sampler_starts() -> None:
    scheduler = make_scheduler("euler", timestep_spacing="leading", use_karras_sigmas=True)
    assert schedule.first_alpha_bar(scheduler) == pytest.approx(1 / (float(scheduler.sigmas[0]) ** 2 + 1))


def test_a_scheduler_without_timesteps_is_refused() -> None:
    with pytest.raises(ValueError, match="set_timesteps"):
        schedule.first_alpha_bar(diffusers.DDIMScheduler(**BETAS))


@pytest.mark.parametrize("name", ["ddim", "euler", "euler-a", "dpm++2m", "unipc", "lcm"])
def test_zero_terminal_snr_is_refused_with_its_reason(name: str) -> None:
    scheduler = make_scheduler(name, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(ValueError, match="nothing to correct"):
        step.check_terminal_snr(scheduler)


def test_flow_matching_is_refused_with_its_reason() -> None:
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    flow.set_timesteps(4)
    sigmas = make_scheduler("dpm++2m", use_flow_sigmas=True, prediction_type="flow_prediction")
    for scheduler in (flow, sigmas):
        with pytest.raises(ValueError, match="flow-matching"):
            step.check_terminal_snr(scheduler)


# --- corrections -----------------------------------------------------------------------------------------------------


def make_start(predict: Callable[[str], Tensor], alpha_bar: float = 0.2) -> tuple[Start, Tensor]:
    """A start without statistics, and the draw that the generator would give next."""
    generator = torch.Generator().manual_seed(11)
    x_s = torch.randn(1, 4, 3, 3, generator=generator)
    start = Start(x_s=x_s, alpha_bar=alpha_bar, generator=generator, predict=predict)
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return start, torch.randn(1, 4, 3, 3, generator=copy)


def make(name: str) -> Any:
    return CORRECTIONS[name].make(Variant(name="x", correction=name))


def test_raw_is_the_noise_and_asks_for_no_prediction() -> None:
    def refuse(text: str) -> Tensor:
        raise AssertionError("raw must not run a module")

    start, _ = make_start(refuse)
    assert make("raw").correct(start) is start.x_s and make("raw").texts("sea", 5.0) == ()
    assert CORRECTIONS["raw"].needs is None


def test_corrections_are_their_formulas() -> None:
    x0_hat = torch.full((1, 4, 3, 3), 0.7)
    start, z = make_start(lambda text: -x0_hat)  # OMS modules predict v = -x̂0 at SNR 0
    root, root_noise = math.sqrt(0.2), math.sqrt(0.8)
    expected = {
        "oms": root * x0_hat + root_noise * start.x_s,
        "oms-sde": root * x0_hat + root_noise * z,
        "oms-reference": root * x0_hat + 0.8 * z,
        "singdiffusion": -root * x0_hat + root_noise * start.x_s,  # its module predicts x̂0
    }
    for name, x_T in expected.items():
        assert CORRECTIONS[name].needs == name.split("-")[0] and CORRECTIONS[name].has_x0
        torch.testing.assert_close(make(name).correct(start), x_T)


def test_signal_leak_draws_its_x0_from_the_statistics() -> None:
    leak = LeakStatistics(torch.full((4, 1, 1), 0.7), torch.zeros(4, 4))
    start, _ = make_start(lambda text: torch.zeros(1))
    expected = math.sqrt(0.2) * torch.full((1, 4, 3, 3), 0.7) + math.sqrt(0.8) * start.x_s
    torch.testing.assert_close(make("signal_leak").correct(replace(start, statistics=leak)), expected)
    with pytest.raises(ValueError, match="no statistics"):
        make("signal_leak").correct(start)


def test_the_texts_are_those_that_the_correction_predicts_for() -> None:
    seen: list[str] = []

    def predict(text: str) -> Tensor:
        seen.append(text)
        return torch.zeros(1, 4, 3, 3)

    settings: list[dict[str, Any]] = [
        {}, {"prompt": ""}, {"prompt": "dark"}, {"guidance_scale": 2.0},
        {"prompt": "dark", "prompt_b": "light", "mix": 0.5}, {"prompt_b": "light", "mix": 1.0, "guidance_scale": 0.0},
    ]  # fmt: skip
    for name in ("oms", "oms-sde", "oms-reference", "singdiffusion"):
        for one in settings:
            if name == "singdiffusion":
                one = {key: value for key, value in one.items() if key != "guidance_scale"}
            for base_scale in (1.0, 5.0):
                seen.clear()
                correction = CORRECTIONS[name].make(Variant(name="x", correction=name, **one))
                start, _ = make_start(predict)
                correction.correct(replace(start, prompt="sea", guidance_scale=base_scale))
                assert set(correction.texts("sea", base_scale)) == set(seen)


@pytest.mark.parametrize(("per", "values"), [("channel", 4), ("picture", 1)])
def test_offset_noise_moves_whole_channels_or_the_whole_picture(
    per: Literal["channel", "picture"], values: int
) -> None:
    start, _ = make_start(lambda text: torch.zeros(1))
    moved = OffsetNoise(offset_strength=0.5, offset_per=per).correct(start) - start.x_s
    flat = moved.flatten(2)
    assert torch.allclose(flat, flat[..., :1].expand_as(flat), atol=1e-6)
    assert len(moved.mean((0, 2, 3)).round(decimals=5).unique()) == values
    expected = torch.randn(1, values, 1, 1, generator=copy_of(start.generator)) * 0.5
    torch.testing.assert_close(moved, expected.expand_as(moved), atol=1e-6, rtol=1e-4)
    assert torch.equal(OffsetNoise(offset_strength=0.0, offset_per=per).correct(start), start.x_s)


@given(st.integers(0, 2**31), st.sampled_from([4, 8, 13, 32]), st.sampled_from([4, 9, 32]))
def test_low_modes_give_smooth_latents_back_at_any_size(seed: int, height: int, width: int) -> None:
    modes = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    smooth = from_modes(modes, height, width)
    torch.testing.assert_close(low_modes(smooth), modes, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(smooth.mean((2, 3)), modes[..., 0, 0], atol=1e-9, rtol=1e-9)


def test_leak_statistics_are_those_of_the_pictures() -> None:
    """Fitted to many draws of a known Gaussian of amplitudes, samples have its mean and covariance."""
    torch.manual_seed(0)
    mixing = torch.randn(64, 64) / 8
    known = (torch.randn(4000, 64) @ mixing.T + torch.arange(64) / 64).view(-1, 4, 4, 4)
    leak = LeakStatistics.fit(from_modes(known, 16, 16))
    generator = torch.Generator().manual_seed(1)
    drawn = torch.cat([low_modes(leak.sample(generator, 8, 24)) for _ in range(4000)]).flatten(1)
    assert (drawn.mean(0) - torch.arange(64) / 64).abs().max() < 0.1
    wanted = mixing @ mixing.T
    assert (torch.cov(drawn.T) - wanted).norm() / wanted.norm() < 0.2
    with pytest.raises(ValueError, match="do not define a covariance"):
        LeakStatistics.fit(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match="fewer than 4 cosines per side"):
        low_modes(torch.zeros(1, 4, 3, 8))


def test_normalised_guidance_never_overshoots() -> None:
    none, asked = torch.full((1, 4, 2, 2), 0.2), torch.full((1, 4, 2, 2), -1.0)
    for g in (0.0, 0.5, 1.0):
        assert torch.equal(step.normalised_guide(none, asked, g), asked)  # normalised for g > 1 only
    torch.testing.assert_close(step.normalised_guide(none, asked, 5.0), (none + 5 * (asked - none)) / 5)


@pytest.mark.parametrize("name", list(CORRECTIONS))
def test_corrections_do_not_advance_the_shared_generator(name: str) -> None:
    start, z = make_start(lambda text: torch.zeros(1, 4, 3, 3))
    start = replace(start, statistics=LeakStatistics(torch.zeros(4, 1, 1), torch.eye(4)))
    first, second = make(name).correct(start), make(name).correct(start)
    assert torch.equal(first, second)
    assert torch.equal(torch.randn(1, 4, 3, 3, generator=start.generator), z)
