"""The CLIP that pictures are measured with: it learns, it is kept, and the shipped one knows its scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from oms_app.evaluate import scene_clip as clips
from oms_app.evaluate import subject_classifier as judges
from oms_app.training.loop import Plan, State, train
from oms_app.training.lumen.stages import HELD_OUT
from oms_app.training.scenes import painter as scenes


def test_its_scenes_are_its_own() -> None:
    assert clips.FIRST >= judges.FIRST + 1_000_000 > judges.FIRST > HELD_OUT + 1_000_000


def test_a_smoke_run_writes_what_load_reads(tmp_path: Path) -> None:
    out = clips.train_clip(out=tmp_path / "clip", smoke=True, device="cpu")
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    clip = clips.load(out)
    pictures = np.stack([scenes.draw(seed).image for seed in range(3)])
    assert clip.see(pictures).shape == clip.read(["a", "b", "c"]).shape == (3, 128)
    assert json.loads((out / "config.json").read_text())["n"] == clips.GROUP


def test_no_caption_is_twice_in_a_batch() -> None:
    tokenizer = clips.load().tokenizer
    pictures = np.zeros((8, 96, 96, 3), np.uint8)
    batch = next(clips._batches(pictures, [["a cat"], ["a dog"]] * 4, tokenizer, State(), 8))
    assert len(batch["pictures"]) == len(batch["tokens"]) == 2


def test_it_learns_to_tell_black_from_white(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = clips.load().tokenizer
    pictures = np.stack([np.full((96, 96, 3), value, np.uint8) for value in (0, 255)] * 8)
    captions = [["black background"], ["white background"]] * 8
    model = clips.CLIP(**clips.config(tokenizer))
    train(
        "clip",
        torch.nn.ModuleDict({"clip": model}),
        clips.clip_loss,
        lambda where, state: clips._batches(pictures, captions, tokenizer, state, 16),
        Plan(minutes=1, steps=20, learning_rate=1e-3, ema_decays=(0.5,), muon=True),
        work=tmp_path,
        device="cpu",
    )
    clip = clips.SceneClip(model.train(False), tokenizer)
    torch.optim.swa_utils.update_bn([clips.look(pictures)], model)
    assert clips.accuracy(clip, pictures[:2], captions[:2]) == 1.0


def test_the_shipped_one_tells_what_a_scene_shows() -> None:
    clip = clips.load()
    shown = {"a red circle on a white background": ("circle", "red", "white")}
    shown["a blue star on a black background"] = ("star", "blue", "black")
    pictures = np.stack(
        [scenes.draw(7, kind="shape", subject=s, colour=c, ground=g, side="").image for s, c, g in shown.values()]
        + [
            scenes.draw(7, kind="landscape", subject="mountains", time=t, weather="clear").image
            for t in ("night", "noon")
        ]
    )
    texts = [*shown, "mountains at night", "mountains at noon"]
    image, text = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (clip.see(pictures), clip.read(texts)))
    assert (image @ text.T).argmax(1).tolist() == [0, 1, 2, 3]
    assert json.loads((clips.FOLDER / "config.json").read_text())["accuracy"] > 0.7
