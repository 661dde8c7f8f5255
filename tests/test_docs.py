"""The documents against the code: files that exist, commands that parse, pictures that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oms_app.cli.entry import build_app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[list[str]]:
    """Every `python -m oms_app …` that a document shows, up to a comment or the end of the code."""
    found = []
    for document in DOCUMENTS:
        for text in re.findall(r"python -m oms_app ([^\n`#]+)", document.read_text(encoding="utf-8")):
            for one in text.split(" | "):
                words = re.findall(r'"[^"]*"|\S+', one)
                if words and not words[0].startswith(("…", "-")):
                    found.append(words)
    return found


def test_every_module_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    modules = [p for p in (ROOT / "oms_app").rglob("*.py") if p.name != "__init__.py"]
    assert [str(p.relative_to(ROOT)) for p in modules if not re.search(rf"\b{re.escape(p.name)}\b", readme)] == []


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_in_the_documents_is_one(words: list[str]) -> None:
    names = [w for w in words if re.fullmatch(r"[a-z][a-z-]*", w)]
    options = [w for w in words if w.startswith("--")]
    depth = 2 if names[0] in ("evaluate", "train", "bench") else 1
    shown = CliRunner().invoke(build_app(), [*names[:depth], "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    assert shown.exit_code == 0, shown.output
    assert [o for o in options if o not in shown.output] == []


def test_every_picture_and_link_in_the_documents_is_there() -> None:
    missing = [
        f"{document.name}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert missing == []


def test_the_tracked_files_are_small_enough() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    sizes = {name: (ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).exists()}
    assert max(sizes.values()) < 16 * 2**20
    assert sum(sizes.values()) < 60 * 2**20
    family = sum(size for name, size in sizes.items() if name.startswith("assets/lumen/"))
    assert family <= 36 * 2**20
    assert sum(size for name, size in sizes.items() if name.startswith("docs/")) <= 8 * 2**20
