"""Schedulers are made from the model's own schedule and the sampler's own settings, whatever class the model names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from oms_app.errors import StudioError
from oms_app.models.folders import load_scheduler
from oms_app.models.scheduler_factory import make_scheduler, model_schedule
from oms_app.prestep.schedule import first_alpha_bar, x0_of_step
from oms_app.schedulers import SCHEDULER_SPECS, SCHEDULERS

CPU = torch.device("cpu")
# diffusers 0.42's KDPM2 scheduler calls numpy functions on torch tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")
SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SOURCES = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "TCDScheduler",
)
# The sampler's own settings, written out once more and in diffusers' words: what no model's config may change.
REFERENCE: dict[str, dict[str, Any]] = {
    "ddim": {"clip_sample": False, "set_alpha_to_one": False},
    "pndm": {"skip_prk_steps": True, "set_alpha_to_one": False},
    "dpm++2m": {},
    "unipc": {},
    "lcm": {"clip_sample": False, "set_alpha_to_one": False, "original_inference_steps": 50},
    "euler": {},
    "euler-a": {},
    "heun": {"clip_sample": False},
}
# What a saved config may hold of its own class that another must not take.
HABITS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"clip_sample": True, "set_alpha_to_one": True},
    "DDPMScheduler": {"clip_sample": True, "variance_type": "fixed_small"},
    "LCMScheduler": {"original_inference_steps": 8, "clip_sample": True},
    "TCDScheduler": {"original_inference_steps": 8},
    "DEISMultistepScheduler": {"algorithm_type": "deis", "solver_type": "logrho", "solver_order": 3},
    "DPMSolverMultistepScheduler": {
        "algorithm_type": "sde-dpmsolver++",
        "use_karras_sigmas": True,
        "thresholding": True,
        "solver_order": 3,
        "final_sigmas_type": "sigma_min",
    },
    "EulerDiscreteScheduler": {"use_karras_sigmas": True, "interpolation_type": "log_linear"},
    "UniPCMultistepScheduler": {"solver_type": "bh1", "predict_x0": False, "thresholding": True},
    "HeunDiscreteScheduler": {"use_karras_sigmas": True, "clip_sample": True},
}


def walk(scheduler: Any, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first x̂0 and the last latents of a model that answers with a fixed function of what it sees."""
    generator = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
    first = None
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        answer = torch.tanh(seen.roll(1, -1)) * 0.8 + 0.1
        if first is None:
            first = x0_of_step(scheduler, answer, t, x)
        extra = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
        x = scheduler.step(answer, t, x, **extra).prev_sample
    assert first is not None
    return first, x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_sampler_takes_the_models_values_and_no_other_classs_settings(
    name: str, source: str, prediction: str
) -> None:
    saved = getattr(diffusers, source)(**SD, prediction_type=prediction, **HABITS.get(source, {})).config
    made = make_scheduler(saved, name, 6, CPU)
    spacing = {k: saved[k] for k in ("timestep_spacing", "steps_offset") if k in saved and k not in assumed(saved)}
    reference = getattr(diffusers, SCHEDULER_SPECS[name].diffusers_class)(
        **SD, prediction_type=prediction, **({"steps_offset": 1} | spacing), **REFERENCE[name]
    )
    reference.set_timesteps(6)
    for ours, theirs in zip(walk(made, 6), walk(reference, 6), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


# Every class of diffusers; DPMSolverSDE is there without its package too.
CLASSES = sorted(
    {name for name in dir(diffusers) if isinstance(getattr(diffusers, name), type) and name.endswith("Scheduler")}
    - {"CosineDPMSolverMultistepScheduler"}
)
# Those whose noise levels are not a matter of betas.
WITHOUT_BETAS = {
    *("AmusedScheduler", "BlockRefinementScheduler", "CMStochasticIterativeScheduler", "CogVideoXDDIMScheduler"),
    *("CogVideoXDPMScheduler", "DDPMWuerstchenScheduler", "DiscreteDDIMScheduler", "EntropyBoundScheduler"),
    *("FlowMapEulerDiscreteScheduler", "HeliosDMDScheduler", "HeliosScheduler", "IPNDMScheduler", "KarrasVeScheduler"),
    *("LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler", "PiflowScheduler", "RFD4ProteinaScheduler"),
    *("SCMScheduler", "ScoreSdeVeScheduler", "UnCLIPScheduler", "VQDiffusionScheduler"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", CLASSES)
def test_every_class_of_diffusers_gives_the_models_picture_or_is_named(source: str, tmp_path: Path) -> None:
    config = SD | HABITS.get(source, {}) | {"_class_name": source, "prediction_type": "v_prediction"}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    if source.startswith(("FlowMatch", "EDM")):  # refused with the request: tests/test_refusals.py
        assert not hasattr(load_scheduler(tmp_path, source), "alphas_cumprod")
        return
    try:
        loaded = load_scheduler(tmp_path, source).config
    except StudioError as error:
        assert f"is a {source}, which has other noise levels" in str(error)
        assert source in WITHOUT_BETAS
        return
    assert source not in WITHOUT_BETAS
    for name in SCHEDULERS:
        made = make_scheduler(loaded, name, 4, CPU)
        reference = getattr(diffusers, SCHEDULER_SPECS[name].diffusers_class)(
            **SD, prediction_type="v_prediction", steps_offset=1, **REFERENCE[name]
        )
        reference.set_timesteps(4)
        for ours, theirs in zip(walk(made, 4), walk(reference, 4), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_continuous_timesteps_are_another_model(tmp_path: Path) -> None:
    diffusers.EulerDiscreteScheduler(
        **SD, sigma_min=0.002, sigma_max=700.0, timestep_type="continuous"
    ).save_pretrained(tmp_path)
    with pytest.raises(StudioError, match="timesteps are continuous, as in models of EDM"):
        load_scheduler(tmp_path, "EulerDiscreteScheduler")


def assumed(config: Any) -> list[str]:
    return list(config.get("_use_default_values", []))


@pytest.mark.parametrize("source", SOURCES)
def test_saved_and_read_back_the_schedule_is_the_same(source: str, tmp_path: Any) -> None:
    """A config file lacks nothing, but some were written by hand: then the defaults of its own class count."""
    scheduler = getattr(diffusers, source)(**SD)
    scheduler.save_pretrained(tmp_path)
    read = model_schedule(type(scheduler).from_pretrained(tmp_path).config)
    assert read.betas == tuple(scheduler.betas.tolist()) and not read.zero_terminal_snr
    bare = getattr(diffusers, source)()
    assert model_schedule(bare.config).betas == tuple(bare.betas.tolist())
    assert model_schedule({"_class_name": source}).betas == tuple(bare.betas.tolist())


def test_a_config_without_clip_sample_does_not_clip() -> None:
    """SDXL's config is Euler's, which lacks the key; DDIM's own default would clip every step to [-1, 1]."""
    for config in (diffusers.EulerDiscreteScheduler(**SD).config, {"_class_name": "EulerDiscreteScheduler", **SD}):
        made = make_scheduler(config, "ddim", 20, CPU).config
        assert (made.clip_sample, made.set_alpha_to_one, made.thresholding) == (False, False, False)


def test_limits_of_steps_belong_to_the_sampler() -> None:
    lcm = diffusers.LCMScheduler(original_inference_steps=50).config
    assert len(make_scheduler(lcm, "ddim", 100, CPU).timesteps) == 100
    with pytest.raises(StudioError, match="100 steps are too many for the scheduler lcm: take 1 to 50"):
        make_scheduler(lcm, "lcm", 100, CPU)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("rescaled_betas", [False, True], ids=["by its flag", "by its betas"])
def test_zero_terminal_snr_is_a_property_of_the_model(name: str, rescaled_betas: bool) -> None:
    ddim = diffusers.DDIMScheduler(**SD, rescale_betas_zero_snr=True, prediction_type="v_prediction", clip_sample=False)
    config = dict(ddim.config)
    if rescaled_betas:  # as a class without the flag would be given them
        config |= {"rescale_betas_zero_snr": False, "trained_betas": ddim.betas.tolist()}
        config["_use_default_values"] = ["timestep_spacing"]
    if not SCHEDULER_SPECS[name].zero_snr:
        with pytest.raises(StudioError, match=rf"{name} cannot start from pure noise.*choose one of ddim"):
            make_scheduler(config, name, 20, CPU)
        return
    made = make_scheduler(config | {"timestep_spacing": "trailing"}, name, 20, CPU)
    assert first_alpha_bar(made) < 1e-6
    if rescaled_betas:
        assert make_scheduler(config, name, 20, CPU).config.timestep_spacing == "trailing"
    _, last = walk(made, 20)
    assert torch.isfinite(last).all()


def test_what_a_sampler_cannot_predict_is_refused_before_painting() -> None:
    sample = diffusers.DDIMScheduler(**SD, prediction_type="sample").config
    with pytest.raises(StudioError, match="pndm cannot run a model with prediction type 'sample'"):
        make_scheduler(sample, "pndm", 20, CPU)
    for name in SCHEDULERS:
        for prediction in SCHEDULER_SPECS[name].predictions:
            config = diffusers.DDIMScheduler(**SD, prediction_type=prediction).config
            assert torch.isfinite(walk(make_scheduler(config, name, 4, CPU), 4)[1]).all()
    with pytest.raises(StudioError, match="unknown beta_schedule 'nonsense'"):
        make_scheduler({"beta_schedule": "nonsense"}, "ddim", 4, CPU)


def test_unusual_betas_are_the_models() -> None:
    betas = np.linspace(1e-4, 0.02, 500).astype(np.float32).tolist()
    made = make_scheduler(diffusers.DDIMScheduler(num_train_timesteps=500, trained_betas=betas).config, "euler", 4, CPU)
    assert made.config.num_train_timesteps == 500 and made.betas.tolist() == betas
    cosine = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    assert torch.equal(make_scheduler(cosine.config, "lcm", 4, CPU).betas, cosine.betas)


def test_the_table_names_every_scheduler_once() -> None:
    assert tuple(SCHEDULER_SPECS) == SCHEDULERS
    names = [spec.a1111_name for spec in SCHEDULER_SPECS.values()]
    assert len(set(names)) == len(names)
