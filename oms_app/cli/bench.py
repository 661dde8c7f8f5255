"""`bench …`: the engine timed against the stock pipeline, and the memory that models need."""

from __future__ import annotations

from typing import Annotated

import typer

from oms_app.cli.console import GIB, facts_table, output_on_stderr, print_result, table
from oms_app.cli.options import DeviceOption, JsonOption, ModelOption, open_studio
from oms_app.paths import EMBEDDED

app = typer.Typer(no_args_is_help=True, help="Time the engine against the stock pipeline.")


@app.command()
def pair(
    model: ModelOption = EMBEDDED,
    runs: Annotated[int, typer.Option(min=1, max=99, help="Interleaved runs; the median is reported.")] = 9,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """A raw and OMS pair against two stock pipeline calls, and the OMS step's share of a raw run."""
    with output_on_stderr():
        studio = open_studio(device)
        from oms_app.bench.pair import benchmark

        report = benchmark(studio, model=model, runs=runs)
    seconds = table(("kind", "median, s"), [(name, f"{median:.3f}") for name, median in report["seconds"].items()])
    facts = {name: value for name, value in report.items() if name not in ("seconds", "all_seconds")}
    print_result(report, as_json, seconds, facts_table(facts))


@app.command()
def switch(
    model: ModelOption = EMBEDDED,
    runs: Annotated[int, typer.Option(min=1, max=99, help="Switches in each direction.")] = 9,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Seconds lost when a request changes to another base model that is cached."""
    with output_on_stderr():
        studio = open_studio(device)
        from oms_app.bench.switch import benchmark

        report = benchmark(studio, model=model, runs=runs)
    print_result(report, as_json, facts_table(report))


@app.command()
def memory(
    model: ModelOption = EMBEDDED,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Bytes that SD 1.5 and SDXL need in each memory mode, from shapes only; and the ratio of a pair to raw."""
    with output_on_stderr():
        studio = open_studio(device)
        from oms_app.bench.memory import benchmark

        report = benchmark(studio, model=model)
    full_size = report["full_size"]
    modes = [
        (of["family"], of["pixels"], of["dtype"], mode, f"{peak['raw'] / GIB:.2f}", f"{peak['pair'] / GIB:.2f}")
        for of in full_size
        for mode, peak in of["modes"].items()
    ]
    ratios = {of["family"]: of["unet_stage_ratio"] for of in full_size}
    ratios[report["embedded"]["model"]] = report["embedded"]["unet_stage_ratio"]
    print_result(
        report,
        as_json,
        table(("model", "pixels", "dtype", "mode", "raw, GiB", "pair, GiB"), modes),
        table(("model", "pair / raw while the UNet runs"), [(name, f"{ratio:.3f}") for name, ratio in ratios.items()]),
    )
