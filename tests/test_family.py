"""Lumen's family at tiny size: each member is trained, loaded by diffusers alone, and paints."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file

from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.models import domain as domains
from oms_app.models.catalog import Catalog
from oms_app.schema import RAW, GenerateRequest
from oms_app.training.lumen import family, gpu_recipe, recipe
from oms_app.training.lumen import stages as lumen
from oms_app.training.lumen.autoencoder import GUIDE, colours, loss
from oms_app.training.scenes import painter as scenes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    return lumen.train(out=folder / "lumen", smoke=True, device="cpu", work=folder / "work")


def train(base: Path, stage: str, **more: Any) -> Path:
    """All members share the base's latents."""
    out, work = base.with_name(f"lumen-{stage}"), base.with_name("work")
    return lumen.train(out=out, stage=stage, start_from=base, smoke=True, device="cpu", work=work, **more)


def paint(pipeline: StableDiffusionPipeline, steps: int, guidance_scale: float) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    made = pipeline("a red circle", num_inference_steps=steps, guidance_scale=guidance_scale, generator=generator)
    return np.asarray(made.images[0])


@pytest.mark.parametrize("member", family.FAMILY)
def test_a_member_is_a_lora_that_diffusers_loads(base: Path, member: family.Member) -> None:
    out = train(base, member)
    config = DDIMScheduler.load_config(out / "scheduler")
    pipeline = lumen.load(base)
    pipeline.scheduler = (LCMScheduler if member == "lcm" else DDIMScheduler).from_config(config)
    before = paint(pipeline, 4, 1.0)
    pipeline.load_lora_weights(out, weight_name="pytorch_lora_weights.safetensors", local_files_only=True)
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.float32}
    after = paint(pipeline, 4, 1.0)
    assert before.shape == (scenes.SIZE, scenes.SIZE, 3) and not np.array_equal(before, after)


def test_a_member_needs_a_base(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stage 'lcm' starts from a finished Lumen: give --from"):
        lumen.train(out=tmp_path / "x", stage="lcm", smoke=True, work=tmp_path)


def test_each_member_has_the_schedule_that_it_was_trained_on() -> None:
    for member in family.FAMILY:
        config = family.scheduler_config(member)
        made = (LCMScheduler if member == "lcm" else DDIMScheduler).from_config(config)
        assert torch.allclose(made.alphas_cumprod, family.alphas_of(member), atol=1e-6), member
        assert made.config.prediction_type == ("v_prediction" if member in ("v", "zsnr") else "epsilon")
    assert family.alphas_of("zsnr")[-1] == 0 and family.alphas_of("v")[-1] > 0


def test_the_boundary_is_that_of_the_scheduler() -> None:
    scheduler = LCMScheduler.from_config(family.scheduler_config("lcm"))
    for t in (0, 19, 999):
        skip, out = family.boundary_scalings(torch.tensor([t]))
        expected = scheduler.get_scalings_for_boundary_condition_discrete(torch.tensor(float(t)))
        assert (float(skip), float(out)) == pytest.approx([float(value) for value in expected], rel=1e-5)


class Exact(torch.nn.Module):
    """ε of the only picture there is."""

    def __init__(self, x0: torch.Tensor, alphas: torch.Tensor, shift: float = 0.0) -> None:
        super().__init__()
        self.x0, self.alphas, self.shift = x0, alphas, shift

    def forward(self, x: torch.Tensor, t: torch.Tensor, hidden: torch.Tensor) -> SimpleNamespace:
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        x0 = self.x0[:1] + self.shift * (t.view(-1, 1, 1, 1) / 999)
        return SimpleNamespace(sample=(x - alpha.sqrt() * x0) / (1 - alpha).sqrt())


class Text(torch.nn.Module):
    def forward(self, tokens: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=torch.zeros(len(tokens), 3, 8))


def test_a_student_that_is_consistent_has_no_loss() -> None:
    """If every x_t leads to one picture, the function that gives it everywhere is the answer; one that drifts with t
    is not."""
    torch.manual_seed(0)
    alphas = family.alphas_of("lcm")
    x0 = torch.randn(1, 4, 8, 8).expand(16, 4, 8, 8)
    batch = {"latents": x0, "tokens": torch.zeros(16, 3, dtype=torch.long)}
    losses = {}
    for name, shift in (("consistent", 0.0), ("drifting", 5.0)):
        models = torch.nn.ModuleDict({"unet": Exact(x0, alphas, shift), "teacher": Exact(x0, alphas), "text": Text()})
        losses[name] = float(family.consistency_loss(models, batch, alphas, torch.zeros(1, 3, dtype=torch.long)))
    assert losses["consistent"] < 0.01 < 0.03 < losses["drifting"]


def test_a_woodcut_has_two_tones() -> None:
    picture = scenes.draw(3, kind="figure", subject="tree", ground="white", colour="green", side="").image
    made = family.woodcut(picture).astype(float)
    near = [np.abs(made - tone).max(-1) < 2 for tone in (family.INK, family.PAPER)]
    assert made.shape == picture.shape
    assert min(part.mean() for part in near) > 0.05 and (near[0] | near[1]).mean() > 0.9


def test_lumen_b_has_another_latent_domain_and_the_same_text_encoder(base: Path, tmp_path: Path) -> None:
    out = lumen.train(
        out=tmp_path / "lumen-b", stage="b", start_from=base, smoke=True, device="cpu", work=tmp_path / "work"
    )
    first, second = lumen.load(base), lumen.load(out)
    assert not domains.same(domains.fingerprint(first.vae), domains.fingerprint(second.vae))
    mine, theirs = first.text_encoder.parameters(), second.text_encoder.parameters()
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert paint(second, 2, 5.0).shape == (scenes.SIZE, scenes.SIZE, 3)


def test_the_guide_says_which_channel_holds_which_colour() -> None:
    """Latents that are right for one guide are wrong for the other."""
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1

    class Ideal(torch.nn.Module):
        """Encodes as `guide` asks, and decodes the picture whatever it is given."""

        def __init__(self, guide: tuple[tuple[int, float], ...]) -> None:
            super().__init__()
            self.free = torch.nn.Parameter(torch.zeros(1))
            self.guide = guide

        def encode(self, x: torch.Tensor) -> SimpleNamespace:
            from oms_app.training.lumen.autoencoder import COLOUR_STD

            mean = self.free + torch.ones(2, 4, 4, 4)
            for (channel, sign), std, colour in zip(self.guide, COLOUR_STD, colours(x).unbind(1), strict=True):
                mean[:, channel] = sign * colour / std
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean))

        def decode(self, z: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=pictures)

    for mine, other in ((GUIDE, recipe.OTHER_GUIDE), (recipe.OTHER_GUIDE, GUIDE)):
        models = torch.nn.ModuleDict({"vae": Ideal(mine)})
        right, wrong = (float(loss(models, {"pictures": pictures}, guide).detach()) for guide in (mine, other))
        assert wrong > right + 0.01


@pytest.mark.slow
def test_the_gpu_recipe_makes_everything_in_its_parts(tmp_path: Path) -> None:
    """The same code on the CPU at tiny size: every part leaves what it says, in float16, and the next one needs it."""
    out = tmp_path / "lumen"
    written = [folder for part in gpu_recipe.PARTS for folder in gpu_recipe.run(part, out, device="cpu", smoke=True)]
    assert {out / "oms", out / "singdiffusion", out / "signal_leak"} <= set(written)
    assert {out.with_name(f"lumen-{name}") for name in (*family.FAMILY, "b")} <= set(written)
    kept = [path for path in tmp_path.rglob("*.safetensors") if not any("-work" in part for part in path.parts)]
    assert len(kept) > 12
    for path in kept:
        floating = [value for value in load_file(path).values() if value.is_floating_point()]
        if path.name != "statistics.safetensors":
            assert {value.dtype for value in floating} == {torch.float16}, path
    assert paint(lumen.load(out), 2, 5.0).shape == (scenes.SIZE, scenes.SIZE, 3)


def test_the_gpu_recipe_stays_within_eight_minutes_a_part() -> None:
    """Of training alone; a minute and a half is left for the rest, three and a half where scenes are drawn."""
    spent = {part: sum(gpu_recipe.MINUTES.get(name, 0.0) for name in names) for part, names in gpu_recipe.PARTS.items()}
    assert spent[1] <= 4.5 and spent[2] <= 6.5 and spent[3] <= 6.5


def test_a_gpu_takes_the_same_recipe_in_larger_sizes() -> None:
    cpu, gpu = (recipe.recipe_for(torch.device(name), smoke=False) for name in ("cpu", "cuda"))
    assert gpu.many == 16 and gpu.scenes > cpu.scenes and gpu.rate > cpu.rate
    assert (gpu.unet_widths, gpu.autoencoder_widths, gpu.growth) == (
        cpu.unet_widths, cpu.autoencoder_widths, cpu.growth,
    )  # fmt: skip


def catalogue(base: Path, tmp_path: Path, member: family.Member, **more: Any) -> Catalog:
    """A catalogue of the smoke model and of one member that adapts it."""
    sampling = {"width": 256, "height": 256, "num_inference_steps": 4, "guidance_scale": 1.0}
    entry = {"kind": "base", "title": "x", "defaults": sampling}
    presets = tmp_path / "presets/models"
    presets.mkdir(parents=True)
    (presets / "base.json").write_text(json.dumps({**entry, "id": "base", "folder": str(base)}))
    adapted = {**entry, "id": "adapted", "folder": str(base.with_name(f"lumen-{member}")), "adapts": "base", **more}
    (presets / "adapted.json").write_text(json.dumps(adapted))
    return Catalog(presets, home=tmp_path)


@pytest.mark.parametrize("member", ["v", "zsnr"])
def test_a_base_that_is_stored_as_a_lora_is_a_model_of_its_own(
    base: Path, member: family.Member, tmp_path: Path
) -> None:
    """The same pictures as diffusers' own with the LoRA loaded beside it, and the base itself is unchanged."""
    out = train(base, member)
    studio = Studio(catalog=catalogue(base, tmp_path, member))
    request = GenerateRequest(prompt="a red circle", seed=0, model="adapted", variants=(RAW,))
    alone = np.asarray(studio.generate(request.model_copy(update={"model": "base"})).images[0].image)
    made = np.asarray(studio.generate(request).images[0].image)
    again = np.asarray(studio.generate(request.model_copy(update={"model": "base"})).images[0].image)
    assert np.array_equal(alone, again) and not np.array_equal(alone, made)

    pipeline = lumen.load(base)
    pipeline.scheduler = DDIMScheduler.from_config(DDIMScheduler.load_config(out / "scheduler"))
    pipeline.load_lora_weights(out, weight_name="pytorch_lora_weights.safetensors", local_files_only=True)
    assert np.abs(made.astype(int) - paint(pipeline, 4, 1.0)).max() <= 1
    assert studio.unknown_words("adapted", "a red xyzzy") == ("xyzzy",)


def test_an_entry_that_adapts_nothing_whole_is_refused(base: Path, tmp_path: Path) -> None:
    train(base, "v")
    with pytest.raises(StudioError, match="'adapted' adapts 'nothing', which is not a whole base of the catalogue"):
        catalogue(base, tmp_path, "v", adapts="nothing")
    with pytest.raises(StudioError, match="only a base in a folder can adapt another base"):
        catalogue(base, tmp_path / "other", "v", adapts="adapted")


def test_a_member_without_its_base_or_its_lora_is_not_available(base: Path, tmp_path: Path) -> None:
    train(base, "v")
    entries = catalogue(base, tmp_path, "v", folder=str(tmp_path / "empty"))
    assert not entries.available(entries.entries["adapted"])
    with pytest.raises(StudioError, match="the files of 'adapted' are not at"):
        entries.find("adapted", "base")
