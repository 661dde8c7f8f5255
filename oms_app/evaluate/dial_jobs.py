"""The work of `evaluate dials`, in one process or several: what was stored is read, the rest is made.

Each part of each prompt is one file in evaluation/dials in the user's folder, named by a hash of all that it depends
on. So a stopped run resumes, and a run with other weights, code or settings starts anew.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from oms_app.engine.studio import Studio
from oms_app.evaluate import scene_clip, subject_classifier
from oms_app.evaluate.dial_cost import cost
from oms_app.evaluate.dial_rivals import Rivals
from oms_app.evaluate.dials import RIVAL_LEVELS, DialJob, Item, Painter, Records, rival_tasks, settings
from oms_app.evaluate.neutral_prompts import PROMPTS
from oms_app.paths import EMBEDDED, atomic_write
from oms_app.prestep.step import MIN_TERMINAL_SNR

CODE = ("engine", "measure", "models", "prestep")  # parts of the package that pictures and their figures depend on
OWN_CODE = ("dials.py", "dial_rivals.py", "scene_clip.py", "subject_classifier.py")
OnPictures = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Measured:
    """records: of each prompt, setting → one record for each seed. about: the model, and how it was measured."""

    records: list[Records]
    about: dict[str, Any]


def collect(
    studio: Studio,
    *,
    model: str = EMBEDDED,
    prompts: int = len(PROMPTS),
    seeds: int = 4,
    rivals: bool = True,
    processes: int = 1,
    on_pictures: OnPictures | None = None,
) -> Measured:
    """The figures of the first `prompts` prompts. on_pictures(done, total, seconds left): progress.

    rivals: measure the other ways too, which run the embedded model only. Every process has one thread, so the figures
    do not depend on how many processes there are.
    """
    base = studio.catalog.find(model, "base")
    judged = bool(base.folder) and not Path(base.folder).is_absolute()  # a model of the family that learnt the scenes
    weights = weights_of(studio, model)
    job = DialJob(
        studio.home, studio.catalog.presets, str(studio.device), model, _hash(weights, _code()), seeds, judged
    )
    about = {"model": base.id, "weights": weights, "judged": judged, "free": _free(studio, model)}
    about["cost"] = _stored(_path(job, "cost"), lambda: cost(studio, model))
    parts = [part for part in settings() if part != "rivals" or (rivals and model == EMBEDDED)]
    items = [Item(part, i) for part in parts for i in range(prompts if part != "fixed" else 1)]
    with one_thread():
        if "rivals" in parts:
            job = replace(job, offset_scale=_stored(_path(job, "offset"), _search_offset))
        watch = _Progress(job, items, on_pictures)
        if processes > 1:
            _run_in_processes(job, items, processes, watch)
        painter: Painter | None = None
        for item in items:
            if not _item_path(job, item).exists():
                painter = painter or Painter(job, studio)
                _make(painter, job, item)
            watch.report()
    records: list[Records] = [{} for _ in range(prompts)]
    for item in items:
        records[item.prompt] |= json.loads(_item_path(job, item).read_text(encoding="utf-8"))["records"]
    return Measured(records, about)


def weights_of(studio: Studio, model: str) -> str:
    """A hash of the files of a base, also of one that it adapts, and of its OMS modules."""
    names = studio.inspect(model)["oms_modules"]  # one that is not in the catalogue lies in the base's folder
    entries = [
        studio.catalog.find(model, "base"),
        *(studio.catalog.entries[name] for name in names if name in studio.catalog.entries),
    ]
    files = {}
    for folder in (studio.catalog.weights(entries[0]), *map(studio.catalog.folder, entries)):
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if path.suffix in (".json", ".safetensors") and "examples" not in path.parts:
                files[path.resolve()] = path.relative_to(folder)
    digest = hashlib.sha256()
    for path, name in files.items():
        digest.update(str(name).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes with one thread inside: with more of them sums are rounded in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Progress:
    """Counts the pictures of the items whose files exist."""

    def __init__(self, job: DialJob, items: Sequence[Item], on_pictures: OnPictures | None) -> None:
        self._sizes = {_item_path(job, item): item.pictures(job) for item in items}
        self._on_pictures = on_pictures
        self._began = time.monotonic()
        self._stored = self._last = self._done()

    def report(self) -> None:
        done, total = self._done(), sum(self._sizes.values())
        if self._on_pictures is None or done == self._last:
            return
        pace = (time.monotonic() - self._began) / (done - self._stored)
        self._last = done
        self._on_pictures(done, total, pace * (total - done))

    def _done(self) -> int:
        return sum(size for path, size in self._sizes.items() if path.exists())


def _run_in_processes(job: DialJob, items: Sequence[Item], processes: int, watch: _Progress) -> None:
    """Each takes every n-th item. If a process fails, the caller does the rest of its share."""
    missing = [item for item in items if not _item_path(job, item).exists()]
    context = multiprocessing.get_context("spawn")
    shares = [missing[k::processes] for k in range(min(processes, len(missing)))]
    workers = [context.Process(target=_run_share, args=(job, share), daemon=True) for share in shares]
    for worker in workers:
        worker.start()
    try:
        while running := [worker.sentinel for worker in workers if worker.is_alive()]:
            wait(running, timeout=1)
            watch.report()
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _run_share(job: DialJob, share: Sequence[Item]) -> None:
    """In a process of its own, which ends at once if its parent is killed."""
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    with one_thread():
        painter = Painter(job)
        for item in share:
            _make(painter, job, item)


def _make(painter: Painter, job: DialJob, item: Item) -> None:
    began = time.monotonic()
    records = painter.run(item)
    atomic_write(_item_path(job, item), json.dumps({"seconds": time.monotonic() - began, "records": records}))


def _item_path(job: DialJob, item: Item) -> Path:
    made = rival_tasks(), job.offset_scale, RIVAL_LEVELS
    how = made if item.part == "rivals" else [variant.model_dump() for variant in settings()[item.part]]
    return _path(job, item.part, PROMPTS[item.prompt], item.seed, item.count(job), job.judged, how)


def _path(job: DialJob, part: str, *key: object) -> Path:
    everything = _hash(torch.__version__, job.made_with, job.model, job.device, *key)
    return job.home / "evaluation" / "dials" / f"{part}-{everything}.json"


def _hash(*key: object) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def _code() -> str:
    """A hash of the code that pictures and their figures depend on, and of the judges' weights."""
    here = Path(__file__).resolve().parent
    files = [path for part in CODE for path in sorted((here.parent / part).rglob("*.py"))]
    files += [here.parent / "light.py", *(here / name for name in OWN_CODE)]
    files += [folder / "model.safetensors" for folder in (scene_clip.FOLDER, subject_classifier.FOLDER)]
    return _hash(*(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))


def _free(studio: Studio, model: str) -> str:
    """What the free run is: OMS, or the base alone if it has no module or starts from pure noise."""
    found = studio.inspect(model)
    return "oms" if found["oms_modules"] and found["snr_first"] >= MIN_TERMINAL_SNR else "raw"


def _stored(path: Path, make: Callable[[], Any]) -> Any:
    """What a file holds; if there is none, `make()`, which is stored."""
    if not path.exists():
        atomic_write(path, json.dumps(make()))
    return json.loads(path.read_text(encoding="utf-8"))


def _search_offset() -> float:
    return Rivals().search_offset([prompt for prompt, _ in PROMPTS[:3]], [[level / 100] * 3 for level in RIVAL_LEVELS])
