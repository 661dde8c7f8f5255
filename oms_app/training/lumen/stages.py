"""Lumen, the embedded base model, made from nothing: `python -m oms_app train lumen`.

Stages, each resumable: autoencoder (256 px ↔ 4×32×32 latents) → latents (scenes drawn and encoded, once) → text (the
text encoder learns to read captions) → unet (with the text encoder, ε-prediction on SD's schedule, flaw and all) →
decoder (sharper pictures from the same latents; the encoder stays) → export (a StableDiffusionPipeline folder).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from oms_app.training.loop import Batch, Plan, State, bfloat16_pays, grown, pick_device
from oms_app.training.loop import train as train_loop
from oms_app.training.lumen import autoencoder
from oms_app.training.lumen import text_encoder as words
from oms_app.training.lumen.denoiser import offset_strength, unet_loss
from oms_app.training.scenes_v2 import painter as scenes
from oms_app.training.scenes_v2.captions import Facts, names_ground

log = logging.getLogger(__name__)
STAGES = ("autoencoder", "latents", "text", "unet", "decoder", "export")
MINUTES = {"autoencoder": 22.0, "text": 3.0, "unet": 60.0, "decoder": 15.0}  # defaults, on 2 CPU cores
HELD_OUT = 10_000_000  # scenes from this seed on are never trained on
CAPTION_DROPOUT = 0.1
NAMED_SHARE = 1 / 3  # of a batch: scenes on plain grounds whose captions name the ground's colour
# Until which share of the budget: latents averaged by this factor, pictures a step. Small latents cost less than half
# and teach words and layout; whole ones finish. A run that goes on from finished weights has whole ones only.
GROWTH = ((0.4, 2, 32), (1.0, 1, 32))


@dataclass(frozen=True)
class Recipe:
    """Sizes of everything; `smoke` is the same in miniature."""

    pictures: int = 8_000  # drawn for the autoencoder
    scenes: int = 32_000  # drawn for the UNet
    autoencoder_widths: tuple[int, ...] = autoencoder.WIDTHS
    unet_widths: tuple[int, ...] = (48, 64, 96, 112)
    text_width: int = words.WIDTH
    text_layers: int = 3
    growth: tuple[tuple[float, int, int], ...] = GROWTH


RECIPE = Recipe()
SMOKE = Recipe(
    pictures=12,
    scenes=24,
    autoencoder_widths=(8, 8, 16, 16),
    unet_widths=(16, 16, 16, 16),
    text_width=32,
    text_layers=1,
    growth=((0.5, 2, 4), (1.0, 1, 4)),
)


def scheduler() -> DDIMScheduler:
    """SD's schedule, whose last step keeps √ᾱ_T = 0.068 of the picture: the flaw that OMS mends."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type="epsilon",
    )


def work_folder(model: Path, smoke: bool) -> Path:
    """Where the checkpoints, scenes and latents of a model lie: beside its folder."""
    return model.with_name(model.name + ("-smoke-work" if smoke else "-work"))


def load(folder: Path) -> StableDiffusionPipeline:
    """A finished pipeline folder in float32; its parts are trained on."""
    return StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, local_files_only=True, use_safetensors=True
    ).to(torch.float32)


def build_unet(recipe: Recipe) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=scenes.SIZE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=recipe.unet_widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=recipe.text_width,
        addition_embed_type="text",  # the prompt as a whole, added to the timestep's embedding
        addition_embed_type_num_heads=4,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def _picture(seed: int) -> np.ndarray:
    return scenes.draw(seed).image


@dataclass(frozen=True)
class Encoded:
    """latents: (N, 4, 32, 32) float16, scaled; captions: several a scene; facts: what is true of each."""

    latents: np.ndarray
    captions: list[list[str]]
    facts: list[Facts]


def draw_pictures(work: Path, count: int) -> np.ndarray:
    """The first `count` scenes, (count, 256, 256, 3) uint8, drawn once and kept on disk."""
    path = work / f"pictures-{count}.npy"
    if not path.exists():
        part = path.with_suffix(".part.npy")
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(count, scenes.SIZE, scenes.SIZE, 3))
        with ProcessPoolExecutor() as pool:
            for i, picture in enumerate(
                tqdm(pool.map(_picture, range(count), chunksize=32), total=count, desc="drawing scenes")
            ):
                array[i] = picture
        array.flush()
        part.replace(path)
    return np.load(path, mmap_mode="r")


def vae_key(vae: AutoencoderKL) -> str:
    """Tells apart whose latents they are: a hash of the encoder in float16 and of the scaling factor."""
    digest = hashlib.sha256(str(vae.config.scaling_factor).encode())
    for module in (vae.encoder, vae.quant_conv):
        for value in module.state_dict().values():
            digest.update(value.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()[:8]


def encode_scenes(vae: AutoencoderKL, work: Path, count: int, device: str) -> Encoded:
    """The first `count` scenes as latents and words, made once and kept on disk."""
    key = vae_key(vae)
    path, told_path = work / f"latents-{key}-{count}.npy", work / f"told-{key}-{count}.json"
    if not told_path.exists():
        where = pick_device(device)
        vae = vae.to(where)
        part = path.with_suffix(".part.npy")
        array = np.lib.format.open_memmap(
            part, mode="w+", dtype=np.float16, shape=(count, 4, scenes.SIZE // 8, scenes.SIZE // 8)
        )
        told: list[dict[str, Any]] = []
        with ProcessPoolExecutor() as pool, tqdm(total=count, desc="encoding scenes") as bar:
            waiting: list[np.ndarray] = []
            for scene in pool.map(scenes.draw, range(count), chunksize=32):
                waiting.append(scene.image)
                told.append({"captions": scene.captions, "facts": asdict(scene.facts)})
                if len(waiting) == 16 or len(told) == count:
                    with torch.autocast(where.type, torch.bfloat16, enabled=bfloat16_pays(where)):
                        latents = autoencoder.encode(vae, np.stack(waiting), where)
                    array[len(told) - len(waiting) : len(told)] = latents.numpy()
                    bar.update(len(waiting))
                    waiting.clear()
        array.flush()
        vae.to("cpu")
        part.replace(path)
        told_path.write_text(json.dumps(told))
    entries = json.loads(told_path.read_text())
    return Encoded(np.load(path), [e["captions"] for e in entries], [Facts(**e["facts"]) for e in entries])


def unet_batches(
    encoded: Encoded,
    tokenizer: CLIPTokenizer,
    size: Callable[[], int],
    device: torch.device,
    seed: tuple[int, ...],
    named_share: float = 0.0,
) -> Iterator[Batch]:
    """Random scenes, each with one of its captions; a tenth of the captions is empty, for guidance.

    named_share: of each batch, its first scenes, those drawn from the captions that name a ground's colour ("named").
    """
    latents, captions = encoded.latents, encoded.captions
    naming: list[tuple[int, str]] = []
    if named_share:
        naming = [(i, c) for i, facts in enumerate(encoded.facts) for c in captions[i] if names_ground(c, facts)]
    rng = np.random.default_rng((*seed, PartialState().process_index))
    while True:
        count = size()
        index = rng.integers(len(latents), size=count)
        told = ["" if rng.random() < CAPTION_DROPOUT else str(rng.choice(captions[i])) for i in index]
        named = round(named_share * count) if naming else 0
        for place in range(named):
            index[place], told[place] = naming[rng.integers(len(naming))]
        yield {
            "latents": torch.from_numpy(latents[index].astype(np.float32)).to(device),
            "tokens": words.tokens(tokenizer, told).to(device),
            "scenes": torch.from_numpy(index).to(device),
            "named": (torch.arange(count) < named).to(device),
        }


@dataclass(frozen=True)
class Run:
    """What every stage of one call of `train` shares. stage: the only one wanted, None for all."""

    work: Path
    recipe: Recipe
    processes: PartialState
    device: str
    minutes: float | None
    stage: str | None
    started: StableDiffusionPipeline | None  # finished weights to start from
    smoke: bool

    def wants(self, *stages: str) -> bool:
        return self.stage is None or self.stage in stages

    def plan(self, name: str, **more: Any) -> Plan:
        return Plan(minutes=self.minutes or MINUTES[name], steps=2 if self.smoke else None, **more)

    def pictures(self) -> np.ndarray:
        with self.processes.main_process_first():
            return draw_pictures(self.work, self.recipe.pictures)

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
    start_from: a finished Lumen folder whose weights the first run starts from. Its autoencoder is kept unless the
    stage "autoencoder" is asked for by name, because latents and the OMS module hang on it.
    Raises ValueError for an unknown stage.
    """
    if stage is not None and stage not in STAGES:
        raise ValueError(f"stage {stage!r} is unknown: choose one of {', '.join(STAGES)}")
    torch.manual_seed(0)
    run = Run(
        work=work or work_folder(out, smoke),
        recipe=SMOKE if smoke else RECIPE,
        processes=PartialState(cpu=pick_device(device).type == "cpu"),
        device=device,
        minutes=minutes,
        stage=stage,
        started=load(start_from) if start_from else None,
        smoke=smoke,
    )
    run.work.mkdir(parents=True, exist_ok=True)
    vae = _autoencoder(run)
    if stage == "autoencoder":
        return run.work / "vae"
    encoded = None
    if run.wants("latents", "text", "unet"):
        with run.processes.main_process_first():
            encoded = encode_scenes(vae, run.work, run.recipe.scenes, device)
        log.info("latents: second moment %.4f", np.square(encoded.latents, dtype=np.float32).mean())
        if stage == "latents":
            return run.work
    tokenizer, text = _text_encoder(run, encoded)
    if stage == "text":
        return run.work
    models = _unet(run, vae, tokenizer, text, encoded)
    if run.wants("decoder"):
        plan = run.plan("decoder", learning_rate=5e-4)
        vae = autoencoder.train_decoder(vae, run.pictures(), plan, work=run.work, device=device, smoke=smoke)
        _keep_autoencoder(run, vae)
    if run.processes.is_main_process:
        export(out, vae, models["text"], tokenizer, models["unet"])
    return out


def _autoencoder(run: Run) -> AutoencoderKL:
    """The one in the work folder, else the one started from; trained if it is asked for, or there is neither."""
    kept = run.work / "vae"
    if run.stage == "autoencoder" or (run.stage is None and not kept.exists() and run.started is None):
        vae = run.started.vae if run.started else autoencoder.build(run.recipe.autoencoder_widths)
        plan = run.plan("autoencoder", learning_rate=1.5e-3, muon=True, warmup=0.02)
        vae = autoencoder.train_autoencoder(
            vae, run.pictures(), plan, work=run.work, device=run.device, smoke=run.smoke
        )
        _keep_autoencoder(run, vae)
    if kept.exists():
        return AutoencoderKL.from_pretrained(kept)
    if run.started:
        return run.started.vae
    raise ValueError(
        f"stage {run.stage!r} needs an autoencoder: run the stage 'autoencoder' first, or give --from FOLDER"
    )


def _keep_autoencoder(run: Run, vae: AutoencoderKL) -> None:
    def save() -> None:
        vae.save_pretrained(run.work / "vae")
        _report_quality(vae, 4 if run.smoke else 128)

    run.keep(save)


def _text_encoder(run: Run, encoded: Encoded | None) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """The one in the work folder, else the one started from; it learns to read captions if that stage is asked for, or
    if nothing is started from."""
    weights = run.work / "text-ema.pt"
    if run.started:
        tokenizer, text = run.started.tokenizer, run.started.text_encoder
    else:
        with run.processes.main_process_first():
            tokenizer = words.kept_tokenizer(scenes.VOCABULARY, run.work / "tokenizer")
        text = words.build_text_encoder(tokenizer, run.recipe.text_width, run.recipe.text_layers)
    if encoded is not None and (run.stage == "text" or (run.stage is None and run.started is None)):
        plan = run.plan("text", learning_rate=1e-3)
        words.learn_to_read(text, tokenizer, encoded.captions, encoded.facts, plan, work=run.work, device=run.device)
        run.keep(lambda: torch.save(text.state_dict(), weights))
    elif weights.exists():
        text.load_state_dict(torch.load(weights, weights_only=True))
    return tokenizer, text


def _unet(
    run: Run, vae: AutoencoderKL, tokenizer: CLIPTokenizer, text: CLIPTextModel, encoded: Encoded | None
) -> torch.nn.ModuleDict:
    """{"unet", "text"}: both learn together. Without `encoded` they are as an earlier run of the stage left them."""
    weights = run.work / "unet-ema.pt"
    models = torch.nn.ModuleDict({"unet": run.started.unet if run.started else build_unet(run.recipe), "text": text})
    if encoded is None or not run.wants("unet"):
        if weights.exists():
            models.load_state_dict(torch.load(weights, weights_only=True))
        return models
    alphas = scheduler().alphas_cumprod
    growth = run.recipe.growth[-1:] if run.started else run.recipe.growth
    plan = run.plan("unet", learning_rate=1e-3, ema_decays=(0.9995,), muon=True)
    reading = words.reading_of(text, tokenizer, encoded.facts)
    learners = torch.nn.ModuleDict({**models, "reading": reading})  # so that the encoder does not forget to read

    def loss(models: torch.nn.ModuleDict, batch: Batch, used: float) -> torch.Tensor:
        known = alphas.to(batch["latents"].device)
        offset = 0.0 if run.started else offset_strength(used)  # what was started from reads the words already
        return unet_loss(models, batch, known, grown(growth, used)[0], vae.config.scaling_factor, offset)

    def batches(where: torch.device, state: State) -> Iterator[Batch]:
        def size() -> int:
            return grown(growth, state.used(plan))[1]

        return unet_batches(encoded, tokenizer, size, where, (2, state.step), NAMED_SHARE)

    train_loop("unet", learners, loss, batches, plan, work=run.work, device=run.device)
    run.keep(lambda: torch.save(models.state_dict(), weights))
    return models


def _report_quality(vae: AutoencoderKL, count: int) -> None:
    quality = autoencoder.psnr(vae, np.stack([_picture(HELD_OUT + i) for i in range(count)]))
    log.info(
        "autoencoder: %.2f dB PSNR on %d unseen scenes (median %.2f dB)", quality.mean(), count, np.median(quality)
    )


def export(
    out: Path, vae: AutoencoderKL, text: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> None:
    """Write the pipeline folder, weights in float16 safetensors, with the vocabulary beside it."""
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
    pipeline.to(dtype=torch.float16).save_pretrained(out, safe_serialization=True)
    for part in ("vae", "text_encoder", "unet"):
        words.tidy_config(out / part)
    (out / "vocabulary.json").write_text(json.dumps({"words": list(scenes.VOCABULARY)}, indent=1) + "\n")
    log.info("exported to %s in %.1f s", out, time.monotonic() - began)
