"""Where a picture is bright: directions on the grid of cells, and pictures as 48 numbers and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from oms_app import Variant, light
from oms_app.errors import describe
from oms_app.light import GREY, LIGHTS, layout_picture, layout_text, layout_values
from oms_app.prestep.layout import coefficient, direction, hold_direction, modes_of, picture_modes


@pytest.mark.parametrize("name", LIGHTS)
def test_a_direction_has_mean_0_and_holds_its_coefficient(name: str) -> None:
    basis = direction(name, 16, 24)
    assert abs(float(basis.mean())) < 1e-6 and float(basis.abs().max()) == 1
    cells = torch.full((3, 16, 24), 0.5)
    held = hold_direction(hold_direction(cells, basis, 0.5), basis, 0.5)
    torch.testing.assert_close(held[0] - 0.5, 0.3 * basis, atol=1e-5, rtol=0)
    assert hold_direction(cells * 0.2, basis, 1.0).min() >= 0, "dark pictures have less room"
    against = [coefficient(hold_direction(cells, basis, 0.5, against), basis) for against in (0.1, 9.0)]
    assert against == pytest.approx([0.25, 0.15], abs=1e-5), "a part of the picture's own light is kept"


def test_a_side_is_turned_clockwise() -> None:
    for name, angle, other in (
        ("left", 90, "top"),
        ("top", 90, "right"),
        ("left", -90, "bottom"),
        ("right", 180, "left"),
    ):
        torch.testing.assert_close(direction(name, 16, 24, angle), direction(other, 16, 24), atol=1e-5, rtol=0)
    corner = direction("left", 16, 16, 45)
    assert float(corner[0, 0]) == pytest.approx(1) and float(corner[0, 15]) == pytest.approx(0, abs=1e-5)


def test_a_centre_glows_and_a_vignette_is_level_but_for_its_corners() -> None:
    centre, vignette = direction("centre", 32, 32), direction("vignette", 32, 32)
    middle, edge = (slice(12, 20), slice(12, 20)), (slice(12, 20), slice(0, 2))
    assert centre[middle].min() > 0.5 and centre[edge].max() < 0
    assert float(vignette[middle].max() - vignette[middle].min()) < 0.02 and vignette[0, 0] == -1
    assert float(vignette[edge].mean() - vignette[0, 0]) > float(vignette[middle].mean() - vignette[edge].mean())


def test_a_picture_becomes_numbers_and_back(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 96, dtype=np.uint8)[None], 64, 0)
    picture = Image.fromarray(np.stack([ramp, ramp, ramp[:, ::-1]], -1))
    modes = picture_modes(layout_text(picture))
    wide = torch.from_numpy(np.array(picture)).movedim(-1, 0).double() / 255
    assert (modes_of(wide) - modes).abs().max() < 0.003
    path = tmp_path / "my secret.png"
    picture.save(path)
    variant = Variant.model_validate({"name": "a", "correction": "dial", "light": path})
    assert variant.light == layout_text(picture) and "secret" not in variant.model_dump_json()
    for wrong in (str(path), "north", "picture:1,2", f"picture:{','.join(['9999'] * 48)}", tmp_path / "none.png"):
        with pytest.raises(ValidationError) as error:
            Variant.model_validate({"name": "a", "correction": "dial", "light": wrong})
        assert "--light is" in describe(error.value) and "choose one of left" in describe(error.value)
    assert len(layout_values(str(variant.light))) == 48


def test_a_light_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (16_000, 12_000)).save(tmp_path / "huge.png")
    Image.new("1", (8001, 8000)).save(tmp_path / "large.png")
    Image.linear_gradient("L").save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    large = "a picture of more than 64,000,000 pixels"
    for name, why in {
        "text.png": "not a picture", "huge.png": large, "large.png": large, "half.png": "damaged or cannot be read",
        "center": "no such file", "x" * 300: "no such file", ".": "no such file",
    }.items():  # fmt: skip
        with pytest.raises(ValidationError) as error:
            Variant.model_validate({"name": "a", "correction": "dial", "light": tmp_path / name})
        assert f"{why}; choose one of left" in describe(error.value)


def test_a_fault_after_a_light_file_was_read_is_not_called_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.linear_gradient("L").save(tmp_path / "whole.png")
    monkeypatch.setattr(light, "SIDE", 0)
    with pytest.raises(ValueError, match="height and width must be > 0"):
        layout_text(tmp_path / "whole.png")


def test_a_picture_counts_as_viewers_show_it(tmp_path: Path) -> None:
    """Turned as its camera says, and grey where it is transparent."""
    upright = Image.linear_gradient("L").convert("RGB")
    turned, path = Image.Exif(), tmp_path / "a.png"
    turned[0x0112] = 6  # to be shown turned by 90° clockwise
    upright.rotate(90).save(path, exif=turned)
    assert layout_text(path) == layout_text(upright)
    stroke = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    assert layout_text(stroke) == layout_text(Image.new("RGB", (64, 64), GREY))
    stroke.paste((255, 255, 255, 255), (0, 0, 32, 64))
    cells = np.asarray(layout_picture(layout_text(stroke)), float)
    assert cells[:, :8].mean() > 200 and cells[:, -8:].mean() == pytest.approx(128, abs=20)
