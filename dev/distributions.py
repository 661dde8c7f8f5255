"""Which distributions the program consists of, with hashes and licences: `lock` and `sbom`

`python -m dev.distributions lock` writes requirements.lock, `… sbom` a list in the format CycloneDX, sbom.json.
Both start from requirements.txt. The lock is for every system and every Python that the project supports: uv chooses
the versions and names the SHA-256 of each of their files, so that `pip install --require-hashes --requirement
requirements.lock` gets the same bytes each time. The list follows what is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import uuid
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from oms_app import __version__

ROOT = Path(__file__).resolve().parents[1]
LOCK, SBOM = ROOT / "requirements.lock", ROOT / "sbom.json"
HEADER = """\
# Written by `make lock`: requirements.txt with all dependencies, for every system and Python {oldest} or newer.
# pip install --require-hashes --requirement requirements.lock
"""


def needed(requirements: Path = ROOT / "requirements.txt") -> list[Distribution]:
    """The installed distributions that the file names, and all that those need, by name. Raises PackageNotFoundError if
    one is missing."""
    found: dict[str, Distribution] = {}
    waiting = [
        Requirement(line) for line in requirements.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()
    ]
    while waiting:
        wanted = waiting.pop()
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
            continue
        name = canonicalize_name(wanted.name)
        known = found.get(name) or distribution(name)
        if name not in found or wanted.extras:
            for text in known.requires or ():
                one = Requirement(text)
                if _applies(one, wanted.extras) and canonicalize_name(one.name) not in found:
                    waiting.append(Requirement(str(one).partition(";")[0]))
        found[name] = known
    return [found[name] for name in sorted(found)]


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    return not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def licence(of: Distribution) -> str:
    """As its metadata says it: an SPDX expression, a classifier or a short text."""
    data: Any = of.metadata  # a message of email, whose type does not say that it has `get`
    text = data.get("License-Expression") or ""
    named = [one.rpartition(" :: ")[2] for one in data.get_all("Classifier") or () if one.startswith("License")]
    first_line = (data.get("License") or "").strip().partition("\n")[0]
    classifiers = ", ".join(one for one in named if one != "OSI Approved")
    return text or classifiers or first_line[:80] or "unknown"


def write_lock() -> None:
    """Versions that fit are kept; delete the file first for new ones of what requirements.txt does not pin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", oldest]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--output-file", str(LOCK), "requirements.txt"]
    subprocess.run(command, check=True, cwd=ROOT)
    LOCK.write_text(HEADER.format(oldest=oldest) + LOCK.read_text(encoding="utf-8"), encoding="utf-8")
    print(f"{len(locked_hashes())} distributions in {LOCK.name}")


def locked_hashes() -> dict[str, list[str]]:
    """By name: the SHA-256 of each file, those of other systems too."""
    found: dict[str, list[str]] = {}
    if LOCK.is_file():
        for name, rest in re.findall(r"^([\w.-]+)==((?:.*\\\n)*.*)$", LOCK.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(canonicalize_name(name), []).extend(re.findall(r"--hash=sha256:(\w+)", rest))
    return found


def write_sbom() -> None:
    """CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/."""
    hashes = locked_hashes()
    components = []
    for one in needed():
        name = str(one.metadata["Name"])
        url = f"pkg:pypi/{canonicalize_name(name)}@{one.version}"
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": url,
            "name": name,
            "version": one.version,
            "purl": url,
        }
        component["licenses"] = [{"license": {"name": licence(one)}}]
        if canonicalize_name(name) in hashes:
            component["hashes"] = [{"alg": "SHA-256", "content": one} for one in hashes[canonicalize_name(name)]]
        components.append(component)
    program = {"type": "application", "bom-ref": "oms-studio", "name": "oms-studio", "version": __version__}
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"component": program},
        "components": components,
    }
    SBOM.write_text(json.dumps(bom, indent=1) + "\n", encoding="utf-8")
    unknown = [one["name"] for one in components if one["licenses"][0]["license"]["name"] == "unknown"]
    print(f"{len(components)} distributions in {SBOM.name}; metadata without a licence: {', '.join(unknown) or 'none'}")


if __name__ == "__main__":
    try:
        {"lock": write_lock, "sbom": write_sbom}[sys.argv[1]]()
    except PackageNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed: run make app first")
