"""The package: what the wheel holds, that it works from another folder, and what its dependencies are."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import tomllib
import urllib.request
import venv
import zipfile
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import oms_app
from oms_app.cli import page
from oms_app.cli.extras import EXTRAS, require
from oms_app.errors import StudioError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Import names that differ from the name of the distribution. pydantic requires one exact version of pydantic_core.
DISTRIBUTIONS = {"PIL": "pillow", "open_clip": "open_clip_torch", "pydantic_core": "pydantic"}
OPTIONAL = {"xformers"}  # attention that is used if it is installed
# The extras that a folder of the package may import besides the dependencies.
EXTRAS_OF = {"ui": {"app"}, "training": {"train"}, "evaluate": {"evaluate", "train"}}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The finished command; its output is in the failure if it does not end with 0."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    run([*pip, "--quiet", "--wheel-dir", str(folder), str(ROOT)], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `oms` and `oms-studio`, in an environment with the wheel and, by a path file, the dependencies."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    paths = sysconfig.get_paths("venv", vars={"base": str(environment), "platbase": str(environment)})
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = Path(paths["scripts"], "python")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    run([*pip, "--ignore-installed", str(wheel)], environment)
    return Path(paths["scripts"])


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder outside the checkout."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_the_wheel_holds_the_package_and_its_data_alone(wheel: Path) -> None:
    assert wheel.name == f"oms_studio-{oms_app.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        names = [name for name in opened.namelist() if not name.endswith("/")]
        scripts = opened.read(f"oms_studio-{oms_app.__version__}.dist-info/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"oms_app", f"oms_studio-{oms_app.__version__}.dist-info"}
    tracked = run(["git", "ls-files", "-z", "--", "oms_app", "assets", "presets"], ROOT).stdout.split("\0")
    shipped = {name.removeprefix("oms_app/_shipped/") for name in names if ".dist-info/" not in name}
    untracked = run(["git", "ls-files", "-z", "--others", "--exclude-standard"], ROOT).stdout.split("\0")
    assert shipped - set(untracked) == {name for name in tracked if name and (ROOT / name).exists()}
    assert re.findall(r"^\S+(?= = )", scripts, re.MULTILINE) == ["oms", "oms-studio"]


def test_the_installed_command_generates_from_another_folder(scripts: Path, elsewhere: Path) -> None:
    where = "import oms_app, oms_app.paths as p; print(oms_app.__file__, p.SHIPPED)"
    package, shipped = map(Path, run([str(scripts / "python"), "-c", where], elsewhere).stdout.split())
    assert scripts.parent in package.parents and shipped == package.parent / "_shipped", "not the checkout's package"
    command = [str(scripts / "oms"), "generate", "solid black background", "--json", "--seed", "1", "--device", "cpu"]
    command += ["--steps", "4"]
    printed = run([*command, "--out", "pictures"], elsewhere).stdout
    assert printed.count("\n") == 1
    answer = json.loads(printed)
    assert [image["variant"] for image in answer["images"]] == ["raw", "oms"]
    raw, corrected = answer["images"]
    assert corrected["mean"] < raw["mean"]
    assert all((elsewhere / image["path"]).is_file() for image in answer["images"])


def test_the_exit_code_of_the_installed_command_is_that_of_main(scripts: Path, elsewhere: Path) -> None:
    done = subprocess.run([str(scripts / "oms"), "generate", "a", "--steps", "0"], cwd=elsewhere, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert b"--steps" in done.stderr


def test_the_installed_page_opens_from_another_folder(scripts: Path, elsewhere: Path) -> None:
    with subprocess.Popen(
        [str(scripts / "oms-studio"), "--device", "cpu"], cwd=elsewhere, stdout=subprocess.PIPE, text=True
    ) as process:
        too_long = threading.Timer(120, process.kill)
        too_long.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("OMS Studio is at http"), line
            with urllib.request.urlopen(line.split()[-1], timeout=30) as answer:
                assert answer.status == 200 and b"gradio" in answer.read()
        finally:
            too_long.cancel()
            process.kill()


def test_without_gradio_the_page_says_in_one_line_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("oms_app.cli.extras.find_spec", lambda name: None)
    assert page.main([]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
    assert "the page needs gradio" in error and "pip install 'oms-studio[app]'" in error


@pytest.mark.parametrize("extra", EXTRAS)
def test_require_names_what_is_missing_alone(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require(extra, "this test")  # the development environment has them all
    missing = EXTRAS[extra][0]
    left_behind = ModuleSpec(missing, None, is_package=True)  # what Python finds in a folder without code
    monkeypatch.setattr("oms_app.cli.extras.find_spec", lambda n: left_behind if n == missing else find_spec(n))
    with pytest.raises(StudioError, match=rf"^this test needs {missing}: run pip install 'oms-studio\[{extra}\]'"):
        require(extra, "this test")


def names_of(requirements: list[str]) -> set[str]:
    return {Requirement(text).name for text in requirements}


def imported(path: Path) -> set[str]:
    """The distributions of other projects that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    found -= sys.stdlib_module_names | {"oms_app"} | OPTIONAL
    return {DISTRIBUTIONS.get(name, name) for name in found}


def test_the_package_imports_what_it_declares() -> None:
    core, extras = names_of(PROJECT["dependencies"]), PROJECT["optional-dependencies"]
    undeclared, used = {}, set()
    for path in sorted((ROOT / "oms_app").rglob("*.py")):
        used |= (found := imported(path))
        allowed = set(core)
        for extra in EXTRAS_OF.get(path.relative_to(ROOT / "oms_app").parts[0], set()):
            allowed |= names_of(extras[extra])
        if rest := found - allowed - {"spaces"}:  # a Space with ZeroGPU, where alone it is imported, has it
            undeclared[str(path.relative_to(ROOT))] = rest
    assert undeclared == {} and core - used == set()
    assert {name: set(modules) for name, modules in EXTRAS.items()} == {name: names_of(extras[name]) for name in EXTRAS}


def test_the_pins_satisfy_the_declared_bounds() -> None:
    pins: dict[str, str] = {}
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-docs.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("-", "#")):
                requirement = Requirement(line)
                (version,) = requirement.specifier
                pins[requirement.name] = version.version
    declared = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(pins[requirement.name]), requirement


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_the_lock_is_of_the_pins_and_the_declared_bounds(python: str, platform: str) -> None:
    """And has a hash for each; `make lock` writes it."""
    machine = {"linux": "x86_64", "darwin": "arm64", "win32": "AMD64"}[platform]
    system = {
        "python_version": python, "python_full_version": f"{python}.9", "sys_platform": platform,
        "platform_machine": machine, "extra": "",
    }  # fmt: skip
    locked: dict[str, str] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        if line.startswith("#"):
            continue
        text, *hashes = line.split(" --hash=")
        requirement = Requirement(text)
        assert hashes and all(one.startswith("sha256:") for one in hashes), text
        if requirement.marker is None or requirement.marker.evaluate(system):
            assert canonicalize_name(requirement.name) not in locked, "one version for a system"
            locked[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    pins = [Requirement(line) for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()]
    extras = PROJECT["optional-dependencies"]
    declared = map(Requirement, [*PROJECT["dependencies"], *extras["app"], *extras["train"], *extras["evaluate"]])
    for one in (*pins, *declared):
        if one.marker is None or one.marker.evaluate(system):
            assert one.specifier.contains(locked[canonicalize_name(one.name)]), one


@pytest.mark.parametrize(
    ("command", "extras"),
    [
        pytest.param("generate doctor models inspect bench train", set(), id="plain"),
        pytest.param("evaluate", {"evaluate"}, id="evaluate", marks=pytest.mark.slow),
        pytest.param("train", {"train"}, id="train", marks=pytest.mark.slow),
    ],
)
def test_modules_import_with_their_extras_only_and_without_remote_code(command: str, extras: set[str]) -> None:
    """A module of another extra that is imported on the way would end a command in a traceback."""
    of_command = {
        "evaluate": ["oms_app.evaluate.report", "oms_app.evaluate.quality", "oms_app.evaluate.fidelity"],
        "train": ["oms_app.training.lumen.stages", "oms_app.training.lumen.family", "oms_app.training.curves"],
    }
    plain = ["oms_app.cli.entry", "oms_app.engine.studio", "oms_app.bench.memory", "oms_app.bench.pair"]
    plain += ["oms_app.training.any_base", "oms_app.training.oms", "oms_app.training.signal_leak"]
    allowed = {module for extra in extras for module in EXTRAS[extra]}
    blocked = {module for modules in EXTRAS.values() for module in modules} - allowed
    names = [name for one in command.split() for name in of_command.get(one, [])] if extras else plain
    code = f"""
import sys
sys.modules |= dict.fromkeys({sorted(blocked)!r})
from oms_app.cli.entry import main
assert main(["--version"]) == 0
import {", ".join(names)}
from diffusers.utils.constants import DIFFUSERS_DISABLE_REMOTE_CODE
assert DIFFUSERS_DISABLE_REMOTE_CODE
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
