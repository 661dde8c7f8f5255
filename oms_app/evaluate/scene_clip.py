"""A small CLIP of scenes, independent of the base model, to measure pictures with: `python -m oms_app train clip`.

Architecture and loss are those of open_clip. Its scenes are not those of the base model, of the subject classifier or
of the held-out captions; it uses the base model's tokenizer and none of its weights. `evaluate quality` computes FID,
precision, recall, density and coverage from its features, and the CLIP score from the similarity of picture and
caption.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP, ClipLoss
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import update_bn
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from oms_app.paths import EMBEDDED_FOLDER
from oms_app.training.loop import Batch, Plan, State, train
from oms_app.training.lumen import text_encoder
from oms_app.training.lumen.autoencoder import to_tensor
from oms_app.training.scenes import painter

logger = logging.getLogger(__name__)
FOLDER = EMBEDDED_FOLDER / "clip"
SIDE = 96  # pixels per side of its input
FIRST = 30_000_000  # first seed of its scenes
COUNT, UNSEEN = 16_000, 1_000  # scenes to train on, and to measure the accuracy with
BATCH = 96
GROUP = 16  # captions from which it picks the right one, for its accuracy
MINUTES = 8.0  # on 2 CPU cores
MAX_SCALE = 100.0  # of the logits, as in CLIP
TOKENIZER = EMBEDDED_FOLDER / "tokenizer"


def config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """open_clip's keyword arguments: a ModifiedResNet and a causal text transformer, 1.7M parameters together."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
        "text_cfg": {
            "context_length": text_encoder.MAX_LENGTH,
            "vocab_size": len(tokenizer),
            "width": 96,
            "heads": 4,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
            "pad_id": tokenizer.pad_token_id,
        },
    }


@dataclass(frozen=True)
class SceneClip:
    """The trained model, which embeds pictures and captions in one space of 128 dimensions."""

    model: CLIP
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def encode_images(self, pictures: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 → (B, 128) float32, not normalised."""
        return np.concatenate(
            [self.model.encode_image(preprocess(pictures[i : i + 64])).numpy() for i in range(0, len(pictures), 64)]
        )

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(B, 128) float32, not normalised."""
        return self.model.encode_text(text_encoder.tokens(self.tokenizer, texts)).numpy()


def preprocess(pictures: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 → the model's input, (B, 3, 96, 96) in [-1, 1]."""
    return F.interpolate(to_tensor(pictures), size=(SIDE, SIDE), mode="area")


def _small_scene(seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    scene = painter.draw(seed)
    small = Image.fromarray(scene.image).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small), scene.captions


def _draw_scenes(first: int, count: int) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    with ProcessPoolExecutor() as pool:
        seeds = range(first, first + count)
        drawn = list(tqdm(pool.map(_small_scene, seeds, chunksize=64), total=count, desc="drawing scenes"))
    return np.stack([image for image, _ in drawn]), [captions for _, captions in drawn]


def _batches(
    pictures: np.ndarray, captions: Sequence[Sequence[str]], tokenizer: CLIPTokenizer, state: State, size: int
) -> Iterator[Batch]:
    """Scenes, randomly shifted, blurred and made noisy, as a sampler's pictures are; no caption is twice in a batch."""
    rng = np.random.default_rng((6, state.step))
    while True:
        scene_of = {str(rng.choice(captions[i])): i for i in rng.integers(len(pictures), size=size)}
        x = to_tensor(pictures[list(scene_of.values())])
        dy, dx = (int(v) for v in rng.integers(-3, 4, size=2))
        x = torch.roll(F.pad(x, (4, 4, 4, 4), mode="replicate"), (dy, dx), (2, 3))[:, :, 4:-4, 4:-4]
        blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = torch.lerp(x, blurred, torch.from_numpy(rng.random((len(x), 1, 1, 1), np.float32)))
        x = x + 0.05 * torch.randn_like(x) * torch.rand(len(x), 1, 1, 1)
        yield {"pictures": x.clamp(-1, 1), "tokens": text_encoder.tokens(tokenizer, list(scene_of))}


def clip_loss(models: torch.nn.ModuleDict, batch: Batch, used: float) -> torch.Tensor:
    """Contrastive loss of a batch's pictures and captions (Radford et al. 2021)."""
    image, text, scale = models["clip"](batch["pictures"], batch["tokens"])
    loss: torch.Tensor = ClipLoss()(image.float(), text.float(), scale.clamp(max=MAX_SCALE))
    return loss


def train_clip(
    *,
    out: Path = FOLDER,
    minutes: float | None = None,
    smoke: bool = False,
    work: Path | None = None,
    device: str = "auto",
) -> Path:
    """Train a CLIP of scenes and write it to `out`: config.json, model.safetensors (float16). Returns `out`.

    minutes: training time over all runs with the same work folder (None: beside `out`), where the same call resumes.
    config.json also contains how often the model picks the right one of 16 captions for unseen scenes.
    """
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    count, unseen, size = (48, GROUP, 8) if smoke else (COUNT, UNSEEN, BATCH)
    pictures, captions = _draw_scenes(FIRST, count + unseen)
    model = CLIP(**config(tokenizer))
    train(
        "clip",
        torch.nn.ModuleDict({"clip": model}),
        clip_loss,
        lambda device, state: (
            {name: value.to(device) for name, value in batch.items()}
            for batch in _batches(pictures[:count], captions[:count], tokenizer, state, size)
        ),
        Plan(minutes=minutes or MINUTES, steps=2 if smoke else None, learning_rate=1e-3, muon=True),
        work=work or out.with_name(out.name + "-work"),
        device=device,
    )
    # The statistics of batch normalisation are those of the EMA weights.
    update_bn((preprocess(pictures[i : i + size]) for i in range(0, min(count, 4096), size)), model)
    model.eval()
    right = accuracy(SceneClip(model, tokenizer), pictures[count:], captions[count:])
    logger.info("picks the right one of %d captions for %.1f %% of %d unseen scenes", GROUP, 100 * right, unseen)
    out.mkdir(parents=True, exist_ok=True)
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file(half, out / "model.safetensors")
    settings = {"open_clip": config(tokenizer), "accuracy": round(right, 4), "of": GROUP, "n": unseen}
    (out / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return out


def accuracy(clip: SceneClip, pictures: np.ndarray, captions: Sequence[Sequence[str]]) -> float:
    """Share of scenes whose first caption is the nearest one among those of a group of 16 scenes."""
    image, text = clip.encode_images(pictures), clip.encode_texts([texts[0] for texts in captions])
    image, text = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (image, text))
    right = [
        np.argmax(image[i : i + GROUP] @ text[i : i + GROUP].T, axis=1) == np.arange(len(image[i : i + GROUP]))
        for i in range(0, len(image), GROUP)
    ]
    return float(np.concatenate(right).mean())


def load(folder: Path = FOLDER) -> SceneClip:
    """The model in a folder that `train_clip` wrote, in float32 on the CPU."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))["open_clip"]
    model = CLIP(**settings)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return SceneClip(model.float().eval(), CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True))
