"""A small CLIP of scenes, apart from the base model, to measure pictures with: `python -m oms_app train clip`.

open_clip's architecture and loss. Its scenes are neither the base's nor the judge's nor the held-out ones; it shares
the base's tokenizer, and no weight. `evaluate quality` takes its features for FID, precision, recall, density and
coverage, and its agreement of picture and caption for the CLIP score.
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
from oms_app.training.lumen import text_encoder as words
from oms_app.training.lumen.autoencoder import to_tensor
from oms_app.training.scenes import painter as scenes

log = logging.getLogger(__name__)
FOLDER = EMBEDDED_FOLDER / "clip"
SIDE = 96  # pixels a side that it looks at
FIRST = 30_000_000  # its scenes
COUNT, UNSEEN = 16_000, 1_000
BATCH = 96
GROUP = 16  # captions to choose the right one among, for its accuracy
MINUTES = 8.0  # on 2 CPU cores
MAX_SCALE = 100.0  # of the logits, as CLIP has it
TEXTS_FROM = EMBEDDED_FOLDER / "tokenizer"


def config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """open_clip's keyword arguments: a ModifiedResNet and a causal text transformer, 1.7M parameters together."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
        "text_cfg": {
            "context_length": words.MAX_LENGTH,
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
    """The trained model: what it sees in pictures and reads in captions, in one space of 128 dimensions."""

    model: CLIP
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def see(self, pictures: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 → (B, 128) float32, not normalised."""
        return np.concatenate(
            [self.model.encode_image(look(pictures[i : i + 64])).numpy() for i in range(0, len(pictures), 64)]
        )

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> np.ndarray:
        """(B, 128) float32, not normalised."""
        return self.model.encode_text(words.tokens(self.tokenizer, texts)).numpy()


def look(pictures: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 → what the model sees, (B, 3, 96, 96) in [-1, 1]."""
    return F.interpolate(to_tensor(pictures), size=(SIDE, SIDE), mode="area")


def _small_scene(seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    scene = scenes.draw(seed)
    small = Image.fromarray(scene.image).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small), scene.captions


def _draw(first: int, count: int) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    with ProcessPoolExecutor() as pool:
        seeds = range(first, first + count)
        drawn = list(tqdm(pool.map(_small_scene, seeds, chunksize=64), total=count, desc="drawing scenes"))
    return np.stack([image for image, _ in drawn]), [captions for _, captions in drawn]


def _batches(
    pictures: np.ndarray, captions: Sequence[Sequence[str]], tokenizer: CLIPTokenizer, state: State, size: int
) -> Iterator[Batch]:
    """Scenes a little shifted, softened and noisy, as a sampler's pictures are; no caption twice in a batch."""
    rng = np.random.default_rng((6, state.step))
    while True:
        told = {str(rng.choice(captions[i])): i for i in rng.integers(len(pictures), size=size)}
        x = to_tensor(pictures[list(told.values())])
        dy, dx = (int(v) for v in rng.integers(-3, 4, size=2))
        x = torch.roll(F.pad(x, (4, 4, 4, 4), mode="replicate"), (dy, dx), (2, 3))[:, :, 4:-4, 4:-4]
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = torch.lerp(x, soft, torch.from_numpy(rng.random((len(x), 1, 1, 1), np.float32)))
        x = x + 0.05 * torch.randn_like(x) * torch.rand(len(x), 1, 1, 1)
        yield {"pictures": x.clamp(-1, 1), "tokens": words.tokens(tokenizer, list(told))}


def clip_loss(models: torch.nn.ModuleDict, batch: Batch, used: float) -> torch.Tensor:
    """Each picture finds its caption among the batch's, and each caption its picture (Radford et al. 2021)."""
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

    minutes: budget over all runs with the same work folder (None: beside `out`); the same command resumes. config.json
    also says how often the model picks the right of 16 captions of unseen scenes.
    """
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TEXTS_FROM, local_files_only=True)
    count, unseen, size = (48, GROUP, 8) if smoke else (COUNT, UNSEEN, BATCH)
    pictures, captions = _draw(FIRST, count + unseen)
    model = CLIP(**config(tokenizer))
    train(
        "clip",
        torch.nn.ModuleDict({"clip": model}),
        clip_loss,
        lambda where, state: (
            {name: value.to(where) for name, value in batch.items()}
            for batch in _batches(pictures[:count], captions[:count], tokenizer, state, size)
        ),
        Plan(minutes=minutes or MINUTES, steps=2 if smoke else None, learning_rate=1e-3, muon=True),
        work=work or out.with_name(out.name + "-work"),
        device=device,
    )
    update_bn((look(pictures[i : i + size]) for i in range(0, min(count, 4096), size)), model)  # of the EMA weights
    model.eval()
    right = accuracy(SceneClip(model, tokenizer), pictures[count:], captions[count:])
    log.info("picks the right of %d captions for %.1f %% of %d unseen scenes", GROUP, 100 * right, unseen)
    out.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file(halves, out / "model.safetensors")
    told = {"open_clip": config(tokenizer), "accuracy": round(right, 4), "of": GROUP, "n": unseen}
    (out / "config.json").write_text(json.dumps(told, indent=1) + "\n")
    return out


def accuracy(clip: SceneClip, pictures: np.ndarray, captions: Sequence[Sequence[str]]) -> float:
    """Share of scenes whose first caption is the nearest among those of a group of 16 scenes."""
    image, text = clip.see(pictures), clip.read([told[0] for told in captions])
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
    return SceneClip(model.float().eval(), CLIPTokenizer.from_pretrained(TEXTS_FROM, local_files_only=True))
