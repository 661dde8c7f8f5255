"""The loop that all training shares: resuming, learning rates, averages, optimizers, the curve."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from oms_app.training import curves
from oms_app.training.loop import Averages, Batch, Plan, State, grown, learning_rate, optimizers, train
from oms_app.training.lumen import autoencoder
from oms_app.training.muon import Muon, orthogonalized
from oms_app.training.scenes import painter as scenes


def _toy(work: Path, steps: int) -> tuple[torch.nn.ModuleDict, dict[str, Any]]:
    torch.manual_seed(0)
    models = torch.nn.ModuleDict({"line": torch.nn.Linear(2, 1)})

    def batches(device: torch.device, state: State) -> Iterator[Batch]:
        rng = np.random.default_rng(state.step)
        while True:
            x = torch.tensor(rng.normal(size=(16, 2)), dtype=torch.float32, device=device)
            yield {"x": x, "y": x @ torch.tensor([[2.0], [-1.0]]) + 0.5}

    def loss(m: torch.nn.ModuleDict, batch: dict[str, torch.Tensor], used: float) -> torch.Tensor:
        return ((m["line"](batch["x"]).float() - batch["y"]) ** 2).mean()

    plan = Plan(minutes=1, steps=steps, learning_rate=0.1, ema_decays=(0.9,), weight_decay=0.0)
    models = train("toy", models, loss, batches, plan, work=work, device="cpu")
    return models, json.loads((work / "toy.json").read_text())


def test_a_run_learns_and_the_same_command_resumes(tmp_path: Path) -> None:
    _, first = _toy(tmp_path, steps=100)
    models, second = _toy(tmp_path, steps=300)
    assert first["steps"] == 100 and second["steps"] == 300
    assert second["loss"][: len(first["loss"])] == first["loss"]  # the curve goes on, it does not begin again
    assert second["minutes"] >= first["minutes"]
    learned = models.state_dict()["line.weight"].clone()
    assert torch.allclose(learned.flatten(), torch.tensor([2.0, -1.0]), atol=0.05)
    again, third = _toy(tmp_path, steps=300)  # nothing is left to do
    assert third["steps"] == 300 and torch.equal(again.state_dict()["line.weight"], learned)


def test_a_run_leaves_a_curve_that_can_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains no loss curve"):
        curves.draw(tmp_path, tmp_path / "none.png")
    (tmp_path / "unet.json").write_text(json.dumps({"stage": "unet", "loss": [[50, 0.5, 1.0], [100, 1.0, 0.5]]}))
    assert curves.read(tmp_path) == {"unet": [(0.5, 1.0), (1.0, 0.5)]}
    curves.draw(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    plan = Plan(minutes=1, learning_rate=1.0, warmup=0.1, decay=0.5)
    rates = [learning_rate(plan, u) for u in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0)]
    assert rates[0] < rates[1] < rates[2] == rates[3] == pytest.approx(1.0)
    assert rates[3] > rates[4] > rates[5] == pytest.approx(0.02)


def test_growth_shares_a_step_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    growth = ((0.4, 2, 32), (1.0, 1, 16))
    assert [grown(growth, u) for u in (0.0, 0.4, 0.41, 1.0)] == [(2, 32), (2, 32), (1, 16), (1, 16)]
    monkeypatch.setattr("oms_app.training.loop.PartialState", lambda: SimpleNamespace(num_processes=3))
    assert grown(growth, 0.0) == (2, 10) and grown(((1.0, 1, 2),), 0.0) == (1, 1)


def test_muon_steps_are_orthogonal_whatever_the_gradient() -> None:
    """A convolution's step, as an (out, everything else) matrix, has singular values near one times the scale."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    weight.grad = torch.randn(8, 4, 3, 3) * torch.logspace(-3, 0, 8).view(-1, 1, 1, 1)  # rows of very unlike sizes
    Muon([weight], lr=0.01, weight_decay=0.0).step()
    values = torch.linalg.svdvals(weight.detach().view(8, 36)) / (0.2 * 0.01 * 6)
    assert values.max() < 1.25 and values[:4].min() > 0.6 and (weight.detach() * weight.grad).sum() < 0
    tall = torch.randn(3, 20, 5)
    assert torch.allclose(orthogonalized(tall), orthogonalized(tall.mT).mT, atol=1e-5)
    with pytest.raises(ValueError, match="train vectors with AdamW"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


def test_frozen_weights_are_not_trained() -> None:
    models = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2).requires_grad_(False)})
    (adam,) = optimizers(models, Plan(minutes=1, learning_rate=0.1), torch.device("cpu"))
    assert len(adam.param_groups[0]["params"]) == 2


def test_the_average_with_the_lowest_score_is_chosen() -> None:
    line = torch.nn.Linear(1, 1, bias=False)
    weight = line.weight
    averages = Averages(torch.nn.ModuleDict({"line": line}), (0.0, 0.9))
    with torch.no_grad():
        for value in range(200):
            weight.fill_(value)
            averages.step()
    assert averages.choose(weight.item) == 1 and 150 < weight.item() < 199
    assert averages.choose(lambda: -weight.item()) == 0 and weight.item() == 199


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(tmp_path: Path) -> None:
    models = torch.nn.ModuleDict({"line": torch.nn.Linear(1, 1)})
    plan = Plan(minutes=1, steps=100, learning_rate=0.1)
    with pytest.raises(FloatingPointError, match="bad: the loss is nan at step 50"):
        train(
            "bad",
            models,
            lambda m, batch, used: m["line"](batch["x"]).mean() * float("nan"),
            lambda device, state: iter(lambda: {"x": torch.ones(1, 1)}, None),
            plan,
            work=tmp_path,
            device="cpu",
        )
    assert not (tmp_path / "bad.pt").exists()


def test_muon_takes_what_is_a_matrix_inside_a_network() -> None:
    models = torch.nn.ModuleDict(
        {"conv_in": torch.nn.Conv2d(1, 2, 3), "middle": torch.nn.Conv2d(2, 2, 3), "norm": torch.nn.LayerNorm(2)}
    )
    adam, muon = optimizers(models, Plan(minutes=1, learning_rate=0.1, muon=True), torch.device("cpu"))
    assert [len(p.shape) for p in muon.param_groups[0]["params"]] == [4]
    assert len(adam.param_groups[0]["params"]) == 5  # the first convolution, all biases, the norm's weight
    assert len(optimizers(models, Plan(minutes=1, learning_rate=0.1), torch.device("cpu"))) == 1


def test_compiled_models_learn_and_are_given_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with a compiler that changes nothing. An autoencoder's halves are compiled each for itself."""
    monkeypatch.setattr("oms_app.training.loop.compiles", lambda device: True)
    compiled: list[str] = []

    def compile_nothing(self: torch.nn.Module) -> None:
        compiled.append(type(self).__name__)
        self._compiled_call_impl = self._call_impl

    monkeypatch.setattr(torch.nn.Module, "compile", compile_nothing)
    models, curve = _toy(tmp_path / "toy", steps=20)
    assert curve["steps"] == 20 and compiled == ["Linear"]
    assert all(model._compiled_call_impl is None for model in models.values())
    vae = autoencoder.build((8, 8, 16, 16))
    pictures = np.stack([scenes.draw(s).image for s in range(2)])
    plan = Plan(minutes=1, steps=1, learning_rate=1e-3)
    autoencoder.train_autoencoder(vae, pictures, plan, ((1.0, 64, 2),), work=tmp_path, device="cpu")
    assert compiled == ["Linear", "Encoder", "Decoder"]


def test_on_a_cpu_waiting_uses_up_no_budget(tmp_path: Path) -> None:
    """So that other work on the machine makes a run longer and not worse."""

    def loss(models: torch.nn.ModuleDict, batch: Batch, used: float) -> torch.Tensor:
        time.sleep(0.02)
        return models["line"](batch["x"]).mean()

    models = torch.nn.ModuleDict({"line": torch.nn.Linear(2, 1)})
    plan = Plan(minutes=1, steps=50, learning_rate=0.1)
    train("slow", models, loss, lambda *_: iter(lambda: {"x": torch.ones(4, 2)}, None), plan, work=tmp_path)
    assert json.loads((tmp_path / "slow.json").read_text())["minutes"] < 50 * 0.02 / 60
