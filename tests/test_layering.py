"""Dependencies point one way (docs of each room say which), and importing does nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "oms_app"
HEAVY = {"torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "open_clip", "xformers"}


def imports(path: Path) -> set[str]:
    """Every module named by an import in a file, wherever in it: "torch.nn" for `from torch.nn import Module`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the package's root, not relative ones"
            module = node.module or ""
            # `from oms_app import studio` names a module too.
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "oms_app" else {module}
    return found


def files(room: str) -> list[Path]:
    found = sorted((PACKAGE / room).rglob("*.py"))
    assert found, f"oms_app/{room} has moved: mend this test"
    return found


def foreign(path: Path) -> set[str]:
    """The top-level names of what a file imports, less the standard library and this package."""
    return {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"oms_app", "__future__"}


def own_rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("oms_app.")}


@pytest.mark.parametrize("path", files("measure"), ids=lambda path: path.name)
def test_measure_knows_numpy_alone(path: Path) -> None:
    assert foreign(path) <= {"numpy"}
    assert own_rooms(path) <= {"measure"}


@pytest.mark.parametrize("path", files("prestep"), ids=lambda path: path.name)
def test_prestep_knows_torch_alone(path: Path) -> None:
    assert foreign(path) <= ({"torch", "diffusers", "safetensors"} if path.name == "unet.py" else {"torch"})
    assert own_rooms(path) <= {"prestep"}


@pytest.mark.parametrize("path", files("ui"), ids=lambda path: path.name)
def test_the_page_knows_the_requests_alone(path: Path) -> None:
    assert not foreign(path) & (HEAVY | {"safetensors"})
    assert own_rooms(path) <= {"ui", "requests"}


def test_every_library_used_is_pinned() -> None:
    """A library that comes along only because another needs it goes away when that one changes its mind."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    named_otherwise = {"PIL": "pillow", "open_clip": "open_clip_torch"}
    for path in [*PACKAGE.rglob("*.py"), *ROOT.glob("*.py")]:
        used = {named_otherwise.get(name, name) for name in foreign(path) - {"benchmarks"}}  # a folder of our own
        assert used <= pinned, path


def test_the_requests_know_nothing_of_this_package() -> None:
    assert own_rooms(PACKAGE / "requests.py") == set()


@pytest.mark.parametrize("room", ["models", "training", "prestep", "measure"])
def test_nobody_below_knows_the_page_or_the_engine(room: str) -> None:
    for path in files(room):
        assert not own_rooms(path) & {"ui", "studio", "cli"}, path


def test_the_engine_does_not_know_the_page() -> None:
    assert "ui" not in own_rooms(PACKAGE / "studio.py")


@pytest.mark.parametrize("module", ["oms_app", "oms_app.schema", "oms_app.ui.demo", "oms_app.measure.picture"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
