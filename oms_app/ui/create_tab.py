"""The main view: a prompt goes in, two pictures from one seed come out, with their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from oms_app.schedulers import SCHEDULERS
from oms_app.schema import GenerateResult, ImageResult, ImageStats
from oms_app.ui import examples as ready_made
from oms_app.ui import light, live, looks_panel, readout
from oms_app.ui.form import BETWEEN_TWO, ONE_PROMPT, PLAIN, to_request
from oms_app.ui.painting import QUICK, Save, wire
from oms_app.ui.work import EMBEDDED, Engine, available_models

Components = dict[str, Any]
Measure = Callable[[Image.Image], ImageStats]

# The fields whose values make a request, by the names of their components.
FIELDS = (
    "prompt", "negative_prompt", "oms_on", "oms_mode", "oms_prompt", "oms_prompt_left", "oms_prompt_right", "oms_mix",
    "oms_guidance_scale", "model", "width", "height", "scheduler", "guidance_scale", "num_inference_steps", "seed",
    "random_seed", "oms_plain", "loras", "lora_scale",
)  # fmt: skip
# Those of them that follow the model.
MODEL_FIELDS = ("width", "height", "num_inference_steps", "scheduler", "guidance_scale")
# The panels, by the names of their components: the variant, the title, what a screen reader says.
PANELS = {
    "raw": ("raw", "Raw", "The picture as the model paints it by itself"),
    "oms": ("oms", "With OMS", "The picture with one more step"),
    "plain": (PLAIN, "OMS, no CFG", "The picture with one more step at strength 1"),
}
# Where the progress will be shown, until there is any.
KEYS = '<p class="oms-keys"><kbd>Ctrl</kbd> + <kbd>Enter</kbd> generates, <kbd>Esc</kbd> stops.</p>'


def build(
    models: Sequence[Any], loras: Sequence[Any], examples: list[ready_made.Example], shelf: looks_panel.Shelf
) -> Components:
    """Lays out the view inside the current Blocks. Returns every component by name. models, loras: those here."""
    c: Components = {}
    with gr.Row(elem_id="layout", equal_height=False):
        with gr.Column(elem_id="ask", min_width=0):
            _prompt_and_buttons(c)
            looks_panel.build(c, shelf)
        with gr.Column(elem_id="show", min_width=0):
            _pictures(c, examples)
        with gr.Column(elem_id="tune", min_width=0):
            _one_more_step(c)
            _seed(c)
            _base(c, models, loras)
    c["requests"] = gr.State()
    c["last_seed"] = gr.State()
    return c


def _prompt_and_buttons(c: Components) -> None:
    c["prompt"] = gr.Textbox(
        label="Prompt",
        info="What should the picture show?",
        placeholder="mountains on a moonless night",
        lines=2,
        max_lines=6,
        elem_id="prompt",
    )
    with gr.Row(elem_id="buttons"):
        c["generate"] = gr.Button("Generate", variant="primary", elem_id="generate", scale=3, min_width=120)
        c["stop"] = gr.Button("Stop", elem_id="stop", interactive=False, scale=1, min_width=80)
    with gr.Column(elem_id="status-place", min_width=0):
        c["status"] = gr.HTML(KEYS, elem_id="status")
        c["waiting"] = gr.HTML("", elem_id="waiting")


def _one_more_step(c: Components) -> None:
    with gr.Group(elem_id="oms"):
        c["oms_on"] = gr.Checkbox(
            value=True,
            label="One More Step (OMS)",
            info="Adds a second picture whose light and colour follow your words. Off: only the raw picture.",
            elem_id="oms-on",
        )
        with gr.Column(elem_id="oms-settings") as c["oms_settings"]:
            c["light"] = gr.HTML(light.hint(), elem_id="light")
            _light_and_colour(c)


def _light_and_colour(c: Components) -> None:
    c["oms_mode"] = gr.Radio(
        [ONE_PROMPT, BETWEEN_TWO], value=ONE_PROMPT, label="Light and colour come from", elem_id="oms-mode"
    )
    c["oms_prompt"] = gr.Textbox(
        label="OMS prompt",
        info="Words for light and colour alone, such as “pitch black” or “golden”.",
        placeholder="empty = the main prompt",
        elem_id="oms-prompt",
    )
    with gr.Column(visible=False, elem_id="oms-slide") as c["oms_slide"]:
        with gr.Row(elem_id="oms-ends"):
            c["oms_prompt_left"] = gr.Textbox("dark", label="Left end", elem_id="oms-left", min_width=90)
            c["oms_prompt_right"] = gr.Textbox("light", label="Right end", elem_id="oms-right", min_width=90)
        c["oms_mix"] = gr.Slider(
            0,
            1,
            value=0.0,
            step=0.05,
            label="OMS prompt slider",
            info="0 is the left end, 1 the right end, between them a mix. An empty end = the main prompt.",
            elem_id="oms-mix",
        )
    c["oms_guidance_scale"] = gr.Slider(
        0,
        4,
        value=1.0,
        step=0.1,
        label="OMS strength (CFG)",
        info="1 is natural, higher is bolder, 0 ignores the words.",
        elem_id="oms-cfg",
    )
    c["oms_plain"] = gr.Checkbox(
        False,
        label="Show OMS without CFG too",
        info="A third picture at OMS strength 1. Where the strength is 1 anyway, it is the same one.",
        elem_id="oms-plain",
    )


def _seed(c: Components) -> None:
    with gr.Row(elem_id="seed-row"):
        c["seed"] = gr.Number(
            0,
            label="Seed",
            info="The same seed gives the same picture.",
            elem_id="seed",
            scale=3,
            min_width=150,
        )
        with gr.Column(min_width=130, scale=2, elem_id="seed-side"):
            c["random_seed"] = gr.Checkbox(value=True, label="Random", elem_id="random-seed", container=False)
            c["reuse"] = gr.Button("Reuse last seed", size="sm", elem_id="reuse", interactive=False)


def _base(c: Components, models: Sequence[Any], loras: Sequence[Any]) -> None:
    first = models[0] if models else None
    defaults = {name: getattr(first.defaults, name) if first else None for name in MODEL_FIELDS}
    with gr.Accordion("Picture settings", open=False, elem_id="settings"):
        c["negative_prompt"] = gr.Textbox(
            label="Negative prompt", info="What should not be in the picture.", placeholder="may stay empty"
        )
        c["model"] = gr.Dropdown(
            [(info.title, info.id) for info in models],
            value=first.id if first else None,
            label="Model",
            info="Who paints. Changing it sets the fields below to what suits it.",
            filterable=False,
            elem_id="model",
        )
        with gr.Column(visible=bool(loras), elem_id="lora-settings") as c["lora_settings"]:
            c["loras"] = gr.Dropdown(
                [(info.title, info.id) for info in loras],
                value=[],
                multiselect=True,
                label="LoRAs",
                info="Small additions to the model: a style, a subject, speed. Each is made for one family of models.",
                elem_id="loras",
            )
            c["lora_scale"] = gr.Slider(
                -2,
                2,
                value=1.0,
                step=0.05,
                label="LoRA strength",
                info="1 is as made, 0 is off; below 0, the opposite.",
            )
        with gr.Row():
            c["width"] = gr.Number(defaults["width"], label="Width", info="In pixels.", step=8, min_width=90)
            c["height"] = gr.Number(defaults["height"], label="Height", info="In pixels.", step=8, min_width=90)
        with gr.Row():
            c["num_inference_steps"] = gr.Number(
                defaults["num_inference_steps"],
                label="Steps",
                info="More is finer, slower.",
                elem_id="steps",
                min_width=90,
            )
            c["scheduler"] = gr.Dropdown(
                list(SCHEDULERS),
                value=defaults["scheduler"],
                label="Scheduler",
                info="How noise is removed.",
                filterable=False,
                min_width=90,
            )
        c["guidance_scale"] = gr.Slider(
            0,
            30,
            value=defaults["guidance_scale"],
            step=0.5,
            label="Prompt strength (CFG)",
            info="How closely the whole picture keeps to the prompt; 5 to 8 is usual.",
            elem_id="cfg",
        )


def _pictures(c: Components, examples: list[ready_made.Example]) -> None:
    c["summary"] = gr.HTML(readout.welcome(), elem_id="summary")
    with gr.Tabs(elem_id="views"):
        with gr.Tab("Side by side", id="panels"), gr.Row(elem_id="panels"):
            for name, (_, title, alt) in PANELS.items():
                with gr.Column(min_width=0, visible=name != "plain", elem_classes="oms-panel") as c[f"{name}_panel"]:
                    c[f"{name}_image"] = gr.Image(
                        label=title,
                        format="png",
                        type="pil",
                        interactive=False,
                        buttons=["download", "fullscreen"],
                        elem_id=f"{name}-image",
                        alt_text=alt,
                    )
                    c[f"{name}_live"] = live.build(name)
                    c[f"{name}_figures"] = gr.HTML(readout.figures(None), elem_id=f"{name}-figures")
        with gr.Tab("Slide over both", id="slider", render_children=True):
            c["slider"] = gr.ImageSlider(
                label="Raw at the left, with OMS at the right",
                format="png",
                type="pil",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="slider",
                max_height=640,
            )
    gr.HTML(readout.LEGEND)
    if examples:
        gr.HTML('<h2 class="oms-heading">Examples, ready at once</h2>')
        c["examples"] = gr.HTML(ready_made.cards(examples), js_on_load=ready_made.CLICK_JS, elem_id="examples")


def connect(
    c: Components,
    studio: Engine,
    examples: list[ready_made.Example],
    measure: Measure,
    save: Save,
) -> Callable[[list[GenerateResult]], dict[Any, Any]]:
    """Wires the components to the studio. Every event here is private: the public endpoint is in demo.py.

    Returns what shows a result in the view, for other tabs that open a picture here: updates of `shown_in(c)`.
    """

    def show(results: list[GenerateResult]) -> dict[Any, Any]:
        result = results[0]
        first = {image.variant: image for image in result.images if image.index == 0}
        raw, oms = first.get("raw"), first.get("oms")
        plain = first.get(PLAIN, oms)  # at strength 1 they are one picture
        raw_stats, oms_stats = raw.stats if raw else None, oms.stats if oms else None
        return {
            **pictures(_file(raw), raw_stats, _file(oms), oms_stats),
            c["plain_image"]: _file(plain),
            c["plain_figures"]: readout.figures(plain.stats if plain else None),
            c["summary"]: readout.summary(result, readout.change(raw_stats, oms_stats)),
            c["status"]: readout.note(*result.notes),
            c["last_seed"]: result.seed,
            c["seed"]: result.seed,
            c["reuse"]: gr.update(interactive=True),
        }

    def pictures(raw: Any, raw_stats: ImageStats | None, oms: Any, oms_stats: ImageStats | None) -> dict[Any, Any]:
        return {
            c["raw_image"]: raw,
            c["oms_image"]: oms,
            c["plain_image"]: None,
            c["slider"]: (raw, oms) if raw is not None and oms is not None else None,
            c["raw_figures"]: readout.figures(raw_stats),
            c["oms_figures"]: readout.figures(oms_stats),
            c["plain_figures"]: readout.figures(None),
        }

    def choose_model(model: str) -> dict[Any, Any]:
        defaults = next(info.defaults for info in studio.models() if info.id == model)
        return {c[name]: getattr(defaults, name) for name in MODEL_FIELDS}

    def use_example(event: gr.EventData) -> dict[Any, Any]:
        example = examples[int(event._data["index"])]
        with Image.open(example.raw) as raw_file, Image.open(example.oms) as oms_file:
            raw, oms = raw_file.convert("RGB"), oms_file.convert("RGB")
        raw_stats, oms_stats = measure(raw), measure(oms)
        change = readout.change(raw_stats, oms_stats)
        return {
            **pictures(raw, raw_stats, oms, oms_stats),
            c["summary"]: readout.headline(example.prompt, change, [f"seed <b>{example.seed}</b>", "ready-made"]),
            c["status"]: "",
            # The pairs were made by the embedded model at its own settings.
            **(
                {c["model"]: EMBEDDED, **choose_model(EMBEDDED)}
                if EMBEDDED in {info.id for info in available_models(studio, "base")}
                else {}
            ),
            c["loras"]: [],
            c["negative_prompt"]: "",
            c["prompt"]: example.prompt,
            c["oms_on"]: True,
            c["oms_plain"]: False,
            c["oms_mode"]: ONE_PROMPT,
            c["oms_prompt"]: example.oms_prompt or "",
            c["oms_guidance_scale"]: example.oms_guidance_scale,
            c["seed"]: example.seed,
            c["random_seed"]: False,
        }

    shown = [*_panels(c), c["summary"]]
    panes = {variant: c[f"{name}_live"] for name, (variant, _, _) in PANELS.items()}
    wire(
        studio,
        save,
        start=c["generate"],
        stop=c["stop"],
        status=c["status"],
        requests=c["requests"],
        fields={name: c[name] for name in FIELDS},
        outputs=[*shown, *_seeds(c)],
        ask=lambda values: [to_request(values)],
        show=show,
        look=lambda news: live.look(panes, news),
        seen=list(panes.values()),
        waiting=c["waiting"],
    )
    light.connect(c, studio)
    c["oms_mode"].change(
        lambda mode: (gr.update(visible=mode == ONE_PROMPT), gr.update(visible=mode == BETWEEN_TWO)),
        c["oms_mode"],
        [c["oms_prompt"], c["oms_slide"]],
        **QUICK,
    )
    c["oms_on"].change(lambda on: gr.update(visible=on), c["oms_on"], c["oms_settings"], **QUICK)
    gr.on(
        [c["oms_on"].change, c["oms_plain"].change],
        lambda on, plain: gr.update(visible=on and plain),
        [c["oms_on"], c["oms_plain"]],
        c["plain_panel"],
        **QUICK,
    )
    # A seed that was typed is meant: it would be a surprise if Random threw it away.
    c["seed"].input(None, None, c["random_seed"], js="() => false", **QUICK)
    c["reuse"].click(lambda seed: (seed, False), c["last_seed"], [c["seed"], c["random_seed"]], **QUICK)
    c["model"].input(choose_model, c["model"], [c[name] for name in MODEL_FIELDS], **QUICK)
    if examples:
        c["examples"].click(use_example, None, [*shown, c["status"], *(c[name] for name in FIELDS)], **QUICK)
    return show


def shown_in(c: Components) -> list[Any]:
    """The components that a result fills, fields apart."""
    return [*_panels(c), c["summary"], c["status"], *_seeds(c)]


def _panels(c: Components) -> list[Any]:
    return [*(c[f"{name}_{part}"] for name in PANELS for part in ("image", "figures")), c["slider"]]


def _seeds(c: Components) -> list[Any]:
    return [c["last_seed"], c["seed"], c["reuse"]]


def lists(c: Components, studio: Engine, chosen: Mapping[Any, Any]) -> dict[Any, Any]:
    """The lists of models and LoRAs as they are now. chosen: what is chosen in them; what has gone is so no more."""
    models, loras = available_models(studio, "base"), available_models(studio, "lora")
    ids, lora_ids = [info.id for info in models], [info.id for info in loras]
    model = chosen[c["model"]] if chosen[c["model"]] in ids else next(iter(ids), None)
    return {
        c["model"]: gr.update(choices=[(info.title, info.id) for info in models], value=model),
        c["loras"]: gr.update(
            choices=[(info.title, info.id) for info in loras],
            value=[one for one in chosen[c["loras"]] or () if one in lora_ids],
        ),
        c["lora_settings"]: gr.update(visible=bool(loras)),
    }


def _file(image: ImageResult | None) -> Path | Image.Image | None:
    """The saved file, which carries its settings; else the picture itself, which Gradio saves as PNG."""
    return (image.path or image.image) if image else None
