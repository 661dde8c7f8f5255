"""The command line: `python -m oms_app …`.

Every command takes --json: one JSON object on stdout, nothing else there; logs go to stderr. The exit code is 0; 2 with
one clear line on stderr for bad input; 130 after Ctrl+C. torch is loaded only after the input has been checked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from oms_app import __version__
from oms_app.cli import bench, calibrate, doctor, evaluate, generate, inspect, models, train
from oms_app.cli.console import print_error
from oms_app.cli.startup import prepare_process, require_user_folder
from oms_app.errors import StudioError, describe


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"OMS Studio {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """All commands. `generate` and `evaluate` have options for the corrections that are registered now."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_version_option)
    for group in (generate.build_app(), inspect.app, models.app, doctor.app, calibrate.app):
        app.add_typer(group)
    app.add_typer(evaluate.build_app(), name="evaluate")
    app.add_typer(train.app, name="train")
    app.add_typer(bench.app, name="bench")
    return app


def _version_option(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Control luminance and colour in diffusion models: raw and One More Step pictures from one noise."""


def _program() -> str:
    """The command as the user typed it, for usage lines."""
    return "oms" if Path(sys.argv[0]).stem == "oms" else "python -m oms_app"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    prepare_process()
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"  # read when diffusers is imported
    app = build_app()
    try:
        require_user_folder()
        code = app(
            args=None if arguments is None else list(arguments),
            prog_name=_program(),
            standalone_mode=False,
        )
    except TyperException as error:  # unknown option, missing prompt, text instead of a number …
        return print_error(error.format_message() or "no command was given", "--help shows the commands and options")
    except (typer.Abort, KeyboardInterrupt):
        return print_error("stopped", code=130)
    except StudioError as error:
        return print_error(str(error))
    except ValidationError as error:
        return print_error(describe(error))
    if code == 130:
        return print_error("stopped", code=130)
    return code if isinstance(code, int) else 0
