"""Which distributions the program consists of, with hashes and licences: `lock` and `sbom`

`python -m dev.distributions lock` writes requirements.lock, `… sbom` a list in the format CycloneDX, sbom.json.
Both start from requirements.txt and follow what is installed. The lock has the SHA-256 of each file that pip would take
on this system, so that `pip install --require-hashes --requirement requirements.lock` gets the same bytes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from oms_app import __version__

ROOT = Path(__file__).resolve().parents[1]
LOCK, SBOM = ROOT / "requirements.lock", ROOT / "sbom.json"
HEADER = """\
# Written by `make lock`: requirements.txt with all dependencies, for {platform} and Python {python}.
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
    """Asks pip for the files that it would take; it downloads descriptions, and whole files where an index has none."""
    wanted = [f"{one.metadata['Name']}=={one.version}" for one in needed()]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), *wanted], check=True)
        chosen = json.loads(report.read_text(encoding="utf-8"))["install"]
    lines = sorted(_locked(chosen), key=str.lower)
    header = HEADER.format(platform=sys.platform, python=f"{sys.version_info.major}.{sys.version_info.minor}")
    LOCK.write_text(header + "".join(lines), encoding="utf-8")
    print(f"{len(lines)} distributions in {LOCK.name}")


def _locked(chosen: list[dict[str, Any]]) -> Iterator[str]:
    for one in chosen:
        digest = one["download_info"]["archive_info"]["hashes"]["sha256"]
        yield f"{one['metadata']['name']}=={one['metadata']['version']} --hash=sha256:{digest}\n"


def write_sbom() -> None:
    """CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/."""
    hashes = dict(re.findall(r"^(\S+?)==\S+ --hash=sha256:(\w+)$", _lock_text(), re.MULTILINE))
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
        if name in hashes:
            component["hashes"] = [{"alg": "SHA-256", "content": hashes[name]}]
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


def _lock_text() -> str:
    return LOCK.read_text(encoding="utf-8") if LOCK.is_file() else ""


if __name__ == "__main__":
    try:
        {"lock": write_lock, "sbom": write_sbom}[sys.argv[1]]()
    except PackageNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed: run make app first")
