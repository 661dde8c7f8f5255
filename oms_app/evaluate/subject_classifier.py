"""Which subject does a picture show? A small classifier trained on scenes only, independent of the base model.

`python -m oms_app.evaluate.subject_classifier` trains it, writes it to the shipped assets and logs its accuracy on
unseen scenes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from oms_app.paths import EMBEDDED_FOLDER
from oms_app.training.loop import Batch, Plan, State, train
from oms_app.training.lumen.autoencoder import to_tensor
from oms_app.training.lumen.stages import work_folder
from oms_app.training.scenes import painter
from oms_app.training.scenes.captions import Facts
from oms_app.training.scenes.figures import FIGURES
from oms_app.training.scenes.landscapes import LANDSCAPES
from oms_app.training.scenes.shapes import SHAPES

logger = logging.getLogger(__name__)
SIDE = 64  # pixels per side of its input
FIRST = 20_000_000  # first seed of its scenes: neither the base model's nor the held-out ones
COUNT, UNSEEN = 16_000, 1_000  # scenes to train on, and to measure the accuracy with
MINUTES = 2.5  # on 2 CPU cores
WORK = work_folder(EMBEDDED_FOLDER, smoke=False)
FOLDER = EMBEDDED_FOLDER / "judge"  # the name on disk of the shipped weights
LABELS: tuple[str, ...] = (
    "solid",
    *(f"shape {name}" for name in SHAPES),
    *(f"figure {name}" for name in FIGURES),
    *(f"landscape {name}" for name in LANDSCAPES),
)


def label_of(facts: Facts) -> str:
    """The label of a scene, one of LABELS."""
    return "solid" if facts.kind == "solid" else f"{facts.kind} {facts.subject}"


class SubjectClassifier(torch.nn.Module):
    """(B, 3, 64, 64) in [-1, 1] → (B, len(LABELS)) logits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 3 * width, 4 * width)
        layers: list[torch.nn.Module] = []
        for into, out in pairwise(sizes):
            layers += [
                torch.nn.Conv2d(into, out, 3, padding=1, bias=False),
                torch.nn.GroupNorm(8, out),
                torch.nn.SiLU(),
                torch.nn.MaxPool2d(2),
            ]
        self.body = torch.nn.Sequential(*layers, torch.nn.Conv2d(4 * width, 4 * width, 3, padding=1), torch.nn.SiLU())
        self.head = torch.nn.Linear(4 * width * 4, len(LABELS))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.head(F.adaptive_avg_pool2d(self.body(pictures), 2).flatten(1))


def preprocess(pictures: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 → the classifier's input, (B, 3, 64, 64) in [-1, 1]."""
    return F.interpolate(to_tensor(pictures), size=(SIDE, SIDE), mode="area")


def _small_scene(seed: int) -> tuple[np.ndarray, int]:
    scene = painter.draw(seed)
    small = np.asarray(Image.fromarray(scene.image).resize((SIDE, SIDE), Image.Resampling.BOX))
    return small, LABELS.index(label_of(scene.facts))


def _draw_scenes(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    with ProcessPoolExecutor() as pool:
        seeds = range(first, first + count)
        drawn = list(tqdm(pool.map(_small_scene, seeds, chunksize=64), total=count, desc="drawing scenes"))
    return np.stack([image for image, _ in drawn]), np.array([number for _, number in drawn])


def _batches(pictures: np.ndarray, numbers: np.ndarray, state: State, size: int = 48) -> Iterator[Batch]:
    """Scenes, randomly mirrored, shifted, blurred and made noisy, as the pictures of a sampler are."""
    rng = np.random.default_rng((5, state.step))
    while True:
        index = rng.integers(len(pictures), size=size)
        x = to_tensor(pictures[index])
        if rng.random() < 0.5:
            x = x.flip(3)
        dy, dx = (int(v) for v in rng.integers(-3, 4, size=2))
        x = torch.roll(F.pad(x, (4, 4, 4, 4), mode="replicate"), (dy, dx), (2, 3))[:, :, 4:-4, 4:-4]
        blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = torch.lerp(x, blurred, torch.from_numpy(rng.random((size, 1, 1, 1), np.float32)))
        gain = torch.from_numpy(rng.uniform(0.7, 1.15, (size, 1, 1, 1)).astype(np.float32))
        x = (x + 1) * gain - 1 + 0.05 * torch.randn_like(x) * torch.rand(size, 1, 1, 1)
        yield {"pictures": x.clamp(-1, 1), "numbers": torch.from_numpy(numbers[index])}


def train_classifier(
    work: Path, out: Path, minutes: float = MINUTES, count: int = COUNT, steps: int | None = None
) -> SubjectClassifier:
    """Train a classifier, or resume the training in `work`.

    Writes model.safetensors and accuracy.json (on unseen scenes) to `out`.
    """
    torch.manual_seed(0)
    pictures, numbers = _draw_scenes(FIRST, count + UNSEEN)
    classifier = SubjectClassifier()
    train(
        "judge",
        torch.nn.ModuleDict({"judge": classifier}),
        lambda models, batch, used: F.cross_entropy(models["judge"](batch["pictures"]).float(), batch["numbers"]),
        lambda device, state: _batches(pictures[:count], numbers[:count], state),
        Plan(minutes=minutes, steps=steps, learning_rate=2e-3),
        work=work,
        device="cpu",
    )
    right = classify(classifier, pictures[count:]) == numbers[count:]
    result = {"accuracy": round(float(right.mean()), 4), "n": UNSEEN}
    logger.info("the classifier names the subject of %.1f %% of %d unseen scenes correctly", 100 * right.mean(), UNSEEN)
    out.mkdir(parents=True, exist_ok=True)
    (out / "accuracy.json").write_text(json.dumps(result) + "\n")
    save_file(classifier.state_dict(), out / "model.safetensors")
    return classifier


def load(folder: Path = FOLDER) -> tuple[SubjectClassifier, dict[str, float]]:
    """The classifier in a folder that `train_classifier` wrote, and {"accuracy", "n"} on unseen scenes."""
    classifier = SubjectClassifier().eval()
    classifier.load_state_dict(load_file(folder / "model.safetensors"))
    return classifier, json.loads((folder / "accuracy.json").read_text())


@torch.no_grad()
def classify(classifier: SubjectClassifier, pictures: np.ndarray) -> np.ndarray:
    """Indices into LABELS, (B,), of pictures (B, H, W, 3) uint8."""
    return torch.cat(
        [classifier(preprocess(pictures[i : i + 64])).argmax(1) for i in range(0, len(pictures), 64)]
    ).numpy()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    train_classifier(WORK, FOLDER)
