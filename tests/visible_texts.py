"""Every text of the source that a visitor may read, found in the syntax tree: what a language has to translate."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import oms_app
from oms_app.paths import PRESETS
from oms_app.schema import STAGE_TEXTS

ROOT = Path(oms_app.__file__).parent
TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>")
SHOWN = re.compile(r"\b(?:title|aria-label|alt|placeholder)=[\"']([^\"']*)[\"']")
PLACE = re.compile(r"\{\w*\}")
TOLD = re.compile(r"told\('([^']+)'")
ERRORS = ("StudioError", "ValueError", "FieldError", "library_errors", "require_finite")
# Folders and files whose texts no visitor of the page reads.
APART = (
    "cli", "evaluate", "training", "bench", "measure", "output/animation.py", "output/sheets.py", "prestep/leak.py",
    "prestep/methods.py", "prestep/schedule.py", "prestep/unet.py", "ui/api.py", "ui/protecting_headers.py",
    "ui/request_rules.py",
)  # fmt: skip
# Files outside of ui/ of which every phrase may be shown, not only the messages of errors.
WHOLE = (
    "prompt_hints.py", "errors.py", "fields.py", "engine/encode.py", "engine/reached.py", "engine/calibration.py",
    "engine/resolve.py", "engine/picture_settings.py", "models/memory.py", "prestep/corrections.py", "prestep/dial.py",
)  # fmt: skip
# Texts that are names, examples of prompts, or for programs and programmers.
NAMES = {
    "Complete", "Consolas", "Ctrl", "Enter", "Esc", "GIF", "LCM DreamShaper v7", "Liberation Mono", "Liberation Sans",
    "LoRA", "Lora", "Lumen", "OMS CFG", "OMS Studio", "OMS mix", "OMS prompt B", "OffsetNoise", "Oms", "OmsReference",
    "OmsSde", "PyTorch", "Roboto", "Segoe UI", "SignalLeak", "Stable Diffusion 1.5", "Stable Diffusion 2.1",
    "Stable Diffusion XL 1.0", "Value error,", "Variant", "WebP", "a city", "a flower", "a forest",
    "a house by a lake", "a vase", "an event", "dark sunset bright", "oms file", "oms-card oms-absent",
    "oms-status oms-waiting", "solid black background", "the sea", "{} has no range",
    "{} has other fields than components: {}", "{} ms with xformers, {} ms with PyTorch",
    "xformers cannot be imported ({})", "xformers has no kernel for heads of {} on this GPU ({})",
    "xformers runs only on CUDA GPUs", "attention on %s in %s: %s (%s)",
    "a correction named {} is registered already: choose another id",
    "{} reads a setting named {}, which is another field: rename it",
    "{}: the option {} exists already: rename {}",
}  # fmt: skip
SCRIPT = re.compile(r"=>|addEventListener|defineProperty")


def templates(node: ast.AST) -> str | None:
    """A text or an f-string with {} for its places; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in node.values)
    return None


def pieces(text: str) -> Iterator[str]:
    """What is read of a text that may be markup: between tags, and in the attributes that are spoken or shown."""
    for tag in TAG.findall(text):
        yield from SHOWN.findall(tag)
    for part in TAG.split(text):
        yield " ".join(part.split())


def is_phrase(text: str) -> bool:
    """Whether it looks like words for a person, rather than a name for the program."""
    if text in NAMES or SCRIPT.search(text):
        return False
    words = PLACE.sub(" ", text)
    return bool(re.search(r"[A-Za-z]{2}", words)) and bool(
        re.search(r"[A-Za-z,:] +[A-Za-z(]|^[A-Z][a-z]+", words.strip())
    )


def _strings(node: ast.AST) -> Iterator[str]:
    """Texts and f-strings, without docstrings and what goes to the log."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    owner = node.func.value if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
    if isinstance(owner, ast.Name) and owner.id in ("logger", "re"):
        return
    if (text := templates(node)) is not None:
        yield text
    for child in node.values if isinstance(node, ast.JoinedStr) else ast.iter_child_nodes(node):
        if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
            yield from _strings(child)


def _errors(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            for argument in node.args:
                yield from _strings(argument)


def of_source() -> tuple[dict[str, str], set[str]]:
    """Texts that must be translated, with the file of each; and all texts that may be."""
    required: dict[str, str] = dict.fromkeys(STAGE_TEXTS.values(), "schema.py")
    present: set[str] = set()
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(APART):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        present |= {piece for text in _strings(tree) for piece in pieces(text)}
        whole = name.startswith("ui/") or name in WHOLE
        for text in _strings(tree) if whole else _errors(tree):
            required |= {piece: name for piece in pieces(text) if is_phrase(piece) and piece not in required}
    for path in ROOT.glob("ui/*.js"):
        texts = TOLD.findall(path.read_text(encoding="utf-8"))
        present |= set(texts)
        required |= dict.fromkeys(texts, path.name)
    return required, present


def of_presets() -> set[str]:
    """Titles and descriptions of the shipped looks, descriptions and notes of the catalogue's models."""
    found = set()
    for folder, names in (("looks", ("title", "description")), ("models", ("title", "description", "note"))):
        for path in (PRESETS / folder).glob("*.json"):
            entry = json.loads(path.read_text(encoding="utf-8"))
            found |= {entry[name] for name in names if entry.get(name)}
    return found - NAMES
