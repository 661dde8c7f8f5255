"""Every remedy for the flaw side by side: one prompt, one seed, up to six pictures in a row, with their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from oms_app.schema import (
    GenerateResult,
    ImageResult,
)
from oms_app.ui import readout
from oms_app.ui.form import MAX_COMPARED, METHODS, to_comparison
from oms_app.ui.painting import QUICK, Save, wire
from oms_app.ui.work import Engine, available_models

FIELDS = (
    "prompt", "methods", "models", "oms_prompt", "oms_guidance_scale", "offset_strength", "oms_module", "force", "seed",
    "random_seed",
)  # fmt: skip
Components = dict[str, Any]
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
                _modules(modules),
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


def lists(c: Components, studio: Engine, chosen: Mapping[Any, Any]) -> dict[Any, Any]:
    """The lists of models and modules as they are now. chosen: as for `create_tab.lists`."""
    models, modules = available_models(studio, "base"), available_models(studio, "oms")
    ids = [info.id for info in models]
    module = chosen[c["oms_module"]]
    return {
        c["models"]: gr.update(
            choices=[(info.title, info.id) for info in models],
            value=[one for one in chosen[c["models"]] if one in ids],
        ),
        c["oms_module"]: gr.update(
            choices=_modules(modules), value=module if module in [info.id for info in modules] else AUTOMATIC
        ),
    }


def _modules(infos: Sequence[Any]) -> list[tuple[str, str]]:
    return [("the model's own", AUTOMATIC), *((info.title, info.id) for info in infos)]


def connect(c: Components, studio: Engine, save: Save) -> None:
    """Wires the components to the studio; every event is private."""
    cells = [c[f"{part}_{i}"] for i in range(MAX_COMPARED) for part in ("cell", "image", "figures")]

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

    wire(
        studio,
        save,
        start=c["compare"],
        stop=c["stop"],
        status=c["status"],
        requests=c["requests"],
        fields={name: c[name] for name in FIELDS},
        outputs=[*cells, c["summary"], c["seed"]],
        ask=to_comparison,
        show=show,
    )
    c["seed"].input(None, None, c["random_seed"], js="() => false", **QUICK)
