"""The documents against the code: commands that parse, examples that run, links that lead somewhere, nothing stale."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import ROOT
from typer.testing import CliRunner

import oms_app
from dev import reference
from oms_app.cli import page
from oms_app.cli.entry import build_app
from oms_app.models.catalog import open_catalog
from oms_app.schedulers import SCHEDULERS

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
CALLS = ("python -m oms_app ", "-m oms_app ", "oms ")


def commands() -> list[str]:
    """Every command of ours that a document shows, without its comment: `generate "mountains" --seed 7`."""
    found = set()
    for text in TEXTS.values():
        shown = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
        for line in shown:
            for call in CALLS:
                if line.startswith(call) or (call != "oms " and call in line):
                    found.add(line.split(call, 1)[1].split("  #")[0].strip())
                    break
    return sorted(line for line in found if not line.startswith(("…", "-")))


def page_commands() -> list[str]:
    """What follows `oms-studio` or `python app.py` in the documents."""
    text = "\n".join(TEXTS.values())
    found = re.findall(r"(?:oms-studio|app\.py)((?: --[a-z-]+(?: [^\s`-]\S*)?)+)", text)
    return sorted({line for line in found if line.strip() != "--version"})  # that one ends the program


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_documents_is_one(line: str) -> None:
    words = shlex.split(line)
    leaves = dict(reference.leaves(typer.main.get_command(build_app())))
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in leaves), None)
    assert name is not None, f"no such command: {line}"
    options = {option for parameter in leaves[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options | {"--json"}
    shown = CliRunner().invoke(build_app(), [*name.split(), "--help"], env={"TERM": "dumb"})
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("line", page_commands())
def test_every_start_of_the_page_in_the_documents_is_one(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMS_PASSWORD", "secret")
    page.arguments(shlex.split(line))


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 25 and len(page_commands()) >= 1


def test_modules_and_make_targets_in_the_documents_exist() -> None:
    text = "\n".join(TEXTS.values())
    modules = set(re.findall(r"python -m ((?:oms_app|dev)(?:\.\w+)+)", text))
    assert modules and not [m for m in modules if not (ROOT / (m.replace(".", "/") + ".py")).is_file()]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", text, re.MULTILINE))
    assert named and named <= targets


def test_files_named_in_the_documents_exist() -> None:
    named = {
        name
        for document, text in TEXTS.items()
        if document != "CHANGELOG.md"
        for name in re.findall(r"\b((?:oms_app|tests|dev|docs|presets|assets)/[\w/.-]+\.(?:py|md|json))\b", text)
    }
    named = {name for name in named if not re.search(r"/[A-Z]+[._]", name) or name == "dev/LOG.md"}  # not ID.json
    written_later = {"docs/results-quick.md"}
    assert named and sorted(name for name in named - written_later if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("document", reference.DOCUMENTS)
def test_the_parts_that_come_from_the_code_are_fresh(document: str) -> None:
    assert reference.written(TEXTS[document]) == TEXTS[document], "run `make reference`"


def examples() -> Iterator[Any]:
    for document in ("README.md", "docs/library.md"):
        for number, example in enumerate(re.findall(r"```python\n(.*?)```", TEXTS[document], re.DOTALL)):
            yield pytest.param(example, id=f"{document} {number}")


@pytest.mark.parametrize("example", list(examples()))
def test_the_python_examples_run(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example", "exec"), {})
    assert capsys.readouterr().out.strip()


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as the site makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_every_picture_and_link_in_the_documents_is_there() -> None:
    missing = []
    for document, text in TEXTS.items():
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", text):
            path = (ROOT / document).parent / target if target else ROOT / document
            if "://" in target:
                continue
            if not path.exists() or (anchor and anchor not in anchors(path)):
                missing.append(f"{document}: {target}#{anchor}")
    assert missing == []


def test_what_the_guide_names_is_on_the_page() -> None:
    files = [*(ROOT / "oms_app/ui").glob("*.py"), ROOT / "oms_app/fields.py"]
    page_texts = " ".join(path.read_text(encoding="utf-8") for path in files)
    named = {" ".join(text.split()) for text in re.findall(r"\*\*([^*]+)\*\*", TEXTS["docs/artists.md"])}
    assert len(named) > 8 and sorted(text for text in named if text not in page_texts) == []


def test_the_models_and_schedulers_of_the_documents_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| ([\w., -]+) \| .* \| .* \| [\d., ]+ \| [\w+., -]+ \|$", TEXTS["docs/models.md"], re.MULTILINE
    )
    downloads = {entry.id for entry in open_catalog().entries.values() if entry.repository}
    assert {name for row in rows for name in row.split(", ")} == downloads
    (schedulers,) = re.findall(r"^\| scheduler \| ([^|]+) \|", TEXTS["docs/api.md"], re.MULTILINE)
    assert re.split(r", | or ", schedulers) == list(SCHEDULERS)


def test_the_readme_is_short_and_has_what_a_space_needs() -> None:
    readme = TEXTS["README.md"]
    assert len(readme.splitlines()) <= 120
    front = yaml.safe_load(readme.split("---")[1])
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert front["app_file"] == "app.py" and front["sdk"] == "gradio" and f"gradio=={front['sdk_version']}\n" in pins


def test_every_document_is_on_the_site() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entry: Any) -> list[str]:
        children = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
        return [entry] if isinstance(entry, str) else [page for child in children for page in pages(child)]

    assert sorted(pages(site["nav"])) == sorted(
        path.name for path in (ROOT / "docs").glob("*.md") if "-" not in path.name
    )


def test_the_version_is_the_same_everywhere() -> None:
    version = oms_app.__version__
    released = re.findall(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", TEXTS["CHANGELOG.md"], re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert released[0] == (version, str(citation["date-released"]))
    assert citation["version"] == version and citation["preferred-citation"]["title"]


def test_the_tracked_files_are_small_enough() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    sizes = {name: (ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).exists()}
    assert max(sizes.values()) < 10 * 2**20
    assert sum(sizes.values()) < 52 * 2**20
    family = sum(size for name, size in sizes.items() if name.startswith("assets/"))
    assert family <= 44 * 2**20
    assert sum(size for name, size in sizes.items() if name.startswith("docs/")) <= 8 * 2**20
