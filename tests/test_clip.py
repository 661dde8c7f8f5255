"""The CLIP of scenes: it learns, it is saved, and the shipped one recognises scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from oms_app.evaluate import scene_clip, subject_classifier
from oms_app.training.loop import Plan, State, train
from oms_app.training.lumen.stages import HELD_OUT
from oms_app.training.scenes import painter


def test_its_scenes_are_its_own() -> None:
    assert scene_clip.FIRST >= subject_classifier.FIRST + 1_000_000 > subject_classifier.FIRST > HELD_OUT + 1_000_000


def test_a_smoke_run_writes_what_load_reads(tmp_path: Path) -> None:
    out = scene_clip.train_clip(out=tmp_path / "clip", smoke=True, device="cpu")
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    clip = scene_clip.load(out)
    pictures = np.stack([painter.draw(seed).image for seed in range(3)])
    assert clip.encode_images(pictures).shape == clip.encode_texts(["a", "b", "c"]).shape == (3, 128)
    assert json.loads((out / "config.json").read_text())["n"] == scene_clip.GROUP


def test_no_caption_is_twice_in_a_batch() -> None:
    tokenizer = scene_clip.load().tokenizer
    pictures = np.zeros((8, 96, 96, 3), np.uint8)
    batch = next(scene_clip._batches(pictures, [["a cat"], ["a dog"]] * 4, tokenizer, State(), 8))
    assert len(batch["pictures"]) == len(batch["tokens"]) == 2


def test_it_learns_to_tell_black_from_white(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = scene_clip.load().tokenizer
    pictures = np.stack([np.full((96, 96, 3), value, np.uint8) for value in (0, 255)] * 8)
    captions = [["black background"], ["white background"]] * 8
    model = scene_clip.CLIP(**scene_clip.config(tokenizer))
    train(
        "clip",
        torch.nn.ModuleDict({"clip": model}),
        scene_clip.clip_loss,
        lambda device, state: scene_clip._batches(pictures, captions, tokenizer, state, 16),
        Plan(minutes=1, steps=20, learning_rate=1e-3, ema_decays=(0.5,), muon=True),
        work=tmp_path,
        device="cpu",
    )
    clip = scene_clip.SceneClip(model.train(False), tokenizer)
    torch.optim.swa_utils.update_bn([scene_clip.preprocess(pictures)], model)
    assert scene_clip.accuracy(clip, pictures[:2], captions[:2]) == 1.0


def test_the_shipped_one_tells_what_a_scene_shows() -> None:
    clip = scene_clip.load()
    shown = {"a red circle on a white background": ("circle", "red", "white")}
    shown["a blue star on a black background"] = ("star", "blue", "black")
    pictures = np.stack(
        [painter.draw(7, kind="shape", subject=s, colour=c, ground=g, side="").image for s, c, g in shown.values()]
        + [
            painter.draw(7, kind="landscape", subject="mountains", time=t, weather="clear").image
            for t in ("night", "noon")
        ]
    )
    texts = [*shown, "mountains at night", "mountains at noon"]
    image, text = (
        v / np.linalg.norm(v, axis=1, keepdims=True) for v in (clip.encode_images(pictures), clip.encode_texts(texts))
    )
    assert (image @ text.T).argmax(1).tolist() == [0, 1, 2, 3]
    assert json.loads((scene_clip.FOLDER / "config.json").read_text())["accuracy"] > 0.7
