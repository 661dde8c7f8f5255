"""Spread: what a head samples, its files, what it changes in pictures, and how it is trained."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from oms_app import GenerateRequest, GenerateResult, Studio, Variant
from oms_app.engine.correct import CorrectionRunner
from oms_app.engine.stages import Job
from oms_app.errors import StudioError
from oms_app.models import spread_files
from oms_app.models.loading import load_module
from oms_app.output import png
from oms_app.prestep.leak import from_modes, low_modes
from oms_app.prestep.spread import SpreadConfig, SpreadHead, deviation_of, generator_of, pool
from oms_app.schema import OMS, RAW
from oms_app.training import spread
from oms_app.training.scenes import painter

CONFIG = SpreadConfig(text_width=6, channels=2, modes=2, components=3, width=8)
SAMPLES = 3_000
SIZES = {"text_width": 6, "channels": 2}
FREE = Variant(name="free", correction="dial")
WIDE = Variant(name="wide", correction="dial", spread=1.0)


def head_of(config: SpreadConfig = CONFIG) -> SpreadHead:
    torch.manual_seed(1)
    head = SpreadHead(config)
    head.get_buffer("basis").copy_(torch.randn(config.size, config.size) / 3)
    with torch.no_grad():
        last = list(head.parameters())[-1]
        last.copy_(torch.randn(last.shape))
    return head.eval().requires_grad_(False)


def samples(head: SpreadHead, hidden: torch.Tensor, count: int) -> torch.Tensor:
    """(count, C·k²): the amplitudes that were sampled."""
    generator = generator_of(5)
    drawn = torch.cat([head.sample(hidden, generator, 4, 4) for _ in range(count)])
    return low_modes(drawn, head.config.modes).flatten(1)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_mean_and_covariance_of_the_mixture(temperature: float) -> None:
    head, hidden = head_of(replace(CONFIG, temperature=temperature)), torch.randn(1, 5, 6)
    mixture, basis = head(pool(hidden)), head.get_buffer("basis")
    weights, means, scales = mixture.log_weights[0].exp(), mixture.means[0], mixture.log_scales[0].exp()
    mean = (weights[:, None] * means).sum(0)
    apart = means - mean
    covariance = torch.einsum("k,ki,kj->ij", weights, apart, apart) + torch.diag((weights[:, None] * scales**2).sum(0))
    got = samples(head, hidden, SAMPLES)
    wanted = temperature**2 * basis @ covariance @ basis.T
    error = wanted.diagonal().sqrt() / SAMPLES**0.5
    assert ((got.mean(0) - basis @ mean).abs() < 4 * error).all()
    size = wanted.diagonal().sqrt()
    assert ((torch.cov(got.T) - wanted) / (size[:, None] * size)).abs().max() < 0.12


def test_likelihood_is_that_of_torchs_own_mixture() -> None:
    mixture = head_of()(torch.randn(4, 12))
    values = torch.randn(4, CONFIG.size)
    parts = torch.distributions.Independent(torch.distributions.Normal(mixture.means, mixture.log_scales.exp()), 1)
    other = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=mixture.log_weights), parts)
    torch.testing.assert_close(mixture.log_prob(values), other.log_prob(values))


def test_a_sample_depends_on_its_seed_alone() -> None:
    head, hidden = head_of(), torch.randn(1, 5, 6)
    one, again, other = (head.sample(hidden, generator_of(seed), 6, 4) for seed in (3, 3, 4))
    assert one.shape == (1, 2, 6, 4) and torch.equal(one, again) and not torch.equal(one, other)
    torch.testing.assert_close(from_modes(low_modes(one, 2), 6, 4), one)


def test_files_keep_a_head_in_float16(tmp_path: Path) -> None:
    head = head_of()
    assert spread_files.read(tmp_path, **SIZES) is None
    spread_files.write(tmp_path, head)
    found = spread_files.read(tmp_path, **SIZES)
    assert found is not None and found.config == CONFIG
    for name, value in found.state_dict().items():
        assert torch.equal(value, head.state_dict()[name].half().float())
    hidden = torch.randn(1, 5, 6)
    kept, first = (one.sample(hidden, generator_of(1), 4, 4) for one in (found, head))
    assert float((kept - first).abs().max()) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modes": 64}, "modes: Input should be less than or equal to 4"),
        ({"width": 10**9}, "width: Input should be less than or equal to 1024"),
        ({"components": 0}, "components"),
        ({"temperature": float("nan")}, "temperature"),
        ({"code": "os"}, "code: Extra inputs are not permitted"),
        ({"text_width": 7}, "texts of width 7, not 2 and 6"),
        ({"width": 9}, "contains other tensors than its config.json says"),
    ],
)
def test_a_config_out_of_bounds_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    spread_files.write(tmp_path, head_of())
    (tmp_path / "oms_spread/config.json").write_text(json.dumps(asdict(CONFIG) | change))
    with pytest.raises(StudioError, match="train it again with train oms --spread") as error:
        spread_files.read(tmp_path, **SIZES)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    spread_files.write(tmp_path, head_of())
    path = tmp_path / "oms_spread/model.safetensors"
    tensors = load_file(path)
    tensors["basis"][0, 0] = float("inf")
    save_file(tensors, path)
    with pytest.raises(StudioError, match="basis contains values that are not finite"):
        spread_files.read(tmp_path, **SIZES)
    path.write_bytes(b"nothing")
    with pytest.raises(StudioError, match="cannot be read as safetensors"):
        spread_files.read(tmp_path, **SIZES)


def pixels(result: GenerateResult, variant: str, index: int = 0) -> bytes:
    return next(i.image.tobytes() for i in result.images if (i.variant, i.index) == (variant, index))


def test_spread_0_is_oms_and_1_is_other_light_with_the_same_noise(studio: Studio) -> None:
    def paint(*variants: Variant, seed: int = 4) -> GenerateResult:
        studio.forget()
        request = GenerateRequest(prompt="sea", seed=seed, count=2, variants=variants, scheduler="euler-a")
        return studio.generate(request)

    first = paint(RAW, OMS, FREE, WIDE)
    for index in (0, 1):
        assert pixels(first, "free", index) == pixels(first, "oms", index) != pixels(first, "wide", index)
    again = paint(RAW, OMS, FREE, WIDE)
    assert [i.image.tobytes() for i in again.images] == [i.image.tobytes() for i in first.images]
    less = paint(RAW, OMS, FREE, WIDE.model_copy(update={"spread": 0.5}))
    for name in ("raw", "oms", "free"):
        assert pixels(less, name) == pixels(first, name), "the sample uses no noise of others"
    assert pixels(less, "wide") != pixels(first, "wide")


def test_the_sample_is_in_the_low_frequencies_of_x0(studio: Studio) -> None:
    """Of each seed its own, in proportion to the spread."""
    seen: dict[tuple[str, int], torch.Tensor] = {}
    original = CorrectionRunner.latents

    def recording(self: CorrectionRunner, job: Job) -> torch.Tensor:
        seen[job.variant.name, job.index] = self.x0(job)
        return original(self, job)

    half = Variant(name="half", correction="dial", spread=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CorrectionRunner, "latents", recording)
        studio.generate(GenerateRequest(prompt="sea", seed=4, count=2, variants=(FREE, half, WIDE)))
    added = [seen["wide", index] - seen["free", index] for index in (0, 1)]
    torch.testing.assert_close(2 * (seen["half", 0] - seen["free", 0]), added[0], atol=1e-4, rtol=1e-3)
    assert float((added[0] - added[1]).abs().max()) > 0.01
    torch.testing.assert_close(from_modes(low_modes(added[0], 3), *added[0].shape[-2:]), added[0], atol=1e-4, rtol=1e-3)
    assert float(deviation_of(seen["wide", 0], seen["free", 0], 3).abs().max()) > 0.01


def test_spread_is_refused_without_a_head_and_without_a_module(studio: Studio, base: Path, tmp_path: Path) -> None:
    alien = WIDE.model_copy(update={"module": "alien-oms", "force": True})
    with pytest.raises(StudioError, match="'alien-oms' has no spread head: train one with train oms --spread --out"):
        studio.generate(GenerateRequest(prompt="sea", seed=1, variants=(alien,)))
    studio.generate(GenerateRequest(prompt="sea", seed=1, variants=(alien.model_copy(update={"spread": 0.0}),)))
    zero = tmp_path / "zero"
    shutil.copytree(base, zero)
    path = zero / "scheduler/scheduler_config.json"
    config = json.loads(path.read_text()) | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    path.write_text(json.dumps(config))
    with pytest.raises(StudioError, match="needs an OMS module, but this schedule starts from pure noise: set it to 0"):
        studio.generate(GenerateRequest(prompt="sea", seed=1, model=str(zero), variants=(WIDE,)))


def test_a_png_restores_the_spread(studio: Studio, tmp_path: Path) -> None:
    result = png.save(studio.generate(GenerateRequest(prompt="sea", seed=1, variants=(WIDE,))), tmp_path)
    path = result.images[0].path
    assert path is not None
    restored = png.read(path, studio.catalog.entries).request
    assert restored.variants[0].spread == 1.0
    assert pixels(studio.generate(restored), "wide") == pixels(result, "wide")


def test_a_head_learns_mean_and_width_of_each_caption() -> None:
    """Of two captions, one of which has ten times the width."""
    torch.manual_seed(0)
    pooled = torch.randn(2, 12)[torch.arange(400) % 2][:, None]
    noise = torch.randn(400, 1, CONFIG.size) * 0.1
    wide = (torch.arange(400) % 2)[:, None, None].float()
    head = spread.fit(replace(CONFIG, width=64), pooled, noise * (1 + 9 * wide) + wide, steps=600)
    for k, (mean, least, most) in enumerate(((0.0, 0.05, 0.25), (1.0, 0.7, 1.3))):
        mixture = head(pooled[k])
        drawn = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=mixture.log_weights[0]),
            torch.distributions.Independent(
                torch.distributions.Normal(mixture.means[0], mixture.log_scales[0].exp()), 1
            ),
        ).sample((4_000,))
        values = drawn @ head.get_buffer("basis").T
        assert float(values.mean()) == pytest.approx(mean, abs=0.15)
        assert least < float(values.std(0).mean()) < most


def test_training_writes_a_head_beside_its_module_and_resumes(
    studio: Studio, lumen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "oms"
    shutil.copytree(lumen / "oms", module)
    shutil.rmtree(module / "oms_spread")
    arguments: dict[str, Any] = {
        "base": lumen, "out": module, "base_id": "lumen", "device": "cpu", "count": 12, "work": tmp_path / "work",
        "smoke": True,
    }  # fmt: skip
    assert spread.train(**arguments, draw=painter.draw) == module
    head = load_module(module, torch.device("cpu"), torch.float32).spread
    assert head is not None and head.config.text_width == tiny.WIDTH
    monkeypatch.setattr(spread, "_part", None)
    spread.train(**arguments, draw=painter.draw)
    with pytest.raises(StudioError, match="was not trained on the scenes that this command draws"):
        spread.train(**arguments)
    with pytest.raises(StudioError, match="contains no OMS module"):
        spread.train(**(arguments | {"out": tmp_path / "none"}))
    with pytest.raises(StudioError, match="reads prompts with the encoder of 'lumen'"):
        spread.train(**(arguments | {"base_id": "another"}))


def test_deviations_are_from_the_modules_prediction_for_its_own_encoder(lumen: Path, tmp_path: Path) -> None:
    """x0 - x̂0 in low cosines, computed here with the networks themselves."""
    from diffusers import AutoencoderKL

    from oms_app.models.text import load_encoder
    from oms_app.training.lumen import autoencoder

    where = torch.device("cpu")
    module = load_module(lumen / "oms", where, torch.float32)
    vae, encoder = AutoencoderKL.from_pretrained(lumen / "vae"), load_encoder(lumen, where, torch.float32)
    source = spread.Source(painter.draw, vae, module, encoder, 3)
    pooled, values = spread.deviations(source, tmp_path, 3)
    scenes = [painter.draw(seed) for seed in range(3)]
    x0 = autoencoder.encode(vae, np.stack([scene.image for scene in scenes]))
    hidden = encoder.encode([scene.captions[1] for scene in scenes])
    torch.testing.assert_close(pooled[:, 1], pool(hidden), atol=1e-5, rtol=1e-4)
    predicted = torch.stack(
        [-module.predict(torch.randn(64, *x0.shape[1:]), h.expand(64, -1, -1)).mean(0) for h in hidden]
    )
    # The random network hears its noise, so its predictions agree only on average.
    assert float((values[:, 1] - deviation_of(x0, predicted, 3)).abs().mean()) < 0.1 * float(values.abs().mean()) + 0.05
