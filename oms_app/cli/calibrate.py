"""`calibrate`: how exactly a base obeys the dial's brightness, measured and stored."""

from __future__ import annotations

import typer

from oms_app.cli.console import facts_table, output_on_stderr, print_result
from oms_app.cli.options import DeviceOption, JsonOption, ModelOption, open_studio
from oms_app.paths import EMBEDDED

app = typer.Typer()


@app.command()
def calibrate(model: ModelOption = EMBEDDED, device: DeviceOption = "auto", as_json: JsonOption = False) -> None:
    """Measures how exactly a model obeys the dial's brightness, and stores it in the user's folder."""
    with output_on_stderr():
        studio = open_studio(device)
        from oms_app.engine import calibration

        found = calibration.calibrate(studio, model)
    printed = {"model": model, **found.model_dump()}
    print_result(printed, as_json, facts_table(printed), found.expectation)
