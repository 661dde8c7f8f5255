"""Writes the parts of the documents that come from the code: `make reference`.

A document holds `<!-- NAME: written by dev/reference.py -->` and, below it, what the code says, up to `<!-- end -->`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from oms_app.cli.entry import build_app
from oms_app.prestep.corrections import CORRECTIONS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("docs/commands.md", "docs/architecture.md")
MARKED = re.compile(r"(<!-- (\w+): written by dev/reference\.py -->\n).*?(<!-- end -->)", re.DOTALL)


def commands() -> str:
    """Every command with its options, as the parser knows them."""
    return "\n".join(_command(f"oms {name}", command) for name, command in leaves(typer.main.get_command(build_app())))


def leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`evaluate luminance`, command) for every command that is not a group of others."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _command(name: str, command: Any) -> str:
    shown = [parameter for parameter in command.params if not parameter.hidden and parameter.name != "as_json"]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name == "option"]
    title = " ".join([name, *(p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments)])
    rows = [f"| {_names(p)} | {_cell(p.help or '')} | {_default(p)} |" for p in [*arguments, *options]]
    head = ["| option | meaning | default |", "|---|---|---|"] if rows else []
    return "\n".join([f"### {title}", "", _cell(command.help), "", *head, *rows, *([""] if rows else [])])


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in parameter.opts)


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    return "" if default is None or default == "" or default is False else f"`{default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def tree() -> str:
    """The files of the package and of dev/, each with the first sentence of its docstring."""
    lines = ["```text"]
    for top in ("oms_app", "dev"):
        folders = sorted({path.parent for path in (ROOT / top).rglob("*.py")})
        for folder in folders:
            depth = len(folder.relative_to(ROOT).parts) - 1
            lines.append(_line(depth, f"{folder.name}/", folder / "__init__.py"))
            files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
            lines += [_line(depth + 1, path.name, path) for path in files]
    return "\n".join([*lines, "```", ""])


def _line(depth: int, name: str, path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ""
    first = " ".join((text or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[^.])\. +(?=[A-Z`])|: +(?=`)", first)[0].rstrip(".")
    return f"{'  ' * depth + name:<28} {sentence}".rstrip()


def corrections() -> str:
    """Every registered correction and the options that it reads."""
    rows = []
    for spec in CORRECTIONS.values():
        options = ", ".join(f"`{field.option_name}`" for field in spec.options)
        rows.append(f"| `{spec.id}` | {spec.title} | {_cell(spec.description)} | {options} |")
    return "\n".join(["| name | title | what it does | options that it reads |", "|---|---|---|---|", *rows, ""])


BLOCKS: dict[str, Callable[[], str]] = {"commands": commands, "corrections": corrections, "tree": tree}


def written(document: str) -> str:
    """The document's text with each marked part as the code has it now. Raises KeyError for an unknown name."""
    return MARKED.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n{found[3]}", document)


def main() -> int:
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
