"""The structure that docs/architecture.md describes: who imports whom, sizes, names, and that importing is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "oms_app"
FILES = sorted(PACKAGE.rglob("*.py"))
ALL_FILES = [*FILES, *sorted((ROOT / "dev").glob("*.py")), *sorted((ROOT / "tests").glob("*.py")), ROOT / "app.py"]
HEAVY = {"torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "open_clip", "xformers"}
MAX_FUNCTION_LINES, MAX_FILE_LINES = 80, 450
GENERATED_TEXT = {PACKAGE / "evaluate/results_page.py"}  # the text of a page, with figures in it

# A part of the package is a folder or a file beside the folders. The lowest parts, and all that each may import.
# "prestep.corrections" permits that module and no other of its part: it does not import torch.
LOWEST: dict[str, set[str]] = {
    "paths": set(),
    "addresses": set(),
    "file_ages": set(),
    "newest": set(),
    "schedulers": set(),
    "measure": set(),
    "light": set(),
    "prompt_hints": set(),
    "fields": {"light", "paths", "schedulers"},
    "prestep": {"fields", "light", "paths"},
    "errors": {"fields"},
    "records": {"errors"},
    "schema": {"fields", "errors", "light", "schedulers", "prestep.corrections"},
}
# The other parts, and what each may import besides SHARED.
SHARED = {"errors", "fields", "newest", "paths", "schedulers", "schema"}
ARROWS: dict[str, set[str]] = {
    "models": {"prestep", "records"},
    "output": {"prestep.corrections", "pictures"},
    "looks": {"records"},
    "pictures": {"light"},
    "engine": {"light", "models", "prestep", "output", "measure", "looks", "prompt_hints", "records"} | {"file_ages"},
    "training": {"models", "pictures", "prestep", "measure"},
    "bench": {"engine", "models", "prestep", "training"},
    "evaluate": {"bench", "engine", "light", "measure", "models", "output", "prestep", "training"},
    "ui": {
        "addresses",
        "engine.service",
        "file_ages",
        "light",
        "looks",
        "models.catalog",
        "pictures",
        "prestep.corrections",
        "prompt_hints",
    },
    "cli": {"bench", "engine", "light", "evaluate", "looks", "measure", "models", "output", "prestep", "training", "ui"}
    | {"__init__", "addresses"},  # __init__ has the version
    "__main__": {"cli"},
    "__init__": set(),
}
# Libraries that these two parts may import.
LIBRARIES = {"measure": {"numpy", "scipy"}, "prestep": {"torch"}}
UNET_LIBRARIES = {"torch", "diffusers", "safetensors"}  # of prestep/unet.py, a model of diffusers


def module_name(path: Path) -> str:
    """`oms_app.cli.entry`; of an __init__.py the name of its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, inside functions too, except in `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield child
        yield from runtime_nodes(child)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, wherever in it: `oms_app.cli.bench` for `from oms_app.cli import bench`."""
    found: set[str] = set()
    for node in runtime_nodes(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the package's root, not relative ones"
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys() or {module}
    return frozenset(found)


def own_imports(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "oms_app"}


def libraries(path: Path) -> set[str]:
    """The top-level names of what a file imports besides the standard library and this package."""
    return {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"oms_app", "dev"}


def part_of(module: str) -> str:
    """`cli` for `oms_app.cli.entry`, `schema` for `oms_app.schema`, `__init__` for `oms_app`."""
    return [*module.split("."), "__init__"][1]


def files_of(part: str) -> list[Path]:
    found = [path for name, path in MODULES.items() if part_of(name) == part]
    assert found, f"there is no oms_app/{part}: correct this test"
    return found


def test_every_part_has_its_arrows() -> None:
    assert {part_of(name) for name in MODULES} == LOWEST.keys() | ARROWS.keys()


@pytest.mark.parametrize("part", [*LOWEST, *ARROWS])
def test_imports_follow_the_arrows(part: str) -> None:
    permitted = LOWEST[part] if part in LOWEST else ARROWS[part] | SHARED
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of(part)
        for name in sorted(own_imports(path))
        if part_of(name) != part and not permitted & {part_of(name), name.removeprefix("oms_app.")}
    ]
    assert wrong == []


@pytest.mark.parametrize("part", LIBRARIES)
def test_measures_and_corrections_need_few_libraries(part: str) -> None:
    for path in files_of(part):
        assert libraries(path) <= (UNET_LIBRARIES if path.name == "unet.py" else LIBRARIES[part]), path


def test_the_page_imports_no_heavy_library() -> None:
    for path in files_of("ui"):
        assert not libraries(path) & (HEAVY | {"safetensors"}), path


def test_no_import_cycle() -> None:
    """Imports inside functions count: a cycle that is hidden in one is a cycle all the same."""
    graph = {name: own_imports(path) & MODULES.keys() - {name} for name, path in MODULES.items()}

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        stack = list(graph[start])
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                stack.extend(graph[name])
        return seen

    reached = {name: reachable(name) for name in graph}
    cycles = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in graph
        if name in reached[name]
    }
    assert cycles == set()


def test_functions_are_short() -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines"
        for path in ALL_FILES
        if path not in GENERATED_TEXT
        for node in ast.walk(parsed(path))
        if isinstance(node, functions) and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_files_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)} has {lines} lines"
        for path in ALL_FILES
        if path not in GENERATED_TEXT and (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    ]
    assert long == []


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict(list)
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: at for name, at in places.items() if len(at) > 1} == {}


def test_every_imported_library_is_pinned() -> None:
    """A library that is installed only because another one needs it may disappear with an update of that one."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    distributions = {"PIL": "pillow", "open_clip": "open_clip_torch", "pydantic_core": "pydantic"}
    provided = {"spaces"}  # by a Space with ZeroGPU, where alone it is imported
    for path in [*FILES, *ROOT.glob("*.py")]:
        assert {distributions.get(name, name) for name in libraries(path)} - provided <= pinned, path


def test_importing_loads_no_heavy_library() -> None:
    modules = "oms_app, oms_app.schema, oms_app.prestep.corrections, oms_app.cli.entry, oms_app.ui.demo"
    code = f"import sys, {modules}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
