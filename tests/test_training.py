"""Tiny training runs, from nothing to a folder that diffusers loads by itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from oms_app.models import domain as domains
from oms_app.models.loading import OWN_ENCODER, load_module, load_statistics
from oms_app.models.text import load_encoder
from oms_app.prestep.unet import TimeFreeUNet
from oms_app.training import oms
from oms_app.training import signal_leak as leak
from oms_app.training.lumen import autoencoder, dataset, denoiser, recipe
from oms_app.training.lumen import stages as lumen
from oms_app.training.lumen import text_encoder as words
from oms_app.training.scenes import captions
from oms_app.training.scenes import painter as scenes


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    lumen.train(out=folder / "lumen", smoke=True, device="cpu", work=folder / "work")
    small: dict[str, Any] = {"base": folder / "lumen", "smoke": True, "device": "cpu", "work": folder / "work"}
    oms.train(out=folder / "lumen/oms", **small)
    oms.train(out=folder / "lumen/singdiffusion", kind="singdiffusion", **small)
    leak.train(out=folder / "lumen/signal_leak", **small)
    return folder


def test_the_whole_family_is_made_and_loads_without_our_code(family: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(family / "lumen", local_files_only=True)
    assert {str(p.dtype) for p in pipeline.text_encoder.parameters()} == {"torch.float32"}
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a red circle", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert picture.size == (scenes.SIZE, scenes.SIZE)
    alphas = pipeline.scheduler.alphas_cumprod
    assert float(alphas[-1].sqrt()) == pytest.approx(0.068265, abs=1e-5)  # SD's flaw (OMS, Eq. 12)
    domain = domains.read(family / "lumen" / "oms")
    encoder = load_encoder(family / "lumen" / "oms", torch.device("cpu"), torch.float32)
    assert encoder.encode(["a red circle"]).shape == (1, 32, recipe.SMOKE.text_width)
    assert domain is not None and domain.fingerprint is not None
    assert domains.same(domains.fingerprint(pipeline.vae), domain.fingerprint)
    module = TimeFreeUNet.from_pretrained(family / "lumen" / "oms" / "oms_module")
    assert module(torch.randn(1, 4, 32, 32), torch.randn(1, 8, module.config.cross_attention_dim)).shape == (
        1,
        4,
        32,
        32,
    )


def test_from_starts_from_the_weights_given_and_keeps_the_autoencoder(family: Path, tmp_path: Path) -> None:
    lumen.train(
        out=tmp_path / "next",
        smoke=True,
        device="cpu",
        work=tmp_path / "work",
        start_from=family / "lumen",
        stage="unet",
    )
    first, second = (
        StableDiffusionPipeline.from_pretrained(f, local_files_only=True) for f in (family / "lumen", tmp_path / "next")
    )
    assert dataset.vae_key(first.vae) == dataset.vae_key(second.vae)
    a, b = (torch.cat([p.flatten() for p in pipe.unet.parameters()]) for pipe in (first, second))
    assert a.shape == b.shape and not torch.equal(a, b)
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.99  # two steps away, not drawn anew


def test_a_unet_is_trained_from_a_folder_without_one(family: Path, tmp_path: Path) -> None:
    """The autoencoder and the text encoder stay, bit for bit."""
    start = tmp_path / "start"
    shutil.copytree(family / "lumen", start, ignore=shutil.ignore_patterns("unet"))
    out = lumen.train(
        out=tmp_path / "out", stage="unet", start_from=start, smoke=True, device="cpu", work=tmp_path / "work"
    )
    for part in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (out / part).read_bytes() == (start / part).read_bytes()
    assert StableDiffusionPipeline.from_pretrained(out, local_files_only=True).unet is not None


def test_an_unknown_stage_and_a_missing_autoencoder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'paint' is unknown: choose one of autoencoder"):
        lumen.train(out=tmp_path / "x", stage="paint", smoke=True, work=tmp_path)
    with pytest.raises(ValueError, match="needs an autoencoder"):
        lumen.train(out=tmp_path / "x", stage="latents", smoke=True, work=tmp_path)


class Text(torch.nn.Module):
    """Stands in for an encoder: what it is given is its answer."""

    def forward(self, tokens: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=tokens)


class Spy(torch.nn.Module):
    """Stands in for a UNet: keeps what it was given last."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, hidden: torch.Tensor) -> SimpleNamespace:
        self.x, self.t = x, t
        return SimpleNamespace(sample=torch.zeros_like(x))


def test_a_quarter_of_the_timesteps_are_those_of_the_first_steps() -> None:
    torch.manual_seed(0)
    t = torch.stack([denoiser.spread_timesteps(32, 1000) for _ in range(200)])
    assert t.dtype == torch.int64 and t.min() >= 0 and t.max() == 999
    assert ((t >= 900).sum(1) >= 8).all() and ((t >= 900).sum(1) <= 12).all(), "8 of 32, and a tenth of the others"
    tenths = torch.histc(t.float(), 10, 0, 1000) / t.numel()
    assert 0.03 < tenths[0] < tenths[4] < tenths[8] < 0.1, "nearly clean latents come less often"
    assert 0 <= denoiser.spread_timesteps(1, 1000).item() < 1000


def test_timesteps_come_in_random_order() -> None:
    """A batch's first pictures are those whose ground is named; they must not have the noisiest timesteps alone."""
    torch.manual_seed(0)
    t = torch.stack([denoiser.spread_timesteps(30, 1000) for _ in range(200)]).float()
    assert float(t[:, :10].mean()) == pytest.approx(float(t[:, 10:].mean()), rel=0.05)


def test_a_share_of_each_batch_names_the_ground(family: Path) -> None:
    facts = [
        captions.Facts("solid", ground="red"),
        captions.Facts("landscape", "sea"),
        captions.Facts("shape", "star", "teal"),
    ]
    said = [["a wall", "solid crimson background"], ["red sea"], ["star", "star on turquoise"]]
    encoded = dataset.EncodedScenes(np.zeros((3, 4, 32, 32), np.float16), said, facts)
    tokenizer = StableDiffusionPipeline.from_pretrained(family / "lumen", local_files_only=True).tokenizer
    batch = next(dataset.unet_batches(encoded, tokenizer, lambda: 12, torch.device("cpu"), (0,), 0.5))
    assert batch["named"].tolist() == [True] * 6 + [False] * 6
    read = tokenizer.batch_decode(batch["tokens"], skip_special_tokens=True)
    assert {text.strip() for text in read[:6]} == {"solid crimson background", "star on turquoise"}
    assert set(batch["scenes"][:6].tolist()) == {0, 2}


def test_the_noise_of_named_grounds_has_a_mean_of_its_own_at_first() -> None:
    assert [denoiser.offset_strength(u) for u in (0.0, 0.2, 0.5, 1.0)] == [denoiser.OFFSET, denoiser.OFFSET, 0.0, 0.0]
    spy = Spy()
    models = torch.nn.ModuleDict({"unet": spy, "text": Text()})
    named = torch.arange(200) < 100
    batch = {"latents": torch.zeros(200, 4, 32, 32), "tokens": torch.zeros(200, 1), "named": named}
    denoiser.unet_loss(models, batch, recipe.scheduler().alphas_cumprod[-10:], offset=0.1)
    spread = [float(spy.x[part].mean((2, 3)).std()) for part in (named, ~named)]
    assert spread == pytest.approx([(0.1**2 + 1 / 32**2) ** 0.5, 1 / 32], rel=0.15)


@torch.no_grad()
def test_reading_knows_a_right_answer_from_a_wrong_one() -> None:
    """The loss of a reader that knows every fact is small, that of one that knows nothing is not."""
    facts = [captions.Facts("shape", "star", ground) for ground in ("red", "blue")]
    reading = words.Reading(facts, np.zeros((2, 4, 8, 8), np.float16), 2, end_token=9)
    hidden = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).expand(2, 3, 2)
    ids, index = torch.tensor([[8, 1, 9], [8, 2, 9]]), torch.tensor([0, 1])
    unknown = float(reading(torch.zeros(2, 3, 2), ids, index))
    ground = list(words._answers(facts)).index("ground")
    weights = reading.state_dict()
    for value in weights.values():
        value.zero_()
    weights[f"heads.{ground}.weight"].copy_(torch.tensor([[-9.0, 9.0], [9.0, -9.0]]))  # its classes: blue, red
    assert float(reading(hidden, ids, index)) < 0.001 < unknown
    assert float(reading(hidden, ids, index.flip(0))) > 1


@torch.no_grad()
def test_reading_predicts_the_light_of_a_scene() -> None:
    latents = np.ones((2, 4, 8, 8), np.float16) * np.array([3, -3], np.float16)[:, None, None, None]
    reading = words.Reading([captions.Facts("solid")] * 2, latents, 2, end_token=9)
    for value in reading.state_dict().values():
        value.zero_()
    ids, index = torch.tensor([[8, 9]] * 2), torch.tensor([0, 1])
    hidden = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]]).expand(2, 2, 2)
    assert float(reading(hidden, ids, index)) == pytest.approx(9 * words.COARSE_WEIGHT)
    reading.state_dict()["grid.weight"][:, 0] = 3.0
    assert float(reading(hidden, ids, index)) == pytest.approx(0.0, abs=1e-6)


def test_the_text_encoder_stays_as_it_is_beside_the_unet(family: Path, tmp_path: Path) -> None:
    out = lumen.train(
        out=tmp_path / "next",
        smoke=True,
        device="cpu",
        work=tmp_path / "work",
        start_from=family / "lumen",
        stage="unet",
    )
    first, second = (lumen.load(folder).text_encoder for folder in (family / "lumen", out))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_weight_is_that_of_v_prediction_between_its_caps() -> None:
    snr = torch.tensor([1e-4, 0.5, 5.0, 500.0])
    assert denoiser.unet_weight(snr).tolist() == pytest.approx(
        [denoiser.NOISY_WEIGHT, 3.0, 1.2, 1.002 * 0.01], rel=1e-3
    )


def test_an_error_of_light_weighs_more_than_one_of_detail() -> None:
    """Of equal power; most of all at high noise, where the picture's light is decided."""
    errors = {
        "light": torch.ones(1, 4, 32, 32),
        "detail": torch.ones(1, 4, 32, 32) * (-1.0) ** torch.arange(32),
    }

    class Wrong(torch.nn.Module):
        def __init__(self, error: torch.Tensor, alphas: torch.Tensor) -> None:
            super().__init__()
            self.error, self.alphas = error, alphas

        def forward(self, x: torch.Tensor, t: torch.Tensor, hidden: torch.Tensor) -> SimpleNamespace:
            noise = x / (1 - self.alphas[t].view(-1, 1, 1, 1)).sqrt()  # the latents are zeros
            return SimpleNamespace(sample=noise + self.error)

    alphas = recipe.scheduler().alphas_cumprod
    batch = {"latents": torch.zeros(50, 4, 32, 32), "tokens": torch.zeros(50, 1)}
    ratios = {}
    for when, schedule in (("all", alphas), ("high noise", alphas[-100:])):
        losses = {}
        for kind, error in errors.items():
            models = torch.nn.ModuleDict({"unet": Wrong(error, schedule), "text": Text()})
            torch.manual_seed(0)
            losses[kind] = denoiser.unet_loss(models, batch, schedule, strength=2.0).item()
        ratios[when] = losses["light"] / losses["detail"]
    assert 2 < ratios["all"] < ratios["high noise"]
    assert ratios["high noise"] > 5


def test_errors_at_the_border_weigh_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "EDGE_WEIGHT", 0.0)
    true = torch.zeros(1, 3, 64, 64)
    inside, border = true.clone(), true.clone()
    inside[..., 20:28, :32] = 0.5
    border[..., :8, :32] = 0.5
    none = autoencoder.distance(true, true)
    gain = (autoencoder.distance(border, true) - none) / (autoencoder.distance(inside, true) - none)
    weight = autoencoder.BORDER_WEIGHT
    assert float(gain) == pytest.approx(32 * weight / (8 * weight + 24), rel=1e-3)  # 8 columns of `inside` lie in it


def test_a_blurred_edge_costs_more_than_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two errors of the same size, one that changes from pixel to pixel costs more than a flat one."""
    true = torch.zeros(1, 3, 64, 64)
    flat = true + 0.1
    striped = true + 0.1 * (-1.0) ** torch.arange(64)
    costs = {name: float(autoencoder.distance(made, true)) for name, made in (("flat", flat), ("striped", striped))}
    monkeypatch.setattr(autoencoder, "EDGE_WEIGHT", 0.0)
    assert float(autoencoder.distance(flat, true)) == pytest.approx(float(autoencoder.distance(striped, true)))
    assert costs["striped"] > 1.5 * costs["flat"]


def test_every_second_latent_is_decoded_with_more_noise() -> None:
    torch.manual_seed(0)
    noise = autoencoder._noisy(torch.zeros(400, 4, 8, 8)).std((1, 2, 3))
    assert noise[::2].numpy() == pytest.approx(autoencoder.NOISE, rel=0.3)
    assert 0.3 < float(noise[1::2].max()) < 0.5 and float(noise[1::2].mean()) > 0.15


def test_a_timestep_hides_as_much_of_small_latents_as_of_whole_ones() -> None:
    """Averaged 2 × 2 and twice as strong, latents of a flat picture have the same SNR of their mean."""
    spy = Spy()
    models = torch.nn.ModuleDict({"unet": spy, "text": Text()})
    alphas = recipe.scheduler().alphas_cumprod
    batch = {"latents": torch.full((50, 4, 32, 32), 1.0), "tokens": torch.zeros(50, 1)}
    found = []
    for factor in (1, 2):
        torch.manual_seed(0)
        denoiser.unet_loss(models, batch, alphas, factor)
        means = spy.x.mean((2, 3))
        clean = int(spy.t.argmin())
        found.append(float(means[clean].mean() / (1 - alphas[spy.t[clean]]).sqrt()) * spy.x.shape[-1])
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_normalised_latents_decode_to_the_same_pictures() -> None:
    torch.manual_seed(1)
    vae = autoencoder.build((8, 8, 16, 16)).eval()
    pictures = np.stack([scenes.draw(s).image for s in range(3)])
    x = autoencoder.to_tensor(pictures)
    with torch.no_grad():
        before = vae.decode(vae.encode(x).latent_dist.mean).sample
        autoencoder.normalise(vae, pictures)
        posterior = vae.encode(x).latent_dist
        after = vae.decode(posterior.mean).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(posterior.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(posterior.mean.std((0, 2, 3)), torch.ones(4), atol=1e-3)
    assert vae.config.scaling_factor == autoencoder.SCALING


def test_every_stage_is_given_the_same_tokenizer(tmp_path: Path) -> None:
    first, again = (words.kept_tokenizer(scenes.VOCABULARY, tmp_path / "kept") for _ in range(2))
    assert first.get_vocab() == again.get_vocab()


def test_the_tokenizer_has_one_token_a_word_and_survives_the_disk(tmp_path: Path) -> None:
    tokenizer = words.build_tokenizer(scenes.VOCABULARY)
    assert all(len(tokenizer(w).input_ids) == 3 for w in scenes.VOCABULARY)
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    text = "A Red circle, moonlit; zebra 9"
    assert again(text).input_ids == tokenizer(text).input_ids
    assert tokenizer.eos_token_id not in tokenizer("zebra").input_ids[1:-1]


def test_the_oms_target_is_minus_the_clean_latent() -> None:
    """A network that answers -x0 has no loss: v at SNR 0 (Eq. 8)."""
    x0 = torch.randn(2, 4, 8, 8)

    class Perfect(torch.nn.Module):
        def forward(self, latents: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
            return -x0

    class Text(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=torch.zeros(2, 3, 8))

    batch = {"latents": x0, "tokens": torch.zeros(2, 3, dtype=torch.long)}
    assert oms.oms_loss(torch.nn.ModuleDict({"oms": Perfect(), "text": Text()}), batch).item() == pytest.approx(
        0.0, abs=1e-6
    )


def test_an_oms_run_resumes(family: Path, tmp_path: Path) -> None:
    """A time-free UNet names its weights as the published file does; a checkpoint of it must load again."""
    again = oms.train(base=family / "lumen", out=tmp_path / "oms", smoke=True, device="cpu", work=family / "work")
    first, second = (TimeFreeUNet.from_pretrained(f / "oms_module") for f in (family / "lumen" / "oms", again))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_other_remedies_are_made_for_the_same_domain(family: Path) -> None:
    device = torch.device("cpu")
    statistics = load_statistics(family / "lumen/signal_leak")
    assert statistics.leak.mean.shape == (4, 4, 4) and statistics.leak.factor.shape == (64, 64)
    module = load_module(family / "lumen/singdiffusion", device, torch.float32, "singdiffusion")
    assert module.encoder_name == OWN_ENCODER  # as OMS has it, so that the two differ in their method alone
    assert load_encoder(family / "lumen/singdiffusion", device, torch.float32).encode(["sea"]).shape[1] == 32
    own = domains.read(family / "lumen/oms")
    assert own is not None
    for other in (statistics.domain, module.domain):
        assert other is not None and other.fingerprint == own.fingerprint


def test_singdiffusion_learns_the_clean_latent() -> None:
    x0 = torch.randn(2, 4, 8, 8)

    class Perfect(torch.nn.Module):
        def forward(self, latents: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
            return x0

    class Text(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=torch.zeros(2, 3, 8))

    models = torch.nn.ModuleDict({"singdiffusion": Perfect(), "text": Text()})
    batch = {"latents": x0, "tokens": torch.zeros(2, 3, dtype=torch.long)}
    assert oms.oms_loss(models, batch, kind="singdiffusion").item() == 0.0
