"""`inspect`: how much signal remains at the last timestep of a model's schedule."""

from __future__ import annotations

from typing import Annotated

import typer

from oms_app.cli.console import facts_table, output_on_stderr, print_result, table
from oms_app.cli.options import DeviceOption, JsonOption, ModelOption, open_studio
from oms_app.paths import EMBEDDED

app = typer.Typer()


@app.command()
def inspect(
    model: ModelOption = EMBEDDED,
    paper_table: Annotated[bool, typer.Option("--table", help="Table 1 of the OMS paper, in closed form.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """A model's schedule: its signal left at T and at the first timestep, radii, latent domain, OMS modules."""
    if paper_table:
        from oms_app.prestep.schedule import table1

        rows = [dict(row) for row in table1()]
        lines = [(r["schedule"], f"{r['snr']:.3e}", f"{r['radius_gap']:.4e}") for r in rows]
        print_result({"rows": rows}, as_json, table(("schedule", "SNR(T)", "r_S - r_T"), lines))
        return
    with output_on_stderr():
        figures = open_studio(device).inspect(model)
    print_result(figures, as_json, facts_table(figures))
