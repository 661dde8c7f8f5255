"""What stands in the Explore tab's fields, as a grid of pictures still to be painted.

A row, or a cell where its prompt or model is its own, is one request with many variants. So a grid comes in row by row,
Stop keeps the rows that are finished, and what cannot be painted leaves the others alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError

from oms_app.errors import StudioError
from oms_app.fields import MAX_SEED
from oms_app.schema import RAW, GenerateRequest, Variant
from oms_app.ui.form import explain, whole

PROMPT_BY_CFG = "OMS prompt × OMS CFG"
SLIDER_BY_SEED = "OMS slider × seed"
LOOK_BY_MODEL = "Looks × models"
KINDS = (PROMPT_BY_CFG, SLIDER_BY_SEED, LOOK_BY_MODEL)
MAX_CELLS = 48
MAX_SIDE = 16


class AnyLook(Protocol):
    """What a grid needs of a look; see `oms_app.looks.Look`."""

    @property
    def id(self) -> str: ...

    @property
    def title(self) -> str: ...

    def wrap(self, subject: str) -> str: ...

    def variant(self, name: str = "oms") -> Variant: ...


@dataclass(frozen=True)
class Part:
    """One request of a row: its variants go to these columns, in their order."""

    request: GenerateRequest
    columns: tuple[int, ...]

    def apart(self) -> list[Part]:
        """The same pictures, each with a request of its own."""
        return [
            Part(self.request.model_copy(update={"variants": (variant,)}), (column,))
            for variant, column in zip(self.request.variants, self.columns, strict=True)
        ]


@dataclass(frozen=True)
class Grid:
    rows: tuple[tuple[Part, ...], ...]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]

    @property
    def size(self) -> int:
        """In pictures."""
        return len(self.row_labels) * len(self.column_labels)

    @property
    def requests(self) -> list[GenerateRequest]:
        return [part.request for row in self.rows for part in row]


def to_grid(values: Mapping[str, Any], looks: Sequence[AnyLook]) -> Grid:
    """The grid that the fields ask for. values: see `explore_tab.FIELDS`.

    Raises StudioError with one plain line where a value is missing or out of range, or the grid is empty or too large.
    """
    try:
        return {PROMPT_BY_CFG: _prompts, SLIDER_BY_SEED: _slider, LOOK_BY_MODEL: _looks}[values["kind"]](values, looks)
    except ValidationError as error:
        raise StudioError(explain(error)) from error


def _prompts(values: Mapping[str, Any], looks: Sequence[AnyLook]) -> Grid:
    prompts = list(dict.fromkeys(line.strip() for line in (values["oms_prompts"] or "").splitlines() if line.strip()))
    if not prompts:
        raise StudioError("There is no OMS prompt: write one or more, each on a line of its own.")
    scales = _numbers(values["oms_scales"] or "")
    _bounded("OMS prompts", len(prompts), "columns", 1 + len(scales))
    base = _base(values, seeds=1)
    rows = tuple(
        _row(base, [Variant(name=f"oms {w:g}", correction="oms", prompt=prompt, guidance_scale=w) for w in scales])
        for prompt in prompts
    )
    return Grid(rows, tuple(prompts), ("raw", *(f"OMS CFG {w:g}" for w in scales)))


def _slider(values: Mapping[str, Any], looks: Sequence[AnyLook]) -> Grid:
    places, seeds = int(values["places"]), int(values["seeds"])
    left, right = ((values[name] or "").strip() or values["prompt"] or "" for name in ("left", "right"))
    _bounded("seeds", seeds, "columns", 1 + places)
    base = _base(values, seeds=seeds)
    assert base.seed is not None
    variants = [
        Variant(
            name=f"oms {mix:g}",
            correction="oms",
            prompt=left,
            prompt_b=right,
            mix=mix,
            guidance_scale=values["oms_guidance_scale"],
        )
        for mix in (round(i / (places - 1), 3) for i in range(places))
    ]
    numbers = [base.seed + i for i in range(seeds)]
    rows = tuple(_row(base.model_copy(update={"seed": number}), variants) for number in numbers)
    between = [f"{variant.mix:.0%}".replace("%", "\u00a0%") for variant in variants[1:-1]]
    return Grid(rows, tuple(f"seed {number}" for number in numbers), ("raw", left, *between, right))


def _looks(values: Mapping[str, Any], looks: Sequence[AnyLook]) -> Grid:
    by_id = {look.id: look for look in looks}
    chosen = [by_id[name] for name in values["looks"] if name in by_id]
    models = values["models"]
    _bounded("looks", len(chosen), "models", len(models))
    # Every model at the steps, strength and size that suit it.
    base = _base({**values, "num_inference_steps": None, "guidance_scale": None}, seeds=1)
    rows = tuple(
        tuple(
            Part(
                _checked(base, prompt=look.wrap(values["prompt"] or ""), model=model, variants=(look.variant(),)),
                (column,),
            )
            for column, model in enumerate(models)
        )
        for look in chosen
    )
    titles = values["titles"]
    return Grid(rows, tuple(look.title for look in chosen), tuple(titles.get(model, model) for model in models))


def _row(base: GenerateRequest, variants: Sequence[Variant]) -> tuple[Part, ...]:
    """Raw first, then the variants, from one noise."""
    request = _checked(base, variants=(RAW, *variants))
    return (Part(request, tuple(range(len(request.variants)))),)


def _checked(base: GenerateRequest, **changes: Any) -> GenerateRequest:
    return GenerateRequest(**{**dict(base), **changes})


def _base(values: Mapping[str, Any], seeds: int) -> GenerateRequest:
    """What all cells share. The seed is drawn here, so that every row has the same, or the next."""
    if not values["model"]:
        raise StudioError("No model is here yet: put one into the catalogue, then start the page again.")
    seed = (
        secrets.randbelow(MAX_SEED - seeds + 2)
        if values["random_seed"]
        else whole("seed", values["seed"], "type one, or tick Random")
    )
    steps = values["num_inference_steps"]
    return GenerateRequest(
        prompt=values["prompt"] or "",
        negative_prompt=values["negative_prompt"] or "",
        model=values["model"],
        seed=seed,
        count=seeds,  # checks that the last of them is one
        num_inference_steps=None if steps is None else whole("num_inference_steps", steps),
        guidance_scale=values["guidance_scale"],
    ).model_copy(update={"count": 1})


def _bounded(row_name: str, rows: int, column_name: str, columns: int) -> None:
    said = f"{rows} {row_name} by {columns} {column_name} are {rows * columns} pictures"
    if not rows or not columns:
        raise StudioError(f"{said}: choose at least one of each.")
    if rows * columns > MAX_CELLS or max(rows, columns) > MAX_SIDE:
        raise StudioError(f"{said}; a grid holds at most {MAX_CELLS}, and {MAX_SIDE} in a row or column: take fewer.")


def _numbers(text: str) -> list[float]:
    words = text.replace(",", " ").replace(";", " ").split()
    try:
        numbers = list(dict.fromkeys(float(word) for word in words))
    except ValueError as error:
        raise StudioError(f"The OMS CFGs are {text[:60]!r}: write numbers with commas, such as 0.5, 1, 2.") from error
    if not numbers:
        raise StudioError("There is no OMS CFG: write one or more numbers with commas, such as 0.5, 1, 2.")
    return numbers
