"""Processes that are killed while they save, two of them in one folder: nothing is half-written, nothing is lost."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_history import OMS, STATS, keep

from oms_app import GenerateRequest, GenerateResult, looks
from oms_app.engine.estimates import RunTimes
from oms_app.looks import LookLibrary
from oms_app.models import user_models
from oms_app.models.catalog import open_catalog
from oms_app.output.history import History
from oms_app.output.png import read_any
from oms_app.records import remove_leftovers
from oms_app.schema import ImageResult, Seconds

SECONDS = Seconds(**dict.fromkeys(Seconds.model_fields, 1.0))
REQUEST = GenerateRequest(
    prompt="sea", seed=1, variants=(OMS,), width=64, height=64, num_inference_steps=1, guidance_scale=1.0
)


def save_for_ever(home: Path, presets: Path, lora: Path, name: str) -> None:
    """Saves a picture, a look, a model, a favourite and a run time, again and again; the journal has what is saved."""
    looks.MAX_USER_LOOKS = 10**6
    journal = os.open(home / f"{name}.journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    catalog, history = open_catalog(presets, home), History(home / "pictures")
    times, library = RunTimes(home / "pace.json"), LookLibrary(folder=home / "looks")
    image = ImageResult(variant="oms", index=0, seed=1, image=Image.new("RGB", (8, 8)), stats=STATS)
    result = GenerateResult(request=REQUEST, seed=1, images=(image,), seconds=SECONDS, painted=1)
    for i in itertools.count():

        def done(kind: str, what: str) -> None:
            os.write(journal, f"{kind} {what}\n".encode())

        (picture,) = keep(home / "pictures", f"{name} {i}", variants=(OMS,))
        done("picture", picture)
        done("look", library.save(f"{name} {i}", Image.new("RGB", (128, 128), (i % 256, 9, 9))).id)
        (file := home / f"loras/{name}/style {i}.safetensors").parent.mkdir(parents=True, exist_ok=True)
        done("model", user_models.add(catalog, str(shutil.copy(lora, file))).folder)
        history.mark(picture, True)
        done("favourite", picture)
        times.learn(result)


def check(home: Path, presets: Path) -> dict[str, int]:
    """How many of each kind were saved. Fails if one is missing or not whole."""
    told: dict[str, set[str]] = {"picture": set(), "look": set(), "model": set(), "favourite": set()}
    for journal in home.glob("*.journal"):
        for line in journal.read_text().splitlines():
            kind, _, what = line.partition(" ")
            told[kind].add(what)
    pictures = {path.name for path in (home / "pictures").glob("*.png")}
    for name in pictures:
        read_any(home / "pictures" / name)
        with Image.open(home / "pictures" / name) as image:
            image.load()
    library, times = LookLibrary(folder=home / "looks"), RunTimes(home / "pace.json")
    catalog = open_catalog(presets, home)
    history = History(home / "pictures")
    history.refresh()
    history.wait()
    favourites = {one.name for one in history.find(count=10**6).pictures if one.favourite}
    shown = {look.id for look, _ in library.looks()}
    added = {entry.folder for entry in catalog.entries.values()}
    found = {"picture": pictures, "look": shown, "model": added, "favourite": favourites}
    lost = {kind: told[kind] - found[kind] for kind in told}
    assert not any(lost.values()), lost
    assert not [*library.warnings, *catalog.warnings, *times.warnings]
    assert times.estimate([REQUEST], {REQUEST.model: REQUEST}) == pytest.approx(3.0), "correct, denoise and decode"
    remove_leftovers(home, home / "pictures", home / "looks", home / "models", older_than=-1)
    assert not [path for path in home.rglob("*") if ".tmp" in path.name or "damaged" in path.name]
    return {kind: len(names) for kind, names in told.items()}


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_two_processes_are_killed_while_they_save(
    kills: int,
    presets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, chance = tmp_path / "shared", random.Random(kills)
    home.mkdir()
    save_file({f"unet.a.lora_{one}.weight": torch.zeros(2, 2) for one in "AB"}, lora := tmp_path / "style.safetensors")
    processes = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the process that forks imports this file once
    processes.set_forkserver_preload([__name__])

    def begin(number: int) -> multiprocessing.process.BaseProcess:
        process = processes.Process(target=save_for_ever, args=(home, presets, lora, f"n{number}"), daemon=True)
        process.start()
        return process

    running = [begin(0), begin(1)]
    for number in range(2, kills + 2):
        before = sum(path.stat().st_size for path in home.glob("*.journal"))
        until = time.monotonic() + 60
        while sum(path.stat().st_size for path in home.glob("*.journal")) <= before:
            assert time.monotonic() < until and all(one.is_alive() for one in running), "nothing is saved any more"
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        running[number % 2].kill()
        running[number % 2].join()
        running[number % 2] = begin(number)
    for process in running:
        process.kill()
        process.join()
    saved = check(home, presets)
    assert min(saved.values()) >= kills // 2
    with capsys.disabled():
        print(f"{kills + 2} kills: {saved}")
