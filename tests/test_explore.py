"""Grids: what the fields ask for, how a grid is painted, what is kept of it, and how long it will take."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from test_app import CREATE

from oms_app import Studio
from oms_app.engine.estimates import RunTimes
from oms_app.errors import StudioError
from oms_app.looks import LookLibrary
from oms_app.output import png as gallery
from oms_app.schema import GenerateRequest, GenerateResult
from oms_app.ui.axes import AXES
from oms_app.ui.field_set import FieldSet
from oms_app.ui.generation import JobRunner
from oms_app.ui.grid_job import GridJob
from oms_app.ui.grid_table import MISSING, GridCell, GridResult, table
from oms_app.ui.grids import (
    LOOK_BY_MODEL,
    MAX_CELLS,
    PROMPT_BY_CFG,
    SEEDS,
    SLIDER_BY_SEED,
    TWO_FIELDS,
    ExploreValues,
    Grid,
    to_grid,
)
from oms_app.ui.jobs import StopFlags
from oms_app.ui.markup import about, own

LOOKS = [look for look, _ in LookLibrary().looks()]
_FIELDS: dict[str, Any] = {
    "prompt": "mountains", "kind": PROMPT_BY_CFG, "oms_prompts": "dark\n\n light \ndark", "oms_scales": "0.5, 1 2",
    "left": "dark", "right": "", "places": 3, "seeds": 2, "oms_guidance_scale": 1.5,
    "dial": "luminance", "dial_values": "20, 80", "dial_light": "left", "dial_seeds": 2, "looks": ["night", "plain"],
    "models": ["lumen", "absent"], "model": "lumen", "negative_prompt": "", "num_inference_steps": 2,
    "seed_count": 4, "seeds_oms_prompt": "", "seeds_raw": False, "row_field": "variant luminance",
    "row_values": "20, 80",
    "column_field": "variant warmth", "column_values": "-1, 1", "loras": [], "lora_scale": 1.0, "width": None,
    "height": None, "scheduler": None,
    "guidance_scale": None, "seed": 7,
}  # fmt: skip
VALUES = ExploreValues(**_FIELDS)


def ask(**changes: Any) -> Grid:
    return to_grid(replace(VALUES, **changes), LOOKS, {"lumen": "Tiny"}, {"model": ["lumen"], "module": ["lumen-oms"]})


@dataclass(frozen=True)
class NoFields:
    pass


class Service:
    """Generates with a Studio, but refuses some requests. Sets the stop flag after `stop_after` results."""

    def __init__(
        self,
        studio: Studio,
        refuse: Callable[[GenerateRequest], Exception | None] = lambda request: None,
        stop_after: int | None = None,
    ) -> None:
        self._studio, self._refuse, self._left = studio, refuse, stop_after

    def estimate(self, requests: Any) -> float | None:
        return None

    def save(self, result: GenerateResult, session: str | None = None) -> GenerateResult:
        return result

    def stream(self, request: GenerateRequest, stop: threading.Event, interval: float) -> Iterator[GenerateResult]:
        if error := self._refuse(request):
            raise error
        result = self._studio.generate(request, should_stop=stop.is_set)
        if self._left is not None:
            self._left -= 1
            if not self._left:
                stop.set()
        yield result


def run(service: Any, grid: Grid) -> tuple[GridResult, str]:
    """What a click on Explore's button makes of the grid, and the message at its end."""
    messages: list[str] = []
    saved: list[tuple[GridResult, str | None]] = []

    def on_status(message: str) -> dict[Any, Any]:
        messages.append(message)
        return {"status": message}

    def save(result: GridResult, session: str | None) -> dict[Any, Any]:
        saved.append((result, session))
        return {}

    job = GridJob(grid, service, lambda result, ended: {}, on_status, save)
    controls: Any = SimpleNamespace(idle=dict, flags=StopFlags())
    runner = JobRunner(service, controls, FieldSet(NoFields, {}), lambda values: job)
    session: Any = SimpleNamespace(session_hash="one")
    *_, last = runner.run(job, session)
    assert not saved and runner.finished in last, "files are written when the device is free again"
    for _ in range(2):  # anyone can call the event again: nothing more is written
        runner.show(job, session)
    assert saved == ([(job.result, "one")] if job.result.finished else [])
    return job.result, messages[-1]


def test_every_oms_prompt_is_a_row_that_is_one_request() -> None:
    grid = ask()
    assert grid.row_labels == (own("dark"), own("light")) and grid.column_labels == (
        "raw",
        "OMS CFG 0.5",
        "OMS CFG 1",
        "OMS CFG 2",
    )
    assert grid.size == 8 and len(grid.requests) == 2
    raw, *oms = grid.requests[1].variants
    assert raw.correction == "raw" and [(v.prompt, v.guidance_scale) for v in oms] == [
        ("light", w) for w in (0.5, 1, 2)
    ]
    drawn = ask(seed=-1)
    assert len({request.seed for request in drawn.requests}) == 1 and drawn.requests[0].seed is not None


def test_the_slider_goes_along_the_row_and_the_seed_down() -> None:
    grid = ask(kind=SLIDER_BY_SEED)
    assert [request.seed for request in grid.requests] == [7, 8]
    assert [v.mix for v in grid.requests[0].variants] == [0.0, 0.0, 0.5, 1.0]
    assert {v.prompt_b for v in grid.requests[0].variants[1:]} == {"mountains"}, "an empty end means the main prompt"
    assert grid.row_labels == ("seed 7", "seed 8")
    assert grid.column_labels == ("raw", own("dark"), "50\u00a0%", own("mountains"))


def test_looks_by_models_have_a_request_for_each_cell() -> None:
    grid = ask(kind=LOOK_BY_MODEL, num_inference_steps=3)
    assert [(r.model, r.prompt) for r in grid.requests] == [
        ("lumen", "mountains at night"), ("absent", "mountains at night"), ("lumen", "mountains"),
        ("absent", "mountains"),
    ]  # fmt: skip
    assert {r.num_inference_steps for r in grid.requests} == {None}, "every model at what suits it"
    assert grid.row_labels == ("Night", "Plain") and grid.column_labels == ("Tiny", "absent")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"oms_prompts": " \n"}, "there is no OMS prompt: write one or more"),
        ({"oms_scales": "high"}, "OMS CFG has the values 'high': write numbers"),
        ({"oms_scales": ","}, "there is no OMS CFG"),
        ({"oms_scales": "31"}, "OMS CFG is 31.0: take 0 to 30"),
        ({"oms_scales": "nan"}, "OMS CFG is nan: take 0 to 30"),
        ({"oms_prompts": "\n".join(map(str, range(13)))}, f"13 OMS prompts × 4 columns = 52 pictures: a grid has "
         f"at most {MAX_CELLS}"),
        ({"oms_scales": " ".join(map(str, range(20)))}, "and at most 16 in a row or column; choose fewer"),
        ({"kind": LOOK_BY_MODEL, "models": []}, "2 looks × 0 models = 0 pictures: choose at least one of each"),
        ({"kind": LOOK_BY_MODEL, "looks": ["no such look"]}, "0 looks × 2 models = 0 pictures"),
        ({"kind": SLIDER_BY_SEED, "seed": 2**32 - 1}, "passes 4294967295: take a smaller seed"),
        ({"seed": 1.5}, "Seed is 1.5: take 0 to 4294967295"),
        ({"num_inference_steps": 0}, "Steps is 0: take 1 to 200"),
        ({"guidance_scale": 31}, "CFG (guidance scale) is 31: take 0 to 30"),
        ({"model": None}, "no model is available"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_refused_in_one_plain_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StudioError) as refusal:
        ask(**changes)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_grid_is_made_with_the_settings_of_its_cells(studio: Studio) -> None:
    result, _ = run(Service(studio), ask())
    assert result.finished == 8
    raws = [result.cells[row, 0] for row in range(2)]
    assert all(isinstance(raw, GridCell) and raw.image.variant == "raw" for raw in raws)
    cell = result.cells[1, 3]
    assert isinstance(cell, GridCell)
    alone = studio.generate(
        GenerateRequest(prompt="mountains", seed=7, num_inference_steps=2, variants=(cell.variant,))
    ).images[0]
    assert alone.stats.mean == pytest.approx(cell.image.stats.mean, abs=1.0)
    html = table(result)
    assert html.count("<button") == 8 and "OMS CFG 0.5" in html and "gradio_api/file=" in html


def test_a_cell_fills_in_the_fields_of_create_so_that_it_is_asked_for_again(studio: Studio) -> None:
    for kind, column in ((PROMPT_BY_CFG, 2), (SLIDER_BY_SEED, 2)):
        result, _ = run(Service(studio), ask(kind=kind, guidance_scale=3.0))
        cell = result.cells[1, column]
        assert isinstance(cell, GridCell)
        again = CREATE.with_picture(cell.request, cell.variant).to_request()
        kept = again.variants[1].model_copy(update={"name": cell.variant.name, "module": cell.variant.module})
        assert kept == cell.variant
        assert again.model_copy(update={"variants": ()}) == cell.request.model_copy(
            update={"variants": (), "guidance_rescale": None}
        )
        raw = result.cells[1, 0]
        assert isinstance(raw, GridCell)
        of_raw = CREATE.with_picture(raw.request, raw.variant)
        assert not of_raw.oms_on and of_raw.oms_guidance_scale == CREATE.oms_guidance_scale


@pytest.mark.parametrize("error", [StudioError("this will <not> do"), RuntimeError("this will <not> do")])
def test_a_cell_that_fails_leaves_the_others(studio: Studio, error: Exception) -> None:
    def refuse(request: GenerateRequest) -> Exception | None:
        scales = [v.guidance_scale for v in request.variants if v.prompt == "light"]
        return error if 2.0 in scales else None

    result, message = run(Service(studio, refuse), ask())
    assert result.finished == 7 and "1 picture failed" in message
    reason = result.cells[1, 3]
    assert isinstance(reason, str) and "this will <not> do" in reason
    html = table(result)
    assert html.count("<button") == 7 and "his will &lt;not&gt; do" in html
    result, _ = run(Service(studio), ask(kind=LOOK_BY_MODEL))
    assert result.finished == 2 and "absent" in str(result.cells[0, 1]), "a model that is absent fails in its column"


def test_stop_keeps_what_is_finished(studio: Studio) -> None:
    result, message = run(Service(studio, stop_after=6), ask())  # in the middle of the second row
    assert result.finished == 6 and set(result.cells) == {(i // 4, i % 4) for i in range(6)}
    assert "Stopped. 6 of 8 pictures are kept." in message
    assert table(result).count("oms-pending") == 2
    assert result.for_sheet()[1][2:] == [MISSING] * 2


@pytest.mark.parametrize(("seconds", "sizes"), [(None, [1] * 8), (16.0, [1] * 8), (8.0, [2] * 4), (1.0, [4, 4])])
def test_a_part_takes_a_few_seconds_at_most(studio: Studio, seconds: float | None, sizes: list[int]) -> None:
    """seconds: that a row of four pictures is estimated to take; nothing is known of the first ones."""
    asked: list[int] = []

    def note(request: GenerateRequest) -> None:
        asked.append(len(request.variants))

    service = Service(studio, note)
    row = lambda requests: None if seconds is None else seconds / 4 * len(requests[0].variants)  # noqa: E731
    service.estimate = row  # type: ignore[method-assign]
    result, _ = run(service, ask())
    assert asked == sizes and result.finished == 8


def test_four_seeds_are_four_pictures_and_the_raw_ones_belong_to_them(studio: Studio) -> None:
    grid = ask(kind=SEEDS)
    assert grid.size == 4 and grid.row_labels == ("with OMS",)
    assert [request.seed for request in grid.requests] == [7, 8, 9, 10]
    grid = ask(kind=SEEDS, seeds_raw=True, seed_count=2, seeds_oms_prompt="dark")
    result, _ = run(Service(studio), grid)
    assert result.finished == 4
    cell, raw = result.cells[1, 1], result.cells[0, 1]
    assert isinstance(cell, GridCell) and isinstance(raw, GridCell)
    assert cell.variant.prompt == "dark" and result.raw_of(cell) is raw.image


def test_any_two_settings_make_a_grid(studio: Studio) -> None:
    grid = ask(kind=TWO_FIELDS)
    assert grid.row_labels == ("Mean brightness 20", "Mean brightness 80")
    assert grid.column_labels == ("Warmth -1", "Warmth 1")
    (part,) = grid.rows[1]
    assert [(v.correction, v.luminance, v.warmth) for v in part.request.variants] == [("dial", 80, -1), ("dial", 80, 1)]
    grid = ask(
        kind=TWO_FIELDS, row_field="request num_inference_steps", row_values="1\n2", column_field="request scheduler",
        column_values="ddim, euler", width=72, height=64,
    )  # fmt: skip
    assert [(one.num_inference_steps, one.scheduler, one.width) for one in grid.requests] == [
        (1, "ddim", 72), (1, "euler", 72), (2, "ddim", 72), (2, "euler", 72)
    ]  # fmt: skip
    grid = ask(kind=TWO_FIELDS, row_field="variant correction", row_values="raw, oms", column_field="request prompt",
               column_values="sea, at night\nhills")  # fmt: skip
    assert grid.column_labels == (own("sea, at night"), own("hills"))
    result, _ = run(Service(studio), grid)
    assert result.finished == 4


@pytest.mark.parametrize("name", AXES)
def test_every_field_can_be_an_axis(name: str) -> None:
    """With two values of its own and, if it is a part of another setting, that on the other axis."""
    axis = AXES[name]
    samples = {"prompt": "dark\nlight", "prompt_b": "dark\nlight", "negative_prompt": "a\nb", "light": "left, top",
               "tint": "#102030, #ff0000", "model": "lumen", "module": "lumen-oms", "correction": "raw, oms",
               "width": "64, 72", "height": "64, 72"}  # fmt: skip
    field = axis.field
    values = samples.get(axis.name) or (
        ", ".join(field.choices[:2]) if field.choices else "yes, no" if field.kind is bool else "1, 0"
    )
    if axis.name == "num_inference_steps":
        values = "1, 2"
    other, other_values = (
        ("variant " + field.part_of, samples[field.part_of]) if field.part_of else ("request seed", "1")
    )
    if axis.name == "mix":
        other, other_values = "variant prompt_b", "dark"
    if axis.name == "seed":
        other, other_values = "request width", "64"
    if axis.name in ("offset_strength", "offset_per"):
        other, other_values = "variant correction", "offset_noise"
    changes: dict[str, Any] = {"loras": ["bold"]} if axis.belongs == "lora" else {}
    both = {"row_field": name, "row_values": values, "column_field": other, "column_values": other_values}
    grid = ask(kind=TWO_FIELDS, **both, **changes)
    assert grid.size == len(axis.values(values)) * len(AXES[other].values(other_values))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"row_field": "x"}, "the axis is 'x'"),
        ({"row_field": "variant warmth"}, "rows and columns are both Warmth"),
        ({"row_values": " , "}, "has no values"),
        ({"row_values": "dark"}, "write numbers"),
        ({"row_values": "900"}, "Mean brightness (average of R, G, B) is 900.0: take 0 to 100"),
        ({"row_field": "request model", "row_values": "/etc"}, "unknown model '/etc'"),
        ({"row_field": "variant module", "row_values": "/etc"}, "unknown oms module '/etc'"),
        ({"row_field": "lora scale"}, "there is no LoRA"),
        ({"row_field": "variant offset_strength", "row_values": "1"}, "does not read offset_strength"),
        ({"row_field": "variant tint_strength", "row_values": "0.5"}, "there is no tint"),
    ],
)
def test_axes_that_cannot_be_are_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StudioError) as error:
        ask(kind=TWO_FIELDS, **changes)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_sheet_has_labels_and_the_settings_of_every_cell(studio: Studio, tmp_path: Path) -> None:
    result, _ = run(Service(studio, stop_after=4), ask())
    result.cells[1, 0] = "it went wrong " * 30
    labels = ("dark", "a very long OMS prompt " * 20), result.grid.column_labels
    path = gallery.save_sheet(result.for_sheet(), *labels, tmp_path)
    assert path.suffix == ".png" and path.parent == tmp_path
    with Image.open(path) as sheet:
        sheet.load()
        kept = json.loads(sheet.info["oms_studio_sheet"])
        assert sheet.width <= 5 * (64 + 4) + 64 and sheet.height <= 2 * (64 + 4) + 5 * 17
    assert (kept["rows"][0], kept["columns"]) == ("dark", list(labels[1]))
    cell = kept["cells"][0][3]
    request = GenerateRequest.model_validate(cell["request"])
    assert cell["variant"] == "oms 2" and request.seed == 7
    assert next(v for v in request.variants if v.name == "oms 2").guidance_scale == 2.0
    assert kept["cells"][1][0]["error"].startswith("it went wrong") and kept["cells"][1][1] == {"error": MISSING}


def test_the_pace_is_learnt_and_kept(studio: Studio, tmp_path: Path) -> None:
    defaults = {info.id: info.defaults for info in studio.models()}
    pace = RunTimes(tmp_path / "home" / "pace.json")
    grid = ask()
    assert pace.estimate(grid.requests, defaults) is None, "nothing was painted yet"
    result = studio.generate(grid.requests[0])
    assert result.painted == 4
    pace.learn(result)
    seconds = result.seconds.correct + result.seconds.denoise + result.seconds.decode
    for one in (pace, RunTimes(pace.file)):
        assert one.estimate(grid.requests, defaults) == pytest.approx(seconds * 7 / 4), "the raw picture counts once"
    again = studio.generate(grid.requests[0])
    assert again.painted == 0
    pace.learn(again)
    assert pace.estimate(grid.requests[:1], defaults) == pytest.approx(seconds), "what was reused says nothing of speed"
    pace.file.write_text('{"rates": {"lumen": [-1]}}')
    assert RunTimes(pace.file).estimate(grid.requests, defaults) is None
    pace.file.write_text("no json")
    assert RunTimes(pace.file).estimate(grid.requests, defaults) is None


def test_time_is_said_no_finer_than_it_is_known() -> None:
    said = [about(seconds) for seconds in (0.1, 3.4, 21, 57, 58, 200, 3 * 3600)]
    assert said == [
        "about 1 s", "about 3 s", "about 20 s", "about 55 s", "about 1 min", "about 3 min", "about 3 hours"
    ]  # fmt: skip
    assert not re.search(r"\.", "".join(said))
