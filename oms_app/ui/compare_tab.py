"""Every remedy for the flaw side by side: one prompt, one seed, up to six pictures in a row, with their figures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from oms_app.requests import (
    GenerateRequest,
    GenerateResult,
    ImageResult,
    Progress,
    Stopped,
    StudioError,
)
from oms_app.ui import readout
from oms_app.ui.create_tab import DEVICE, Components, Save
from oms_app.ui.form import MAX_COMPARED, METHODS, to_comparison
from oms_app.ui.work import Engine, Stops, follow

logger = logging.getLogger(__name__)
FIELDS = (
    "prompt", "methods", "models", "oms_prompt", "oms_guidance_scale", "offset_strength", "oms_module", "force", "seed",
    "random_seed",
)  # fmt: skip
AUTOMATIC = ""  # the module of the base's own latent domain
FIRST = ["raw", "oms", "singdiffusion", "offset_noise", "signal_leak"]


def build(models: Sequence[Any], modules: Sequence[Any], ready: Sequence[str]) -> Components:
    """Lays out the view. models, modules: bases and OMS modules of the catalogue. ready: methods that can be asked
    for, since what they need is on this machine."""
    c: Components = {}
    with gr.Row(elem_id="compare-ask"):
        with gr.Column(min_width=280):
            c["prompt"] = gr.Textbox(
                label="Prompt", info="One prompt for all pictures.", value="solid black background", lines=2,
                elem_id="compare-prompt",
            )  # fmt: skip
            with gr.Row():
                c["compare"] = gr.Button("Compare", variant="primary", elem_id="compare", scale=3, min_width=120)
                c["stop"] = gr.Button("Stop", elem_id="compare-stop", interactive=False, scale=1, min_width=80)
            c["status"] = gr.HTML("", elem_id="compare-status")
        with gr.Column(min_width=280):
            c["methods"] = gr.CheckboxGroup(
                [(METHODS[name], name) for name in METHODS if name in ready],
                value=[name for name in FIRST if name in ready],
                label="Remedies",
                info="Each begins from the same noise and changes it in its own way.",
                elem_id="compare-methods",
            )
            c["models"] = gr.CheckboxGroup(
                [(info.title, info.id) for info in models],
                value=[models[0].id] if models else [],
                label="Models",
                info=f"Every remedy is painted by every model; at most {MAX_COMPARED} pictures.",
                elem_id="compare-models",
            )
        with gr.Column(min_width=280), gr.Accordion("Their settings", open=False, elem_id="compare-settings"):
            c["oms_prompt"] = gr.Textbox(
                label="OMS prompt", info="For OMS and SingDiffusion. Empty = the main prompt.",
                placeholder="empty = the main prompt",
            )  # fmt: skip
            c["oms_guidance_scale"] = gr.Slider(
                0, 4, value=1.0, step=0.1, label="OMS strength (CFG)", info="For OMS: 1 is natural, higher is bolder."
            )
            c["offset_strength"] = gr.Slider(
                0, 1, value=0.1, step=0.05, label="Offset strength", info="For offset noise: how far chance may tint."
            )
            c["oms_module"] = gr.Dropdown(
                [("the model's own", AUTOMATIC), *((info.title, info.id) for info in modules)],
                value=AUTOMATIC,
                label="OMS module",
                filterable=False,
            )
            c["force"] = gr.Checkbox(
                False,
                label="Use a module made for another kind of model",
                info="The colours will be wrong: each kind of model has its own code for them. Black may turn red.",
            )
            with gr.Row():
                c["seed"] = gr.Number(0, label="Seed", elem_id="compare-seed", min_width=120)
                c["random_seed"] = gr.Checkbox(True, label="Random", container=False, min_width=90)
    c["summary"] = gr.HTML("", elem_id="compare-summary")
    with gr.Row(elem_id="compared"):
        for i in range(MAX_COMPARED):
            with gr.Column(min_width=0, visible=False, elem_classes="oms-compared") as c[f"cell_{i}"]:
                c[f"image_{i}"] = gr.Image(
                    format="png", type="pil", interactive=False, buttons=["download", "fullscreen"],
                    elem_id=f"compared-{i}",
                )  # fmt: skip
                c[f"figures_{i}"] = gr.HTML("", elem_id=f"compared-figures-{i}")
    c["requests"] = gr.State()
    return c


def connect(c: Components, studio: Engine, save: Save) -> None:
    """Wires the components to the studio; every event is private."""
    stops = Stops()
    inputs = {c[name] for name in FIELDS}
    cells = [c[f"{part}_{i}"] for i in range(MAX_COMPARED) for part in ("cell", "image", "figures")]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def check(data: dict[Any, Any], session: gr.Request) -> dict[Any, Any]:
        try:
            requests = to_comparison({name: data[c[name]] for name in FIELDS})
        except StudioError as error:
            return {c["requests"]: None, c["status"]: readout.alert(str(error))}
        stops.fresh(session.session_hash)
        return {
            c["requests"]: requests,
            c["status"]: readout.progress(None),
            c["compare"]: gr.update(interactive=False),
            c["stop"]: gr.update(interactive=True),
        }

    def run(requests: list[GenerateRequest] | None, session: gr.Request) -> Iterator[dict[Any, Any]]:
        if requests is None:  # check has told the person why
            yield {c["requests"]: None}
            return
        results: list[GenerateResult] = []
        try:
            for request in requests:
                # The first request may draw the seed; the others take it from there.
                seed = results[0].seed if results else request.seed
                for news in follow(studio, request.model_copy(update={"seed": seed}), stops.of(session.session_hash)):
                    if isinstance(news, Progress):
                        yield {c["status"]: readout.progress(news)}
                    else:
                        results.append(keep(news))
            yield show(results)
        except Stopped:
            yield {c["status"]: readout.note("Stopped. Your settings are as you left them.")}
        except StudioError as error:
            yield {c["status"]: readout.alert(str(error))}
        except Exception as error:  # the edge of the program: the log gets the traceback, the person a plain line
            logger.exception("a comparison failed")
            what = f"Something broke while painting ({type(error).__name__}: {error})."
            yield {c["status"]: readout.alert(f"{what} Your settings are kept; please try again.")}

    def keep(result: GenerateResult) -> GenerateResult:
        try:
            return save(result)
        except StudioError as error:  # a full disk, say: the pictures are there all the same, so show them
            return result.model_copy(update={"notes": (*result.notes, f"not saved: {error}")})

    def show(results: list[GenerateResult]) -> dict[Any, Any]:
        made: list[tuple[GenerateResult, ImageResult]] = [(r, image) for r in results for image in r.images]
        seen: dict[Any, Any] = {}
        for i in range(MAX_COMPARED):
            if i < len(made):
                result, image = made[i]
                title = METHODS.get(image.variant, image.variant)
                if len(results) > 1:
                    title = f"{title} · {result.request.model}"
                seen[c[f"cell_{i}"]] = gr.update(visible=True)
                seen[c[f"image_{i}"]] = gr.update(value=image.path or image.image, label=title)
                seen[c[f"figures_{i}"]] = readout.figures(image.stats)
            else:
                seen[c[f"cell_{i}"]] = gr.update(visible=False)
                seen[c[f"image_{i}"]] = None
                seen[c[f"figures_{i}"]] = ""
        notes = dict.fromkeys(note for result in results for note in result.notes)
        return {
            **seen,
            c["summary"]: readout.summary(results[0], ""),
            c["status"]: readout.note(*notes),
            c["seed"]: results[0].seed,
        }

    def rest() -> dict[Any, Any]:
        return {c["compare"]: gr.update(interactive=True), c["stop"]: gr.update(interactive=False)}

    def stop(session: gr.Request) -> dict[Any, Any]:
        stops.of(session.session_hash).set()
        return {c["stop"]: gr.update(interactive=False)}

    buttons = [c["compare"], c["stop"]]
    checked = c["compare"].click(check, inputs, [c["requests"], c["status"], *buttons], **quick)
    ran = checked.then(
        run,
        c["requests"],
        [*cells, c["requests"], c["status"], c["summary"], c["seed"]],
        concurrency_id=DEVICE,
        concurrency_limit=1,
        show_progress="hidden",
        api_visibility="private",
    )
    ran.then(rest, None, buttons, **quick)
    c["stop"].click(stop, None, c["stop"], **quick)
    c["seed"].input(lambda: False, None, c["random_seed"], **quick)
