"""Grids: OMS prompt × OMS CFG, OMS slider × seed, looks × models. A cell that is clicked opens in Create."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from oms_app.errors import Stopped, StudioError
from oms_app.schema import GenerateRequest, GenerateResult, Progress, Seconds
from oms_app.ui import create_tab, readout
from oms_app.ui.board import CLICK_JS, Board, Painted, table
from oms_app.ui.form import to_fields
from oms_app.ui.grids import KINDS, LOOK_BY_MODEL, PROMPT_BY_CFG, SLIDER_BY_SEED, Grid, to_grid
from oms_app.ui.looks_panel import Shelf
from oms_app.ui.painting import QUICK, Save, attach, keep
from oms_app.ui.work import Engine, available_models, follow

logger = logging.getLogger(__name__)
Components = dict[str, Any]
Estimate = Callable[[Sequence[GenerateRequest]], float | None]
SaveSheet = Callable[[Any, Sequence[str], Sequence[str]], Path]
FIELDS = (
    "prompt", "kind", "oms_prompts", "oms_scales", "left", "right", "places", "seeds", "oms_guidance_scale", "looks",
    "models", "model", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "random_seed",
)  # fmt: skip
SPACING = 1.0  # seconds between two steps told: a grid takes long, and a browser that falls behind shows its rows late
FIRST_LOOKS = ["plain", "night", "golden-hour", "fog", "high-key"]


def build(models: Sequence[Any], looks: Sequence[Any]) -> Components:
    """Lays out the view. models: bases that are on this machine. looks: those there are."""
    c: Components = {}
    with gr.Row(elem_id="explore-ask"):
        with gr.Column(min_width=280):
            c["prompt"] = gr.Textbox(
                "mountains", label="Prompt", info="One prompt for the whole grid.", lines=2, elem_id="explore-prompt"
            )
            c["kind"] = gr.Radio(list(KINDS), value=PROMPT_BY_CFG, label="Grid", elem_id="explore-kind")
        with gr.Column(min_width=280):
            _axes(c, models, looks)
        with gr.Column(min_width=280):
            _others(c, models)
    with gr.Row(elem_id="explore-run"):
        with gr.Column(min_width=280):
            with gr.Row(elem_id="explore-buttons"):
                c["paint"] = gr.Button("Paint the grid", variant="primary", elem_id="explore", scale=3, min_width=130)
                c["stop"] = gr.Button("Stop", elem_id="explore-stop", interactive=False, scale=1, min_width=70)
                c["sheet"] = gr.DownloadButton(
                    "Download sheet", elem_id="explore-sheet", interactive=False, scale=2, min_width=170
                )
            c["plan"] = gr.HTML(
                _line("How many pictures, and how long they take, is said here."), elem_id="explore-plan"
            )
        with gr.Column(min_width=280):
            c["status"] = gr.HTML("", elem_id="explore-status")
    c["table"] = gr.HTML(
        '<p class="oms-legend">Pictures come in row by row. Click one to open it in Create with all its settings.</p>',
        js_on_load=CLICK_JS,
        elem_id="explore-table",
    )
    c["grid"], c["board"] = gr.State(), gr.State()
    return c


def _axes(c: Components, models: Sequence[Any], looks: Sequence[Any]) -> None:
    with gr.Column(elem_id="explore-by-prompt") as c[PROMPT_BY_CFG]:
        c["oms_prompts"] = gr.Textbox(
            "dark\nsunset\nbright", label="OMS prompts", info="One on each line; each gets a row.", lines=4,
            elem_id="explore-prompts",
        )  # fmt: skip
        c["oms_scales"] = gr.Textbox(
            "0.5, 1, 1.5, 2", label="OMS strengths (CFG)", info="Numbers with commas; each gets a column.",
            max_lines=1, elem_id="explore-scales",
        )  # fmt: skip
    with gr.Column(visible=False, elem_id="explore-by-slider") as c[SLIDER_BY_SEED]:
        with gr.Row():
            c["left"] = gr.Textbox("dark", label="Left end", info="Empty = the prompt.", min_width=90, max_lines=1)
            c["right"] = gr.Textbox("light", label="Right end", info="Empty = the prompt.", min_width=90, max_lines=1)
        with gr.Row():
            c["places"] = gr.Slider(2, 9, value=5, step=1, label="Places on the slider", min_width=120)
            c["seeds"] = gr.Slider(1, 8, value=3, step=1, label="Seeds", min_width=120, elem_id="explore-seeds")
        c["oms_guidance_scale"] = gr.Slider(
            0, 4, value=1.0, step=0.1, label="OMS strength (CFG)", info="1 is natural, higher is bolder."
        )
    with gr.Column(visible=False, elem_id="explore-by-look") as c[LOOK_BY_MODEL]:
        c["looks"] = gr.Dropdown(
            _choices(looks), value=[look.id for look in looks if look.id in FIRST_LOOKS], multiselect=True,
            label="Looks", info="Each gets a row.", elem_id="explore-looks",
        )  # fmt: skip
        c["models"] = gr.CheckboxGroup(
            [(info.title, info.id) for info in models],
            value=[models[0].id] if models else [],
            label="Models",
            info="Each gets a column, and paints at the size, steps and strength that suit it.",
            elem_id="explore-models",
        )


def _others(c: Components, models: Sequence[Any]) -> None:
    defaults = models[0].defaults if models else None
    with gr.Row():
        c["seed"] = gr.Number(0, label="Seed", elem_id="explore-seed", scale=2, min_width=140)
        c["random_seed"] = gr.Checkbox(
            True, label="Random", container=False, scale=1, min_width=90, elem_id="explore-random"
        )
    with gr.Accordion("Picture settings", open=False, elem_id="explore-settings"):
        c["model"] = gr.Dropdown(
            [(info.title, info.id) for info in models],
            value=models[0].id if models else None,
            label="Model",
            filterable=False,
            elem_id="explore-model",
        )
        c["negative_prompt"] = gr.Textbox(label="Negative prompt", placeholder="may stay empty", max_lines=2)
        with gr.Row():
            c["num_inference_steps"] = gr.Number(
                getattr(defaults, "num_inference_steps", None),
                label="Steps",
                info="Fewer are quicker.",
                elem_id="explore-steps",
                min_width=90,
            )
            c["guidance_scale"] = gr.Number(
                getattr(defaults, "guidance_scale", None),
                label="Prompt strength",
                info="CFG of the picture.",
                elem_id="explore-cfg",
                min_width=90,
            )


def _choices(looks: Sequence[Any]) -> list[tuple[str, str]]:
    return [(look.title, look.id) for look in looks]


def lists(c: Components, studio: Engine, chosen: Mapping[Any, Any]) -> dict[Any, Any]:
    """The lists of models as they are now. chosen: as for `create_tab.lists`."""
    models = available_models(studio, "base")
    ids, choices = [info.id for info in models], [(info.title, info.id) for info in models]
    model = chosen[c["model"]] if chosen[c["model"]] in ids else next(iter(ids), None)
    return {
        c["model"]: gr.update(choices=choices, value=model),
        c["models"]: gr.update(choices=choices, value=[one for one in chosen[c["models"]] if one in ids]),
    }


def connect(
    c: Components,
    studio: Engine,
    save: Save,
    shelf: Shelf,
    estimate: Estimate,
    save_sheet: SaveSheet,
    room: gr.Tab,
) -> None:
    """Wires the components to the studio; every event is private. room: the tab, which knows the looks and how long the
    grid will take whenever it is opened."""

    def ask(values: dict[str, Any]) -> Grid:
        titles = {info.id: info.title for info in studio.models()}
        return to_grid({**values, "titles": titles}, [look for look, _ in shelf.looks()])

    def plan(data: dict[Any, Any]) -> str:
        """What the fields ask for, or why there is no grid yet."""
        try:
            return planned(ask({name: data[c[name]] for name in FIELDS}))
        except StudioError as error:
            return _line(str(error))

    def planned(grid: Grid) -> str:
        """How many pictures there are to paint, and how long that will take."""
        seconds = estimate(grid.requests)
        time_said = about(seconds) if seconds is not None else "how long is known once the first row is there"
        return _line(f"{_pictures(grid.size)}, {time_said}.")

    def paint(grid: Grid, flag: threading.Event, rest: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        board = Board(grid)
        yield {
            c["board"]: board,
            c["table"]: table(board),
            c["sheet"]: gr.update(value=None, interactive=False),
            c["seed"]: grid.requests[0].seed,
        }
        said: dict[str, None] = {}
        try:
            for news in work(studio, save, board, estimate(grid.requests), flag):
                if isinstance(news, GenerateResult):
                    said |= dict.fromkeys(news.notes)
                    yield {c["table"]: table(board)}
                else:
                    yield {c["status"]: news}
            failed = len(board.cells) - board.painted
            if failed:
                said[f"{_pictures(failed)} could not be painted: the reason stands in its cell"] = None
            status = readout.note(*said)
        except Stopped:
            status = readout.note(f"Stopped. {board.painted} of {_pictures(grid.size)} are kept.")
        yield {
            c["status"]: status,
            c["plan"]: planned(grid),
            c["table"]: table(board),
            c["board"]: board,
            **sheet(board),
            **rest,
        }

    def sheet(board: Board) -> dict[Any, Any]:
        if not board.painted:
            return {}
        try:
            path = save_sheet(board.for_sheet(), board.grid.row_labels, board.grid.column_labels)
        except StudioError as error:
            return {c["status"]: readout.alert(f"the sheet is not saved: {error}")}
        return {c["sheet"]: gr.update(value=path, interactive=True)}

    attach(
        start=c["paint"],
        stop=c["stop"],
        status=c["status"],
        requests=c["grid"],
        fields={name: c[name] for name in FIELDS},
        outputs=[c[name] for name in ("table", "board", "sheet", "plan", "seed")],
        ask=ask,
        run=paint,
    )
    fields = {c[name] for name in FIELDS}
    changes = [c[name].change for name in FIELDS if name not in ("seed", "random_seed")]
    room.select(lambda: gr.update(choices=_choices([look for look, _ in shelf.looks()])), None, c["looks"], **QUICK)
    gr.on([room.select, *changes], plan, fields, c["plan"], trigger_mode="always_last", **QUICK)
    c["model"].input(
        lambda model: next(
            (info.defaults.num_inference_steps, info.defaults.guidance_scale)
            for info in studio.models()
            if info.id == model
        ),
        c["model"],
        [c["num_inference_steps"], c["guidance_scale"]],
        **QUICK,
    )
    c["kind"].change(
        lambda kind: [gr.update(visible=kind == one) for one in KINDS], c["kind"], [c[one] for one in KINDS], **QUICK
    )
    c["seed"].input(None, None, c["random_seed"], js="() => false", **QUICK)


def open_in_create(c: Components, create: Components, rooms: gr.Tabs, show: Callable[..., dict[Any, Any]]) -> None:
    """A click on a finished cell fills in the fields of Create, shows the picture there and goes there."""

    def open_cell(event: gr.EventData, board: Board | None) -> dict[Any, Any]:
        where = int(event._data["row"]), int(event._data["column"])
        cell = board.cells.get(where) if board else None
        if board is None or not isinstance(cell, Painted):
            return {c["status"]: readout.alert("This picture is no longer here: paint the grid again.")}
        raw = board.raw_of(where[0])
        images = [raw] if raw else []
        if cell.variant.is_corrected:
            images.append(cell.image.model_copy(update={"variant": "oms"}))
        nothing = Seconds(load=0, encode=0, correct=0, denoise=0, decode=0, total=0)
        result = GenerateResult(request=cell.request, seed=cell.image.seed, images=tuple(images), seconds=nothing)
        shown = show([result])
        change = readout.change(raw.stats, cell.image.stats) if raw and cell.variant.is_corrected else ""
        parts = [f"seed <b>{cell.image.seed}</b>", "from Explore"]
        return {
            **shown,
            **{create[name]: value for name, value in to_fields(cell.request, cell.variant).items()},
            create["seed"]: cell.image.seed,
            create["summary"]: readout.headline(cell.request.prompt, change, parts),
            create["status"]: "" if raw else readout.note("Press Generate for the raw picture beside it."),
            rooms: gr.update(selected="create"),
        }

    filled = [create[name] for name in create_tab.FIELDS]
    outputs = list(dict.fromkeys([*create_tab.shown_in(create), *filled, rooms, c["status"]]))
    c["table"].click(open_cell, c["board"], outputs, **QUICK)


def work(
    studio: Engine, save: Save, board: Board, expected: float | None, flag: threading.Event
) -> Iterator[GenerateResult | str]:
    """Paints the board part by part. Yields every result, and between them the progress as HTML.

    Where a part of several pictures fails, each of them is tried by itself; what fails alone leaves its reason in its
    cell. Raises Stopped once the flag is set. expected: seconds for the whole grid, where they are known beforehand.
    """
    parts = deque((row, part) for row, row_parts in enumerate(board.grid.rows) for part in row_parts)
    started = time.perf_counter()

    def left(done: float) -> float | None:
        """Seconds; from what was painted in this run as soon as there is something."""
        passed, share = time.perf_counter() - started, done / board.grid.size
        return passed / share - passed if len(board.cells) else None if expected is None else expected - passed

    while parts:
        row, part = parts.popleft()
        try:
            if flag.is_set():
                raise Stopped("stopped")
            for news in follow(studio, part.request, flag, SPACING):
                if isinstance(news, Progress):
                    step = news.step / news.steps * len(part.columns) if news.steps else 0.0
                    yield progress(news, len(board.cells) + step, board.grid.size, left(len(board.cells) + step))
                else:
                    result = keep(save, news)
                    board.put(row, part, result)
                    yield result
        except Stopped:
            raise
        except Exception as error:
            if len(part.columns) > 1:
                parts.extendleft((row, one) for one in reversed(part.apart()))
                continue
            if not isinstance(error, StudioError):
                logger.exception("a cell failed")
            broke = f"something broke while painting ({type(error).__name__}: {error})"
            board.cells[row, part.columns[0]] = str(error) if isinstance(error, StudioError) else broke


def progress(event: Progress, done: float, of: int, left: float | None) -> str:
    """Which picture is being painted and how long the rest will take, over a bar."""
    time_said = f" · {about(left)} left" if left is not None else ""
    text = f"{readout.STAGES[event.stage]}: {int(done)} of {_pictures(of)} finished{time_said}"
    bar = f'<progress aria-label="Progress" value="{done:.2f}" max="{of}"></progress>'
    return f'<div class="oms-status"><span>{text}</span>{bar}</div>'


def about(seconds: float) -> str:
    """Such as "about 20 s" or "about 3 min": no finer than such a guess can be."""
    if seconds < 9.5:
        return f"about {max(1, round(seconds))} s"
    if seconds < 57.5:
        return f"about {5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.0f} hours"


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _line(text: str) -> str:
    return f'<p class="oms-legend">{escape(text)}</p>'
