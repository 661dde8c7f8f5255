"""Requests that are refused, on the command line and on the page: the message names both sides and the remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from playwright.sync_api import Page, expect
from test_browser import PATIENCE, browser, go_to, opened  # noqa: F401
from tiny import make_refused

from oms_app.cli import entry as cli
from oms_app.prestep.step import check_hand_over

# By model: what the message names, and the remedy.
REFUSALS = {
    "zero-snr": ("SNR at the first timestep is", "use the raw variant"),
    "flow": ("'flow' is a flow-matching model (FlowMatchEulerDiscreteScheduler)", "choose another model"),
    "edm": ("'edm' was trained with EDMEulerScheduler", "choose another model"),
}
ANOTHER_DOMAIN = ("'alien'", "'lumen'")


@pytest.fixture(scope="module")
def refusing(presets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = Path(shutil.copytree(presets.parents[1], tmp_path_factory.mktemp("refusing") / "world"))
    return make_refused(world / "presets/models")


@pytest.fixture
def compare(browser, tiny_page: str) -> Iterator[Page]:  # type: ignore[no-untyped-def]  # noqa: F811
    """The Compare tab of the app, with the refused models in its catalogue."""
    with opened(browser, tiny_page, 1440, 900) as view:
        go_to(view, "Compare")
        yield view


@pytest.mark.parametrize("model", REFUSALS)
def test_on_the_command_line(
    model: str, refusing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(refusing))
    assert cli.main(["generate", "sea", "--model", model, "--seed", "1", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    for words in REFUSALS[model]:
        assert words in err


def test_another_domain_on_the_command_line_and_force(
    refusing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMS_PRESETS", str(refusing))
    arguments = ["generate", "sea", "--seed", "1", "--oms-module", "alien-oms", "--json"]
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert all(words in err for words in ANOTHER_DOMAIN) and "force it" in err
    assert cli.main([*arguments, "--force"]) == 0
    assert "expect colour casts" in json.loads(capsys.readouterr().out)["notes"][0]


@pytest.mark.browser
def test_on_the_page(compare: Page) -> None:
    alert = compare.locator("#compare-status").get_by_role("alert")
    button = compare.get_by_role("button", name="Compare")
    models = compare.locator("#compare-models")
    methods = compare.locator("#compare-methods")
    for box in methods.locator("input").all():
        box.uncheck()
    for label in ("Raw", "One More Step"):
        methods.get_by_label(label, exact=True).check()
    models.get_by_label("Tiny").uncheck()
    for label, model in (("Zero SNR", "zero-snr"), ("Flow", "flow"), ("EDM", "edm")):
        models.get_by_label(label).check()
        button.click()
        for words in REFUSALS[model]:
            expect(alert).to_contain_text(words, timeout=PATIENCE)
        models.get_by_label(label).uncheck()
    models.get_by_label("Tiny").check()
    compare.get_by_role("button", name="Settings of the corrections").click()
    compare.get_by_label("OMS module").click()
    compare.get_by_role("option", name="Alien").click()
    button.click()
    for words in ANOTHER_DOMAIN:
        expect(alert).to_contain_text(words, timeout=PATIENCE)
    compare.get_by_label("Use a module of another latent domain").check()
    expect(compare.locator("#compare-settings")).to_contain_text("black may turn red")
    button.click()
    expect(compare.locator("#compare-status")).to_contain_text("expect colour casts", timeout=PATIENCE)


def test_a_scheduler_that_changes_the_latents_is_refused() -> None:
    class Clipping(diffusers.DDIMScheduler):
        def scale_model_input(self, sample: torch.Tensor, timestep: int | None = None) -> torch.Tensor:
            return sample.clamp(-1, 1)

    scheduler = Clipping(beta_schedule="scaled_linear")
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match=r"Clipping changes its input latents.*passed to it exactly.*such as ddim"):
        check_hand_over(scheduler)
    endless = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear")
    endless.set_timesteps(4)
    check_hand_over(endless)
    endless.sigmas = endless.sigmas * float("inf")
    with pytest.raises(ValueError, match="passed to it exactly"):
        check_hand_over(endless)
