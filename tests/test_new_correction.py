"""A correction that is registered by one class and one entry is known everywhere, without another edit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from conftest import built_page
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from oms_app import GenerateRequest, Studio, Variant
from oms_app.cli import entry
from oms_app.engine.service import StudioService
from oms_app.evaluate.luminance import luminance
from oms_app.evaluate.pictures import collect_samples
from oms_app.fields import RequestField
from oms_app.output import png
from oms_app.prestep.corrections import CORRECTIONS, CorrectionSpec, register, unregister
from oms_app.prestep.methods import Start, WithoutTexts
from oms_app.schema import RAW, variant_of

TILT = RequestField("tilt", float, "Tilt", "How much one channel is moved.", default=0.5, low=0.0, high=3.0, step=0.1)
SIDE = RequestField("side", str, "Side", "Which way it is moved.", default="up", choices=("up", "down"))


@dataclass(frozen=True)
class Tilted(WithoutTexts):
    """Moves the first channel of the noise up or down."""

    tilt: float = 0.5
    side: str = "up"

    def correct(self, start: Start) -> Tensor:
        moved = start.x_s.clone()
        moved[:, 0] += self.tilt if self.side == "up" else -self.tilt
        return moved


@pytest.fixture(autouse=True)
def tilted() -> Iterator[None]:
    register(CorrectionSpec("tilted", "Tilted noise", "Moves one channel.", Tilted, (TILT, SIDE)))
    yield
    unregister("tilted")


def test_requests_validate_its_settings() -> None:
    assert Variant(name="a", correction="tilted", tilt=2).spec.read(Variant(name="a", correction="tilted", tilt=2)) == {
        "tilt": 2.0,
        "side": "up",
    }
    for wrong, message in (
        ({"tilt": 4}, "tilt is 4: take 0 to 3"),
        ({"side": "left"}, "side is left: choose one of up, down"),
        ({"slope": 1}, "no setting 'slope'"),
        ({"guidance_scale": 2.0}, "tilted does not read guidance_scale"),
    ):
        with pytest.raises(ValidationError, match=message):
            Variant(name="a", correction="tilted", **wrong)
    with pytest.raises(ValidationError, match="oms does not read tilt"):
        Variant(name="a", correction="oms", tilt=2.0)


def test_the_engine_runs_it_and_caches_by_its_settings(studio: Studio) -> None:
    variants = (RAW, *(Variant(name=f"t{tilt}", correction="tilted", tilt=tilt) for tilt in (0.0, 2.0)))
    result = studio.generate(GenerateRequest(prompt="sea", seed=1, variants=variants))
    raw, still, moved = (np.asarray(image.image, int) for image in result.images)
    assert np.abs(raw - still).max() <= 1 and np.abs(raw - moved).max() > 1
    again = studio.generate(GenerateRequest(prompt="sea", seed=1, variants=variants))
    assert again.painted == 0


def test_a_picture_carries_its_settings(studio: Studio, tmp_path: Path) -> None:
    variant = Variant(name="mine", correction="tilted", tilt=2.0, side="down")
    saved = png.save(studio.generate(GenerateRequest(prompt="sea", seed=1, variants=(variant,))), tmp_path)
    path = saved.images[0].path
    assert path is not None
    with Image.open(path) as picture:
        assert "Tilt: 2.0, Side: down" in picture.info["parameters"]
        assert "OMS prompt" not in picture.info["parameters"]
    assert png.read(path, ["lumen"]).request.variants == (variant,)


def test_the_command_line_has_its_options(
    presets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    monkeypatch.setenv("COLUMNS", "300")
    for command in (["generate"], ["evaluate", "luminance"], ["evaluate", "quality"]):
        assert entry.main([*command, "--help"]) == 0
        assert f"{', '.join(CORRECTIONS)}, separated by commas" in capsys.readouterr().out
    assert entry.main(["generate", "--help"]) == 0
    assert re.search(
        r"--tilt +<float> +How much one channel is moved. Take 0 to 3. \[default: 0.5\]", capsys.readouterr().out
    )
    asked = ["generate", "sea", "--variants", "raw,tilted", "--tilt", "2", "--seed", "1", "--out", str(tmp_path)]
    assert entry.main([*asked, "--device", "cpu", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [image["variant"] for image in printed["images"]] == ["raw", "tilted"]
    assert printed["images"][0]["mean"] != printed["images"][1]["mean"]
    assert entry.main(["generate", "sea", "--tilt", "4"]) == 2
    assert "--tilt is 4.0: take 0 to 3" in capsys.readouterr().err


def test_it_is_evaluated(studio: Studio) -> None:
    samples = collect_samples(studio, captions=2, variants=(RAW, variant_of("tilted", {"tilt": 2.0})), seed=0)
    assert set(luminance(samples)["wasserstein"]) == {"raw", "tilted"}


def test_the_page_and_the_api_have_it(presets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(presets))
    service = StudioService(device="cpu", home=tmp_path)
    demo = built_page(service)
    labels = {getattr(block, "label", None) for block in demo.blocks.values()}
    assert {"Tilt", "Side"} <= labels
    corrections = next(b for b in demo.blocks.values() if b.elem_id == "compare-methods")
    assert isinstance(corrections, gr.CheckboxGroup) and ("Tilted noise", "tilted") in corrections.choices
    endpoint = next(one for one in demo.fns.values() if one.api_name == "generate")
    parameters: dict[str, Any] = {one["parameter_name"]: one for one in api_parameters(demo, "/generate")}
    assert parameters["tilt"]["parameter_default"] == 0.5 and parameters["side"]["parameter_default"] == "up"
    values = {name: one["parameter_default"] for name, one in parameters.items()}
    values |= {"prompt": "sea", "seed": 1, "variants": ["raw", "tilted"], "tilt": 2.0}
    answer = endpoint.fn(*values.values(), None)
    assert [image["variant"] for image in answer["images"]] == ["raw", "tilted"]
    with pytest.raises(gr.Error, match=r"(?<!-)tilt is 9: take 0 to 3"):
        endpoint.fn(*(values | {"tilt": 9}).values(), None)


def api_parameters(demo: gr.Blocks, name: str) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = demo.get_api_info()["named_endpoints"][name]["parameters"]
    return parameters
