"""Pictures as an animation: forwards and backwards, every frame as it was in the WebP, no file replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageSequence

from oms_app.errors import StudioError
from oms_app.output.animation import END_MS, FRAME_MS, save_animation


def test_the_frames_go_there_and_back(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 8), (level, 40, 90)) for level in (0, 100, 200, 255)]
    webp, gif = save_animation(pictures, tmp_path / "new", "sweep")
    again = save_animation(pictures, tmp_path / "new", "sweep")
    assert len({webp, gif, *again}) == 4, "no file is replaced"
    assert not [one for one in (tmp_path / "new").iterdir() if one.suffix == ".tmp"]
    for path in (webp, gif):
        with Image.open(path) as animation:
            frames = [(frame.convert("RGB").getpixel((3, 3)), frame.info["duration"]) for frame in
                      ImageSequence.Iterator(animation)]  # fmt: skip
        assert [colour for colour, _ in frames] == [(level, 40, 90) for level in (0, 100, 200, 255, 200, 100)]
        assert [time for _, time in frames] == [END_MS, FRAME_MS, FRAME_MS, END_MS, FRAME_MS, FRAME_MS]
    save_animation(pictures[:1], tmp_path / "new", "one")
    with pytest.raises(ValueError, match="needs a picture"):
        save_animation([], tmp_path, "none")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudioError, match="file cannot be written to"):
        save_animation([Image.new("RGB", (8, 8))], tmp_path / "file", "sweep")
