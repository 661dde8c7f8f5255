"""`models` and `download`: the catalogue, and which of its models are on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from oms_app.cli.console import output_on_stderr, print_result, table
from oms_app.cli.options import JsonOption, open_studio
from oms_app.errors import StudioError

app = typer.Typer()


@app.command()
def models(as_json: JsonOption = False) -> None:
    """The catalogue, and which of its models are on this machine."""
    with output_on_stderr():
        infos = open_studio("cpu").models()
    rows = [(i.id, i.kind, i.available, i.domain or "unknown", i.licence, i.title) for i in infos]
    shown = table(("id", "kind", "available", "domain", "licence", "title"), rows)
    print_result({"models": [info.model_dump(mode="json") for info in infos]}, as_json, shown)


@app.command()
def download(
    model: Annotated[str, typer.Argument(help="A catalogue id, as `models` lists it.")],
    as_json: JsonOption = False,
) -> None:
    """Download a model from the Hugging Face hub. Run it again to resume."""
    with output_on_stderr() as progress:
        from oms_app.models.catalog import open_catalog
        from oms_app.models.hub import fetch

        catalog = open_catalog()
        entry = catalog.entries.get(model)
        if entry is None:
            raise StudioError(f"unknown model {model!r}: choose one of {', '.join(catalog.entries)}")
        folder = fetch(entry, catalog.folder(entry), on_progress=progress.show_transfer)
    print_result({"id": entry.id, "folder": str(folder)}, as_json, f"downloaded to {folder}")
