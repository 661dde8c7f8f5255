"""Generates random models of the true size, paints with them and compares: `make prove-full-size`.

    python -m dev.full_size.prove [--folder DIR] [--json FILE] [CASE …]

Each case runs in a process of its own, so that its peak memory is its own. The models are written when a case first
needs them and deleted after the last one that does. It ends with 1 if a target is missed or a case fails, after the
table. Needs 14 GiB of memory, 20 GB of disk and up to an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dev.full_size.compare import Place, Row

MOST_MEMORY = 14.0  # GiB, of any one case
RESULT = "rows.json"


def main() -> int:
    from dev.full_size.cases import CASES

    parser = argparse.ArgumentParser(prog="python -m dev.full_size.prove", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the models are written (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)} (default: all)")
    given = parser.parse_args()
    if given.inside:
        _run_here(given.inside, Place(given.folder))
        return 0
    unknown = [name for name in given.cases if name not in CASES]
    if unknown:
        parser.error(f"{unknown[0]!r} is no case: choose from {', '.join(CASES)}")
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="full-size-", dir=given.folder) as folder:
        results = run_all(Path(folder), [name for name in CASES if not given.cases or name in given.cases])
    print(table(results))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if all(passed(result) for result in results["cases"]) else 1


def run_all(folder: Path, names: list[str]) -> dict[str, Any]:
    """Every case in turn, each with what it needs generated before it."""
    from dev.full_size.cases import CASES

    place = Place(folder)
    place.prepare()
    done = []
    for number, name in enumerate(names):
        absent = [model for model in CASES[name].needs if not (place.models / model).exists()]
        if absent:
            began = time.perf_counter()
            command = [sys.executable, "-m", "dev.full_size.generate", str(place.models), *absent]
            subprocess.run(command, check=True)
            written = time.perf_counter() - began
            print(f"{', '.join(absent)}: written in {written:.0f} s", file=sys.stderr, flush=True)
        done.append(run_case(name, folder))
        print(table({"cases": done[-1:]}), file=sys.stderr, flush=True)
        later = {model for other in names[number + 1 :] for model in CASES[other].needs}
        for path in place.models.iterdir():
            if path.name not in later:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {"machine": platform.platform(), "python": platform.python_version(), "cases": done}


def run_case(name: str, folder: Path) -> dict[str, Any]:
    """A case in a process of its own. A process that ends in an error gives no rows, and `error` says how it ended."""
    result = folder / RESULT
    result.unlink(missing_ok=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "dev.full_size.prove", "--folder", str(folder), "--inside", name]
    code = subprocess.run(command, check=False).returncode
    seconds = time.perf_counter() - began
    measured: dict[str, Any] = {"rows": [], "peak_gib": None}
    if code == 0:
        measured = json.loads(result.read_text(encoding="utf-8"))
    return {"case": name, "seconds": seconds, "error": f"exit code {code}" if code else None, **measured}


def _run_here(name: str, place: Place) -> None:
    """Runs a case in this process and leaves its rows in the folder."""
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from dev.full_size.cases import CASES

    warnings.simplefilter("ignore", FutureWarning)
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    rows = CASES[name].prove(place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows.append(Row("peak memory of the process", peak, "GiB", MOST_MEMORY))
    values = [asdict(row) | {"passed": row.passed} for row in rows]
    (place.folder / RESULT).write_text(json.dumps({"rows": values, "peak_gib": peak}), encoding="utf-8")


def passed(result: dict[str, Any]) -> bool:
    return not result["error"] and all(row["passed"] for row in result["rows"])


def table(results: dict[str, Any]) -> str:
    """Markdown: a line for each measured value."""
    lines = ["| case | measure | value | target | |", "|---|---|---|---|---|"]
    for result in results["cases"]:
        name = f"{result['case']} ({result['seconds']:.0f} s)"
        if result["error"]:
            lines.append(f"| {name} | {result['error']} | | | FAILED |")
        for row in result["rows"]:
            sign = "≥" if row["at_least"] else "≤"
            target = "" if row["target"] is None else f"{sign} {row['target']:g}"
            verdict = "" if row["target"] is None else "passed" if row["passed"] else "FAILED"
            lines.append(f"| {name} | {row['measure']} | {row['value']:.4g} {row['unit']} | {target} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
