"""Lumen, the embedded base model, from scratch: `python -m oms_app train lumen`.

Stages, each resumable: autoencoder (256 px ↔ 4×32×32 latents) → latents (scenes drawn and encoded, once) → text (the
text encoder learns to read captions, then stays as it is) → unet (ε-prediction on SD's schedule, flaw and all) →
decoder (sharper pictures from the same latents; the encoder stays) → export (a StableDiffusionPipeline folder).
The family's stages start from a finished Lumen (`--from`): see `family`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from oms_app.paths import atomic_path, atomic_write
from oms_app.training.loop import Batch, Plan, State, grown, pick_device
from oms_app.training.loop import train as train_loop
from oms_app.training.lumen import autoencoder, family, text_encoder
from oms_app.training.lumen.dataset import EncodedScenes, draw_pictures, encode_scenes, unet_batches, unseen_pictures
from oms_app.training.lumen.denoiser import offset_strength, unet_loss
from oms_app.training.lumen.family import FAMILY, Member
from oms_app.training.lumen.recipe import (
    HELD_OUT,
    MINUTES,
    NAMED_SHARE,
    Recipe,
    build_unet,
    other,
    recipe_for,
    scheduler,
)
from oms_app.training.scenes import painter as scenes

log = logging.getLogger(__name__)
OWN_STAGES = ("autoencoder", "latents", "text", "unet", "decoder", "export")
OTHER_DOMAIN = "b"  # a whole model of its own, but for the text encoder
STAGES = (*OWN_STAGES, *FAMILY, OTHER_DOMAIN)


def work_folder(model: Path, smoke: bool) -> Path:
    """The folder of a model's checkpoints, scenes and latents: beside its own."""
    return model.with_name(model.name + ("-smoke-work" if smoke else "-work"))


def load(folder: Path) -> StableDiffusionPipeline:
    """A pipeline folder in float32, whose parts are trained further. Without a folder `unet` it has no UNet yet."""
    absent = {} if (folder / "unet").is_dir() else {"unet": None}
    return StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, local_files_only=True, use_safetensors=True, **absent
    ).to(torch.float32)


@dataclass(frozen=True)
class StageRun:
    """What every stage of one call of `train` shares. stage: the only one wanted, None for all."""

    work: Path
    recipe: Recipe
    processes: PartialState
    device: str
    minutes: float | None
    stage: str | None
    started: StableDiffusionPipeline | None  # finished weights to start from
    smoke: bool
    text_of: StableDiffusionPipeline | None = None  # whose text encoder to take, if nothing else is taken from it

    def wants(self, *stages: str) -> bool:
        return self.stage is None or self.stage in stages

    def plan(self, name: str, **more: Any) -> Plan:
        more["learning_rate"] *= self.recipe.rate
        return Plan(minutes=self.minutes or MINUTES[name], steps=2 if self.smoke else None, **more)

    def pictures(self) -> np.ndarray:
        with self.processes.main_process_first():
            return draw_pictures(self.work, self.recipe.pictures)

    def scenes(self, vae: AutoencoderKL) -> EncodedScenes:
        with self.processes.main_process_first():
            return encode_scenes(vae, self.work, self.recipe.scenes, self.device)

    def keep(self, save: Callable[[], object]) -> None:
        """Have the main process write something that the others will read."""
        if self.processes.is_main_process:
            save()
        self.processes.wait_for_everyone()


def train(
    *,
    out: Path,
    stage: str | None = None,
    device: str = "auto",
    minutes: float | None = None,
    start_from: Path | None = None,
    smoke: bool = False,
    work: Path | None = None,
) -> Path:
    """Make Lumen, or one stage of it, and write it to `out`, a StableDiffusionPipeline folder. Returns `out`.

    minutes: the budget of the stage, or of each stage that trains, over all runs with the same work folder.
    work: checkpoints, scenes and latents; None puts them beside `out`.
    start_from: a Lumen folder, with or without a UNet, whose weights the first run starts from. Its autoencoder and
    its text encoder are kept unless their stages are asked for by name, because latents and the OMS module depend on
    them. A stage of the family needs it.
    Raises ValueError for an unknown stage, and for one without the weights that it starts from.
    """
    if stage is not None and stage not in STAGES:
        raise ValueError(f"stage {stage!r} is unknown: choose one of {', '.join(STAGES)}")
    if stage is not None and stage not in OWN_STAGES and start_from is None:
        raise ValueError(f"stage {stage!r} starts from a finished Lumen: give --from FOLDER")
    torch.manual_seed(0)
    run = StageRun(
        work=work or work_folder(out, smoke),
        recipe=recipe_for(pick_device(device), smoke),
        processes=PartialState(cpu=pick_device(device).type == "cpu"),
        device=device,
        minutes=minutes,
        stage=stage,
        started=load(start_from) if start_from else None,
        smoke=smoke,
    )
    run.work.mkdir(parents=True, exist_ok=True)
    if stage in FAMILY:
        return _family(run, stage, out)
    if stage == OTHER_DOMAIN:
        run = replace(run, stage=None, started=None, text_of=run.started, recipe=other(run.recipe, smoke))
    return _own_stages(run, out)


def _own_stages(run: StageRun, out: Path) -> Path:
    stage = run.stage
    vae = _autoencoder(run)
    if stage == "autoencoder":
        return run.work / "vae"
    encoded = run.scenes(vae) if run.wants("latents", "text", "unet") else None
    if encoded is not None:  # m2 of the paper's Table 1, which the catalogue's entry holds
        log.info("latents: second moment %.4f", np.square(encoded.latents, dtype=np.float32).mean())
    if stage == "latents":
        return run.work
    tokenizer, text = _text_encoder(run, encoded)
    if stage == "text":
        return run.work
    unet = _unet(run, vae, tokenizer, text, encoded)
    if run.wants("decoder"):
        vae = _decoder(run, vae)
    if run.processes.is_main_process:
        export(out, vae, text, tokenizer, unet)
    return out


def _autoencoder(run: StageRun) -> AutoencoderKL:
    """The one in the work folder, else the one started from; trained if it is asked for, or there is neither."""
    kept = run.work / "vae"
    if run.stage == "autoencoder" or (run.stage is None and not kept.exists() and run.started is None):
        vae = run.started.vae if run.started else autoencoder.build(run.recipe.autoencoder_widths)
        plan = run.plan("autoencoder", learning_rate=1.5e-3, decay=0.5, muon=True, warmup=0.02)
        recipe = run.recipe
        vae = autoencoder.train_autoencoder(
            vae, run.pictures(), plan, recipe.autoencoder_crops, work=run.work, device=run.device, many=recipe.many,
            guide=recipe.guide,
        )  # fmt: skip
        _keep_autoencoder(run, vae)
    if kept.exists():
        return AutoencoderKL.from_pretrained(kept)
    if run.started:
        return run.started.vae
    raise ValueError(
        f"stage {run.stage!r} needs an autoencoder: run the stage 'autoencoder' first, or give --from FOLDER"
    )


def _decoder(run: StageRun, vae: AutoencoderKL) -> AutoencoderKL:
    """The same autoencoder with its decoder trained further."""
    plan = run.plan("decoder", learning_rate=1e-3, muon=True)
    crops, many = run.recipe.decoder_crops, run.recipe.many
    vae = autoencoder.train_decoder(vae, run.pictures(), plan, crops, work=run.work, device=run.device, many=many)
    _keep_autoencoder(run, vae)
    return vae


def _keep_autoencoder(run: StageRun, vae: AutoencoderKL) -> None:
    def save() -> None:
        vae.save_pretrained(run.work / "vae")
        quality = autoencoder.psnr(vae, unseen_pictures(4 if run.smoke else 128))
        log.info(
            "autoencoder: %.2f dB PSNR on %d unseen scenes (median %.2f dB)",
            quality.mean(), len(quality), np.median(quality),
        )  # fmt: skip

    run.keep(save)


def _text_encoder(run: StageRun, encoded: EncodedScenes | None) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """The one in the work folder, else the one started from; it learns to read captions if that stage is asked for, or
    if nothing is started from and none was kept."""
    weights = run.work / "text-ema.pt"
    if run.text_of:
        return run.text_of.tokenizer, run.text_of.text_encoder.requires_grad_(False)
    if run.started:
        tokenizer, text = run.started.tokenizer, run.started.text_encoder
    else:
        with run.processes.main_process_first():
            tokenizer = text_encoder.kept_tokenizer(scenes.VOCABULARY, run.work / "tokenizer")
        text = text_encoder.build_text_encoder(tokenizer, run.recipe.text_width, run.recipe.text_layers)
    if weights.exists() and run.stage != "text":
        text.load_state_dict(torch.load(weights, weights_only=True))
    elif encoded is not None and (run.stage == "text" or (run.stage is None and run.started is None)):
        plan, batch = run.plan("text", learning_rate=1e-3), 128 * run.recipe.many
        text_encoder.learn_to_read(
            text,
            text_encoder.reading_of(text, tokenizer, encoded.facts, encoded.latents),
            lambda where, state: unet_batches(encoded, tokenizer, lambda: batch, where, (6, state.step)),
            plan,
            work=run.work,
            device=run.device,
        )
        run.keep(lambda: _save_weights(text, weights))
    return tokenizer, text.requires_grad_(False)


def _unet(
    run: StageRun, vae: AutoencoderKL, tokenizer: CLIPTokenizer, text: CLIPTextModel, encoded: EncodedScenes | None
) -> UNet2DConditionModel:
    """The UNet with averaged weights. Without `encoded` it is as an earlier run of the stage left it."""
    weights = run.work / "unet-ema.pt"
    begun = run.started.unet if run.started else None
    unet = build_unet(run.recipe) if begun is None else begun
    if encoded is None or not run.wants("unet"):
        if weights.exists():
            unet.load_state_dict(torch.load(weights, weights_only=True))
        return unet
    alphas = scheduler().alphas_cumprod
    growth = run.recipe.growth if begun is None else run.recipe.growth[-1:]
    plan = run.plan("unet", learning_rate=1e-3, ema_decays=(0.999, 0.9998), decay=0.3, muon=True)
    strength = vae.config.scaling_factor

    def loss(models: torch.nn.ModuleDict, batch: Batch, used: float) -> torch.Tensor:
        known = alphas.to(batch["latents"].device)
        offset = offset_strength(used) if begun is None else 0.0  # what was started from reads the words already
        return unet_loss(models, batch, known, grown(growth, used)[0], strength, offset)

    def batches(where: torch.device, state: State) -> Iterator[Batch]:
        def size() -> int:
            return grown(growth, state.used(plan))[1] * run.recipe.many

        return unet_batches(encoded, tokenizer, size, where, (2, state.step), NAMED_SHARE)

    models = torch.nn.ModuleDict({"unet": unet, "text": text})
    with run.processes.main_process_first():
        unseen = encode_scenes(vae, run.work, run.recipe.unseen, run.device, HELD_OUT)
    score = unseen_loss(models, unseen, tokenizer, strength)
    train_loop("unet", models, loss, batches, plan, work=run.work, device=run.device, score=score)
    log.info("unet: loss of %d unseen scenes %.5f", len(unseen.captions), score())
    run.keep(lambda: _save_weights(unet, weights))
    return unet


def unseen_loss(
    models: torch.nn.ModuleDict, unseen: EncodedScenes, tokenizer: CLIPTokenizer, strength: float, parts: int = 8
) -> Callable[[], float]:
    """The loss of unseen scenes as a function of the weights that the models then have: noise, timesteps and captions
    are the same each time."""
    alphas = scheduler().alphas_cumprod

    @torch.no_grad()
    def measure() -> float:
        where = next(models.parameters()).device
        count = max(1, len(unseen.captions) // parts)
        source = unet_batches(unseen, tokenizer, lambda: count, where, (7, 0))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            losses = [unet_loss(models, next(source), alphas.to(where), strength=strength) for _ in range(parts)]
        return float(torch.stack(losses).mean())

    return measure


def _family(run: StageRun, stage: Member, out: Path) -> Path:
    """A member that is trained from Lumen's UNet, written as a LoRA on it."""
    assert run.started is not None  # `train` has checked it
    plan = run.plan(stage, learning_rate=family.LEARNING_RATE, decay=0.6, warmup=0.02)
    recipe = run.recipe
    printed = stage == "woodcut"
    with run.processes.main_process_first():
        count = recipe.scenes if not printed else max(1, recipe.scenes // 4)
        encoded = encode_scenes(run.started.vae, run.work, count, run.device, style=family.woodcut if printed else None)
    batch = 4 if run.smoke else 32 * recipe.many
    config = family.train(stage, run.started, encoded, plan, batch, work=run.work, device=run.device)
    if run.processes.is_main_process:
        family.export(out, run.started.unet, config)
    return out


def _save_weights(model: torch.nn.Module, path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save(model.state_dict(), temporary)


def export(
    out: Path, vae: AutoencoderKL, text: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> None:
    """Write the pipeline folder, weights in float16 safetensors of less than 10 MB, with the vocabulary beside it."""
    began = time.monotonic()
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(out, safe_serialization=True, max_shard_size="9MB")
    for part in ("vae", "text_encoder", "unet"):
        text_encoder.tidy_config(out / part)
    atomic_write(out / "vocabulary.json", json.dumps({"words": list(scenes.VOCABULARY)}, indent=1) + "\n")
    log.info("exported to %s in %.1f s", out, time.monotonic() - began)
