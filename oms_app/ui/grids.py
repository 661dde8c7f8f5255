"""The fields of Explore as a grid of pictures to generate.

A row, or a cell if its prompt or model is its own, is one request with many variants; grid_job.py divides those that
take long. So Stop keeps what is finished, and a cell that fails does not affect the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from oms_app.errors import StudioError, describe, label_of
from oms_app.fields import VARIANT_FIELDS
from oms_app.light import LIGHTS
from oms_app.looks import Look
from oms_app.prestep.corrections import DIAL
from oms_app.schema import RAW, GenerateRequest, Lora, Variant, draw_seed
from oms_app.ui import axes, markup
from oms_app.ui.form import require_model, seed_of

PROMPT_BY_CFG = "OMS prompt × OMS CFG"
SLIDER_BY_SEED = "OMS slider × seed"
LIGHT_BY_SEED = "Light × seed"
LOOK_BY_MODEL = "Looks × models"
SEEDS = "Seeds"
TWO_FIELDS = "Any two settings"
KINDS = (SEEDS, PROMPT_BY_CFG, SLIDER_BY_SEED, LIGHT_BY_SEED, LOOK_BY_MODEL, TWO_FIELDS)
# The dials that a row can go through, and the values that it starts with.
SWEEPS: Mapping[str, str] = MappingProxyType(
    {
        "luminance": "10, 30, 50, 70, 90",
        "tint": "#b03030, #b8a840, #409850, #4060c0, #a848a0",
        "warmth": "-1, -0.5, 0, 0.5, 1",
        "light": ", ".join(LIGHTS),
        "light_strength": "0.25, 0.5, 0.75, 1",
        "spread": "0, 0.5, 1, 1.5",
    }
)
MAX_CELLS = 48
MAX_SIDE = 16


@dataclass(frozen=True)
class ExploreValues:
    """The fields of Explore. kind: one of KINDS. dial: one of SWEEPS. looks, models, loras: ids. row_field,
    column_field: of axes.AXES. Numbers are None if the field is empty."""

    prompt: str
    kind: str
    oms_prompts: str
    oms_scales: str
    left: str
    right: str
    places: int
    seeds: int
    oms_guidance_scale: float
    dial: str
    dial_values: str
    dial_light: str
    dial_seeds: int
    looks: list[str]
    models: list[str]
    seed_count: int
    seeds_oms_prompt: str
    seeds_raw: bool
    row_field: str
    row_values: str
    column_field: str
    column_values: str
    model: str | None
    loras: list[str]
    lora_scale: float
    width: float | None
    height: float | None
    scheduler: str | None
    negative_prompt: str
    num_inference_steps: float | None
    guidance_scale: float | None
    seed: float | None


@dataclass(frozen=True)
class GridPart:
    """One request of a row: its variants go to these columns, in their order."""

    request: GenerateRequest
    columns: tuple[int, ...]

    def apart(self, size: int = 1) -> list[GridPart]:
        """The same pictures, at most `size` in a request."""
        return [
            GridPart(
                self.request.model_copy(update={"variants": self.request.variants[start : start + size]}),
                self.columns[start : start + size],
            )
            for start in range(0, len(self.columns), size)
        ]


@dataclass(frozen=True)
class Grid:
    """row_labels, column_labels: what visitors wrote in them is marked (markup.own)."""

    rows: tuple[tuple[GridPart, ...], ...]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]

    @property
    def size(self) -> int:
        """In pictures."""
        return len(self.row_labels) * len(self.column_labels)

    @property
    def requests(self) -> list[GenerateRequest]:
        return [part.request for row in self.rows for part in row]


def to_grid(
    values: ExploreValues,
    looks: Sequence[Look],
    titles: Mapping[str, str],
    known: Mapping[str, Sequence[str]],
) -> Grid:
    """The grid that the fields ask for. titles: of the models, by id. known: see `axes.require_known`.

    Raises StudioError, in one line, if a value is missing or out of range, or the grid is empty or too large.
    """
    try:
        if values.kind == LOOK_BY_MODEL:
            return _looks(values, looks, titles)
        if values.kind == TWO_FIELDS:
            return _two_fields(values, known)
        makers = {SEEDS: _seeds, PROMPT_BY_CFG: _prompts, SLIDER_BY_SEED: _slider, LIGHT_BY_SEED: _sweep}
        if values.kind not in makers:
            raise StudioError(f"the grid is {str(values.kind)[:60]!r}: choose one of {', '.join(KINDS)}")
        return makers[values.kind](values)
    except ValidationError as error:
        raise StudioError(describe(error, label_of)) from error


def _seeds(values: ExploreValues) -> Grid:
    """Seeds in a row with One More Step; above them the raw pictures, if they are asked for."""
    count = int(values.seed_count)
    rows = ("raw", "with OMS") if values.seeds_raw else ("with OMS",)
    _require_size("rows", len(rows), "seeds", count)
    base = _base(values, seeds=count)
    assert base.seed is not None
    oms = _oms("oms", prompt=values.seeds_oms_prompt.strip() or None)
    seeds = [base.seed + i for i in range(count)]
    parts = tuple(
        tuple(GridPart(_with(base, seed=seed, variants=(one,)), (column,)) for column, seed in enumerate(seeds))
        for one in ((RAW, oms) if values.seeds_raw else (oms,))
    )
    return Grid(parts, rows, tuple(f"seed {seed}" for seed in seeds))


def _two_fields(values: ExploreValues, known: Mapping[str, Sequence[str]]) -> Grid:
    """The values of two settings. Cells of a row that differ only in their variants are one request."""
    row_axis, column_axis = axes.axis_of(values.row_field), axes.axis_of(values.column_field)
    if row_axis == column_axis:
        raise StudioError(f"rows and columns are both {row_axis.field.label}: choose two settings")
    down, across = row_axis.values(values.row_values), column_axis.values(values.column_values)
    for axis, found in ((row_axis, down), (column_axis, across)):
        axes.require_known(axis, found, known)
    _require_size("rows", len(down), "columns", len(across))
    base = _base(values, seeds=1)
    rows = []
    for one in down:
        cells = [axes.cell(base, {row_axis: one, column_axis: other}, i) for i, other in enumerate(across)]
        alike: dict[GenerateRequest, list[int]] = {}
        for column, (request, _) in enumerate(cells):
            alike.setdefault(request, []).append(column)
        parts = [
            GridPart(_with(request, variants=tuple(cells[column][1] for column in columns)), tuple(columns))
            for request, columns in alike.items()
        ]
        rows.append(tuple(parts))
    return Grid(tuple(rows), tuple(map(row_axis.label, down)), tuple(map(column_axis.label, across)))


def _prompts(values: ExploreValues) -> Grid:
    prompts = list(dict.fromkeys(line.strip() for line in values.oms_prompts.splitlines() if line.strip()))
    if not prompts:
        raise StudioError("there is no OMS prompt: write one or more, each on its own line")
    scales = _numbers(values.oms_scales, "OMS CFG")
    _require_size("OMS prompts", len(prompts), "columns", 1 + len(scales))
    base = _base(values, seeds=1)
    rows = tuple(
        _row(base, [_oms(f"oms {scale:g}", prompt=prompt, guidance_scale=scale) for scale in scales])
        for prompt in prompts
    )
    return Grid(rows, tuple(map(markup.own, prompts)), ("raw", *(f"OMS CFG {scale:g}" for scale in scales)))


def _slider(values: ExploreValues) -> Grid:
    places, seeds = int(values.places), int(values.seeds)
    left, right = (end.strip() or values.prompt for end in (values.left, values.right))
    _require_size("seeds", seeds, "columns", 1 + places)
    base = _base(values, seeds=seeds)
    assert base.seed is not None
    variants = [
        _oms(f"oms {mix:g}", prompt=left, prompt_b=right, mix=mix, guidance_scale=values.oms_guidance_scale)
        for mix in (round(i / (places - 1), 3) for i in range(places))
    ]
    numbers = [base.seed + i for i in range(seeds)]
    rows = tuple(_row(base.model_copy(update={"seed": number}), variants) for number in numbers)
    between = [f"{variant.mix:.0%}".replace("%", "\u00a0%") for variant in variants[1:-1]]
    labels = ("raw", markup.own(left), *between, markup.own(right))
    return Grid(rows, tuple(f"seed {number}" for number in numbers), labels)


def _sweep(values: ExploreValues) -> Grid:
    """One dial through its values, from the same noise as raw; a row for each seed."""
    field = VARIANT_FIELDS.get(values.dial)
    if field is None or values.dial not in SWEEPS:
        raise StudioError(f"the dial is {str(values.dial)[:60]!r}: choose one of {', '.join(SWEEPS)}")
    found: list[Any] = list(dict.fromkeys(_words(values.dial_values)))
    if field.kind is float:
        found = _numbers(values.dial_values, field.label)
    if not found:
        raise StudioError(f"{field.label} has no values: write one or more, such as {SWEEPS[values.dial]}")
    if not isinstance(values.dial_seeds, int | float):
        raise StudioError("the number of seeds is missing: take 1 to 8")
    seeds = int(values.dial_seeds)
    _require_size("seeds", seeds, "columns", 1 + len(found))
    base = _base(values, seeds=seeds)
    assert base.seed is not None
    whole = {"light": values.dial_light} if field.part_of == "light" else {}
    variants = [
        Variant.model_validate({"name": f"dial {i}", "correction": DIAL, field.name: value} | whole)
        for i, value in enumerate(found, 1)
    ]
    numbers = [base.seed + i for i in range(seeds)]
    rows = tuple(_row(base.model_copy(update={"seed": number}), variants) for number in numbers)
    short = field.label.partition(" (")[0]
    labels = [f"{short} {value:g}" if isinstance(value, float) else f"{short} {value}" for value in found]
    labels = [f"{label}\u00a0%" for label in labels] if field.unit == "percent" else labels
    return Grid(rows, tuple(f"seed {number}" for number in numbers), ("raw", *labels))


def _looks(values: ExploreValues, looks: Sequence[Look], titles: Mapping[str, str]) -> Grid:
    by_id = {look.id: look for look in looks}
    chosen = [by_id[name] for name in values.looks if name in by_id]
    _require_size("looks", len(chosen), "models", len(values.models))
    # Every model at its defaults, without LoRAs, which fit one family of models.
    own = replace(values, num_inference_steps=None, guidance_scale=None, width=None, height=None, scheduler=None)
    base = _base(replace(own, loras=[]), seeds=1)
    rows = tuple(
        tuple(
            GridPart(_with(base, prompt=look.wrap(values.prompt), model=model, variants=(look.variant(),)), (column,))
            for column, model in enumerate(values.models)
        )
        for look in chosen
    )
    return Grid(rows, tuple(look.title for look in chosen), tuple(titles.get(model, model) for model in values.models))


def _oms(name: str, **settings: Any) -> Variant:
    return Variant.model_validate({"name": name, "correction": "oms"} | settings)


def _row(base: GenerateRequest, variants: Sequence[Variant]) -> tuple[GridPart, ...]:
    """Raw first, then the variants, from one noise."""
    request = _with(base, variants=(RAW, *variants))
    return (GridPart(request, tuple(range(len(request.variants)))),)


def _with(base: GenerateRequest, **changes: Any) -> GenerateRequest:
    """The request with these fields, validated again."""
    return GenerateRequest.model_validate({**dict(base), **changes})


def _base(values: ExploreValues, seeds: int) -> GenerateRequest:
    """What all cells share. The seed is drawn here, so that every row has the same one, or the next."""
    seed = seed_of(values.seed)
    seed = draw_seed(seeds) if seed is None else seed
    return GenerateRequest.model_validate(
        {
            "prompt": values.prompt,
            "negative_prompt": values.negative_prompt,
            "model": require_model(values.model),
            "seed": seed,
            "count": seeds,  # validates the last seed
            "num_inference_steps": values.num_inference_steps,
            "guidance_scale": values.guidance_scale,
            "width": values.width,
            "height": values.height,
            "scheduler": values.scheduler or None,
            "loras": tuple(Lora(id=one, scale=values.lora_scale) for one in values.loras),
        }
    ).model_copy(update={"count": 1})


def _require_size(row_name: str, rows: int, column_name: str, columns: int) -> None:
    product = f"{rows} {row_name} × {columns} {column_name} = {rows * columns} pictures"
    if not rows or not columns:
        raise StudioError(f"{product}: choose at least one of each")
    if rows * columns > MAX_CELLS or max(rows, columns) > MAX_SIDE:
        raise StudioError(
            f"{product}: a grid has at most {MAX_CELLS}, and at most {MAX_SIDE} in a row or column; choose fewer"
        )


def _numbers(text: str, name: str) -> list[float]:
    """name: of the field that they are values of."""
    try:
        numbers = list(dict.fromkeys(float(word) for word in _words(text)))
    except ValueError as error:
        raise StudioError(f"{name} has the values {text[:60]!r}: write numbers and commas, such as 0.5, 1") from error
    if not numbers:
        raise StudioError(f"there is no {name}: write one or more numbers separated by commas, such as 0.5, 1")
    return numbers


def _words(text: str) -> list[str]:
    return text.replace(",", " ").replace(";", " ").split()
