"""The pictures that every evaluation measures: held-out captions through the engine, and reference scenes for them.

Of a picture its mean and its features are recorded, line by line on disk, so that a stopped evaluation resumes and
`evaluate luminance`, `quality` and `report` share their pictures. A change of code or weights starts new records.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import queue
from collections.abc import Callable, Collection, Sequence
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
from oms_app.paths import EMBEDDED, EMBEDDED_FOLDER
from oms_app.schema import Frozen, GenerateRequest, Lora, Variant

CAPTIONS = EMBEDDED_FOLDER / "captions.json"
REFERENCES = 4  # scenes per caption
MIN_CAPTIONS_PER_PROCESS = 25  # starting a process takes seconds
Means = NDArray[np.float64]
Features = NDArray[np.float32]
FeatureExtractor = Callable[[NDArray[np.uint8]], Features]  # (B, H, W, 3) → (B, D)
DrawScene = Callable[[int], NDArray[np.uint8]]  # seed → (H, W, 3)


class CaptionEntry(Frozen):
    """A held-out caption and the seeds of four scenes that it describes."""

    caption: Annotated[str, Field(min_length=1)]
    scene_seeds: Annotated[tuple[int, ...], Field(min_length=REFERENCES, max_length=REFERENCES)]


class CaptionFile(Frozen):
    """The contents of captions.json."""

    captions: Annotated[tuple[CaptionEntry, ...], Field(min_length=2)]


@dataclass(frozen=True)
class EvalSamples:
    """n captions, with one picture of each variant and four scenes for each. Means are in 0…255.

    means: variant's name → (n,). scene_means: (n, 4). features: variant's name → (n, D), scene_features: (n, 4, D);
    both are empty if no feature extractor was given.
    """

    model: str
    seed: int
    captions: tuple[str, ...]
    means: dict[str, Means]
    scene_means: Means
    features: dict[str, Features]
    scene_features: Features


def read_captions(path: Path = CAPTIONS) -> tuple[CaptionEntry, ...]:
    """The held-out captions. Raises StudioError if the file is missing or not valid."""
    try:
        return CaptionFile.model_validate(json.loads(path.read_text(encoding="utf-8"))).captions
    except (OSError, ValueError, ValidationError) as error:
        raise StudioError(f"the held-out captions at {path} cannot be read: restore that file") from error


def collect_samples(
    studio: Studio,
    *,
    model: str = EMBEDDED,
    captions: int = 200,
    variants: Sequence[Variant] = (),
    seed: int = 0,
    feature_extractor: FeatureExtractor | None = None,
    on_caption: Callable[[int, int], None] | None = None,
    entries: Sequence[CaptionEntry] | None = None,
    draw_scene: DrawScene | None = None,
    processes: int = 1,
    loras: Sequence[Lora] = (),
) -> EvalSamples:
    """One picture of each variant for each of `captions` captions, selected by `seed`; caption i has seed `seed + i`.

    feature_extractor: features of pictures and scenes, such as SceneClip.encode_images; None records means only.
    on_caption(done, total): progress. entries, draw_scene: captions instead of the shipped ones, and how a scene is
    drawn from its seed. processes: how many share the captions, each with its own model and one thread; on two cores
    two of them are 1.4 times as fast as one with two threads. loras: fused into the model. Records are in evaluation/
    in the user's folder.
    Raises StudioError if there are fewer held-out captions than `captions`, or the seed is too large.
    """
    available = read_captions() if entries is None else entries
    if captions > len(available):
        raise StudioError(f"--captions is {captions}: take at most {len(available)}, the number of held-out captions")
    if seed + captions > MAX_SEED:
        raise StudioError(f"--seed is {seed}: take 0 to {MAX_SEED - captions}")
    selected = tuple(available[i] for i in np.random.default_rng(seed).permutation(len(available))[:captions])
    folder = (
        studio.home
        / "evaluation"
        / state_key(studio, {model, *(lora.id for lora in loras)}, model, seed, available, *loras)
    )
    job = EvalJob(folder, model, seed, selected, tuple(variants), feature_extractor, draw_scene, tuple(loras))
    records = job.read_records()
    missing = job.missing(records)

    def report(left: int) -> None:
        if on_caption is not None:
            on_caption(captions - left, captions)

    if len(missing) < captions:
        report(len(missing))
    if processes > 1 and len(missing) >= MIN_CAPTIONS_PER_PROCESS * processes:
        _run_in_processes(studio, job, len(missing), processes, report)
        records = job.read_records()
        missing = job.missing(records)
    for left in range(len(missing) - 1, -1, -1):
        job.run_caption(studio, missing[-1 - left], records)
        report(left)
    return job.samples(records)


@dataclass(frozen=True)
class EvalJob:
    """What is to be generated, in a form that every process that takes a share of it receives."""

    folder: Path
    model: str
    seed: int
    entries: tuple[CaptionEntry, ...]
    variants: tuple[Variant, ...]
    feature_extractor: FeatureExtractor | None
    draw_scene: DrawScene | None
    loras: tuple[Lora, ...] = ()

    def read_records(self) -> dict[str, Records]:
        """What was recorded before: "scenes", and "of NAME" for each variant."""
        of_variants = {f"of {variant.name}": Records(self.folder, variant) for variant in self.variants}
        return of_variants | {"scenes": Records(self.folder, "scenes")}

    def missing(self, records: dict[str, Records]) -> list[int]:
        """Indices of the captions that lack a picture, a scene or features."""
        with_features = self.feature_extractor is not None
        return [i for i in range(len(self.entries)) if not all(one.has(i, with_features) for one in records.values())]

    def run_caption(self, studio: Studio, i: int, records: dict[str, Records]) -> None:
        """Draw caption i's scenes and generate its pictures, unless they are recorded already."""
        entry, extract = self.entries[i], self.feature_extractor
        if not records["scenes"].has(i, extract is not None):
            scenes = np.stack([(self.draw_scene or _draw_scene)(scene_seed) for scene_seed in entry.scene_seeds])
            means = [float(scene.mean()) for scene in scenes]
            records["scenes"].add(i, means, extract(scenes) if extract else None)
        missing = tuple(v for v in self.variants if not records[f"of {v.name}"].has(i, extract is not None))
        if missing:
            request = GenerateRequest(
                prompt=entry.caption, model=self.model, loras=self.loras, variants=missing, seed=self.seed + i
            )
            images = studio.generate(request).images
            features = extract(np.stack([np.asarray(image.image) for image in images])) if extract else None
            for k, image in enumerate(images):
                records[f"of {image.variant}"].add(i, image.stats.mean, None if features is None else features[k])

    def samples(self, records: dict[str, Records]) -> EvalSamples:
        """The records as arrays. Every caption must have been recorded."""
        n, names, scenes = len(self.entries), [variant.name for variant in self.variants], records["scenes"]
        extracted = self.feature_extractor is not None
        return EvalSamples(
            self.model,
            self.seed,
            tuple(entry.caption for entry in self.entries),
            {name: records[f"of {name}"].means(n) for name in names},
            scenes.means(n),
            {name: records[f"of {name}"].features(n) for name in names} if extracted else {},
            scenes.features(n).reshape(n, REFERENCES, -1) if extracted else np.empty((0, 0, 0), np.float32),
        )


def _run_in_processes(studio: Studio, job: EvalJob, left: int, processes: int, report: Callable[[int], None]) -> None:
    """Run a job in several processes of one thread each. If a process dies, the caller does the rest of its share."""
    context = multiprocessing.get_context("spawn")
    finished = context.Queue()
    workers = [
        context.Process(
            target=_run_share, args=(studio.home, str(studio.device), job, k, processes, finished), daemon=True
        )
        for k in range(processes)
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) or not finished.empty():
        with suppress(queue.Empty):
            finished.get(timeout=0.5)
            left -= 1
            report(left)


def _run_share(home: Path, device: str, job: EvalJob, share: int, shares: int, finished: Any) -> None:
    torch.set_num_threads(1)
    studio = Studio(home=home, device=device)
    records, parent = job.read_records(), multiprocessing.parent_process()
    for i in job.missing(records):
        if parent is not None and not parent.is_alive():
            return  # it was killed, so nobody waits for this
        if i % shares == share:
            job.run_caption(studio, i, records)
            finished.put(i)


class Records:
    """What is recorded of one variant's pictures, or of the scenes: a line of JSON for each caption's index."""

    def __init__(self, folder: Path, of: Variant | str) -> None:
        if isinstance(of, str):
            name = of
        else:  # the name of a variant does not change its pictures
            settings = json.dumps(of.model_dump(exclude={"name"}), sort_keys=True)
            name = f"{of.correction}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
        self._path = folder / f"{name}.jsonl"
        self._lines: dict[int, dict[str, Any]] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue  # cut off while it was written
                self._lines[record["i"]] = record

    def has(self, i: int, with_features: bool) -> bool:
        return i in self._lines and not (with_features and self._lines[i]["features"] is None)

    def add(self, i: int, mean: float | list[float], features: Features | None) -> None:
        packed = None if features is None else base64.b85encode(features.astype(np.float32).tobytes()).decode()
        self._lines[i] = {"i": i, "mean": mean, "features": packed}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(self._lines[i]))  # the line break comes first: the last line may be cut off

    def means(self, n: int) -> Means:
        return np.array([self._lines[i]["mean"] for i in range(n)], np.float64)

    def features(self, n: int) -> Features:
        packed = [base64.b85decode(self._lines[i]["features"]) for i in range(n)]
        return np.stack([np.frombuffer(one, np.float32) for one in packed])


def state_key(studio: Studio, used: Collection[str], *more: object) -> str:
    """A hash of everything that the pictures depend on: our code, torch, files (size and date), `more`.

    used: ids of the base and the LoRAs. Their files count, those of a base that is adapted, and those of all modules.
    """
    digest = hashlib.sha256(repr((torch.__version__, str(studio.device), *more)).encode())
    package = Path(__file__).resolve().parents[1]
    for path in sorted(package.rglob("*.py")):
        if path.parent.name not in ("ui", "cli", "evaluate", "bench") or path.name == "scene_clip.py":
            digest.update(path.read_bytes())
    adapted = {entry.adapts for entry in studio.catalog.entries.values() if entry.id in used}
    for entry in studio.catalog.entries.values():
        counts = entry.id in used or entry.id in adapted or entry.kind not in ("base", "lora")
        if counts and studio.catalog.available(entry):
            folder = studio.catalog.folder(entry)
            for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
                if path.suffix in (".json", ".safetensors") and "examples" not in path.parts:
                    digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _draw_scene(seed: int) -> NDArray[np.uint8]:
    from oms_app.training.scenes.painter import draw

    return draw(seed).image
