"""The pictures that every evaluation is made of: held-out captions through the engine, and the scenes they tell of.

What is kept of a picture is its mean and its features, line by line on disk, so that a stopped evaluation goes on where
it was and `evaluate luminance`, `quality` and `report` share their pictures. Code or weights that change start anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from oms_app.engine.studio import Studio
from oms_app.errors import StudioError
from oms_app.fields import MAX_SEED
from oms_app.paths import EMBEDDED_FOLDER
from oms_app.schema import Frozen, GenerateRequest, Variant

CAPTIONS = EMBEDDED_FOLDER / "captions.json"
REFERENCES = 4  # scenes a caption
WORTH_SHARING = 25  # captions for each process: to start one takes seconds
Means = NDArray[np.float64]
Features = NDArray[np.float32]
Eye = Callable[[NDArray[np.uint8]], Features]  # (B, H, W, 3) → (B, D)


class Held(Frozen):
    """A held-out caption and the seeds of four scenes that it tells of."""

    caption: Annotated[str, Field(min_length=1)]
    scene_seeds: Annotated[tuple[int, ...], Field(min_length=REFERENCES, max_length=REFERENCES)]


class HeldOut(Frozen):
    captions: Annotated[tuple[Held, ...], Field(min_length=2)]


@dataclass(frozen=True)
class Seen:
    """n captions, one picture of each variant and four scenes to each. Means in 0…255.

    means: name → (n,); scene_means (n, 4); features: name → (n, D), scene_features (n, 4, D), without an eye empty.
    """

    model: str
    seed: int
    captions: tuple[str, ...]
    means: dict[str, Means]
    scene_means: Means
    features: dict[str, Features]
    scene_features: Features


def read_captions(path: Path = CAPTIONS) -> tuple[Held, ...]:
    """The held-out captions. Raises StudioError where the file is missing or not valid."""
    try:
        return HeldOut.model_validate(json.loads(path.read_text(encoding="utf-8"))).captions
    except (OSError, ValueError, ValidationError) as error:
        raise StudioError(f"the held-out captions at {path} cannot be read: restore that file") from error


def gather(
    studio: Studio,
    *,
    model: str = "lumen",
    captions: int = 200,
    variants: Sequence[Variant] = (),
    seed: int = 0,
    eye: Eye | None = None,
    on_caption: Callable[[int, int], None] | None = None,
    held: Sequence[Held] | None = None,
    draw_scene: Callable[[int], NDArray[np.uint8]] | None = None,
    processes: int = 1,
) -> Seen:
    """One picture of each variant for each of `captions` captions, drawn by `seed`; caption i has the seed `seed + i`.

    eye: sees features in pictures and scenes (oms_app/training/clip.py); None keeps means alone. held, draw_scene:
    other captions than the shipped ones, and what a scene's seed shows. Records lie in the user's folder, in
    evaluation/. on_caption(done, of): where it stands. processes: how many share the captions, each with a model and
    one thread of its own; on two cores two of them paint 1.4 times as fast as one that has both.
    Raises StudioError where fewer captions are held out than asked for.
    """
    everything = read_captions() if held is None else held
    if captions > len(everything):
        raise StudioError(f"--captions is {captions}: only {len(everything)} are held out")
    if seed + captions > MAX_SEED:
        raise StudioError(f"--seed is {seed}: take 0 to {MAX_SEED - captions}")
    chosen = tuple(everything[i] for i in np.random.default_rng(seed).permutation(len(everything))[:captions])
    folder = studio.home / "evaluation" / state_key(studio, model, seed, everything)
    task = Task(folder, model, seed, chosen, tuple(variants), eye, draw_scene)
    records = task.records()
    missing = task.missing(records)

    def told(left: int) -> None:
        if on_caption is not None:
            on_caption(captions - left, captions)

    if len(missing) < captions:
        told(len(missing))
    if processes > 1 and len(missing) >= WORTH_SHARING * processes:
        _share_out(studio, task, len(missing), processes, told)
        records = task.records()
        missing = task.missing(records)
    for left in range(len(missing) - 1, -1, -1):
        task.paint(studio, missing[-1 - left], records)
        told(left)
    scenes = records["scenes"]
    names = [variant.name for variant in variants]
    return Seen(
        model,
        seed,
        tuple(entry.caption for entry in chosen),
        {name: records[f"of {name}"].means(captions) for name in names},
        scenes.means(captions),
        {name: records[f"of {name}"].features(captions) for name in names} if eye else {},
        scenes.features(captions).reshape(captions, REFERENCES, -1) if eye else np.empty((0, 0, 0), np.float32),
    )


@dataclass(frozen=True)
class Task:
    """What is to be painted, as every process that takes a share of it knows it."""

    folder: Path
    model: str
    seed: int
    chosen: tuple[Held, ...]
    variants: tuple[Variant, ...]
    eye: Eye | None
    draw_scene: Callable[[int], NDArray[np.uint8]] | None

    def records(self) -> dict[str, Records]:
        """What there is already: "scenes", and "of NAME" for each variant."""
        made = {f"of {variant.name}": Records(self.folder, variant) for variant in self.variants}
        return made | {"scenes": Records(self.folder, "scenes")}

    def missing(self, records: dict[str, Records]) -> list[int]:
        return [i for i in range(len(self.chosen)) if not all(kept.has(i, self.eye) for kept in records.values())]

    def paint(self, studio: Studio, i: int, records: dict[str, Records]) -> None:
        """Caption i's scenes and pictures, as far as they are not there."""
        entry, eye = self.chosen[i], self.eye
        if not records["scenes"].has(i, eye):
            pictures = np.stack([(self.draw_scene or _draw_scene)(scene_seed) for scene_seed in entry.scene_seeds])
            records["scenes"].add(i, [float(picture.mean()) for picture in pictures], eye(pictures) if eye else None)
        todo = tuple(variant for variant in self.variants if not records[f"of {variant.name}"].has(i, eye))
        if todo:
            request = GenerateRequest(prompt=entry.caption, model=self.model, variants=todo, seed=self.seed + i)
            images = studio.generate(request).images
            features = eye(np.stack([np.asarray(image.image) for image in images])) if eye else None
            for k, image in enumerate(images):
                records[f"of {image.variant}"].add(i, image.stats.mean, None if features is None else features[k])


def _share_out(studio: Studio, task: Task, left: int, processes: int, told: Callable[[int], None]) -> None:
    """Paint in several processes of one thread each. What a process leaves undone is left to the caller."""
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    helpers = [
        context.Process(
            target=_paint_share, args=(studio.home, str(studio.device), task, k, processes, done), daemon=True
        )
        for k in range(processes)
    ]
    for helper in helpers:
        helper.start()
    while any(helper.is_alive() for helper in helpers) or not done.empty():
        with suppress(queue.Empty):
            done.get(timeout=0.5)
            left -= 1
            told(left)


def _paint_share(home: Path, device: str, task: Task, share: int, of: int, done: Any) -> None:
    torch.set_num_threads(1)
    studio = Studio(home=home, device=device)
    records, parent = task.records(), multiprocessing.parent_process()
    for i in task.missing(records):
        if parent is not None and not parent.is_alive():
            return  # killed, so nobody waits for this
        if i % of == share:
            task.paint(studio, i, records)
            done.put(i)


class Records:
    """What is kept of one variant's pictures, or of the scenes: a JSON line for each caption's number."""

    def __init__(self, folder: Path, of: Variant | str) -> None:
        told = of if isinstance(of, str) else json.dumps(of.model_dump(exclude={"name"}), sort_keys=True)
        name = of if isinstance(of, str) else f"{of.correction}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        self._path = folder / f"{name}.jsonl"
        self._lines: dict[int, dict[str, Any]] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue  # cut off while it was written
                self._lines[record["i"]] = record

    def has(self, i: int, eye: Eye | None) -> bool:
        return i in self._lines and (eye is None or self._lines[i]["features"] is not None)

    def add(self, i: int, mean: float | list[float], features: Features | None) -> None:
        packed = None if features is None else base64.b85encode(features.astype(np.float32).tobytes()).decode()
        self._lines[i] = {"i": i, "mean": mean, "features": packed}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(self._lines[i]))  # a new line first: the last one may be cut off

    def means(self, n: int) -> Means:
        return np.array([self._lines[i]["mean"] for i in range(n)], np.float64)

    def features(self, n: int) -> Features:
        packed = [base64.b85decode(self._lines[i]["features"]) for i in range(n)]
        return np.stack([np.frombuffer(one, np.float32) for one in packed])


def state_key(studio: Studio, *more: object) -> str:
    """Tells apart all that figures hang on: our code, torch, the models' files (by size and date), and `more`."""
    digest = hashlib.sha256(repr((torch.__version__, str(studio.device), *more)).encode())
    package = Path(__file__).resolve().parents[1]
    for path in sorted(package.rglob("*.py")):
        if path.parent.name not in ("ui", "evaluate"):
            digest.update(path.read_bytes())
    for entry in studio.catalog.entries.values():
        if studio.catalog.available(entry):
            for path in sorted(studio.catalog.folder(entry).rglob("*")):
                if path.suffix in (".json", ".safetensors") and "examples" not in path.parts:
                    digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _draw_scene(seed: int) -> NDArray[np.uint8]:
    from oms_app.training.scenes.painter import draw

    return draw(seed).image
