"""Sizes and hyper-parameters of OMS modules are the paper's, and gradients add up to those of one large batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from oms_app.training import any_base, loop, oms
from oms_app.training.loop import Plan, State, train

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("size", "millions"),
    [("S", (3.3, 3.7, 8.1)), ("B", (151, 154, 187)), ("L", (831, 838, 915))],
)
def test_the_sizes_are_those_of_table_3(size: str, millions: tuple[float, ...]) -> None:
    for width, wanted in zip((768, 1024, 4096), millions, strict=True):  # CLIP ViT-L, OpenCLIP ViT-H, T5-XXL
        with torch.device("meta"):
            module = oms.build_module(oms.SIZES[size], width, 64)
        assert module.num_parameters() / 1e6 == pytest.approx(wanted, abs=0.1 if wanted < 10 else 1.0)


def test_the_papers_hyper_parameters_are_the_defaults() -> None:
    settings = any_base.Settings()
    assert (settings.steps, settings.size, settings.batch, settings.learning_rate) == (2_000, "S", None, None)
    assert any_base.RATES == {"clip": (512, 5e-5), "t5": (256, 3.5e-5), "sdxl": (128, 2.5e-5)}
    assert Plan(minutes=1, learning_rate=1).weight_decay == 0.01


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training in float32, where bfloat16 pays too. accelerate keeps its precision for the whole process."""
    monkeypatch.setattr(loop, "bfloat16_pays", lambda where: False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("float32")
def test_gradients_added_up_are_those_of_one_large_batch(tmp_path: Path) -> None:
    data = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def trained(accumulate: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.ModuleDict({"line": torch.nn.Linear(3, 1)})
        parts = data.chunk(accumulate)

        def batches(device: torch.device, state: State):  # type: ignore[no-untyped-def]
            while True:
                yield from ({"x": part} for part in parts)

        plan = Plan(minutes=0, steps=5, learning_rate=0.1, accumulate=accumulate)
        work = tmp_path / str(accumulate)
        train("line", model, lambda m, b, _: (m["line"](b["x"]) - 1).square().mean(), batches, plan, work=work,
              device="cpu")  # fmt: skip
        assert json.loads((work / "line.json").read_text())["pictures"] == 40
        return torch.cat([weights.detach().flatten() for weights in model.parameters()])

    assert torch.allclose(trained(1), trained(4), atol=1e-5)
