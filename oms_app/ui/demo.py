"""The page as a whole: `create_demo` builds it around a studio; `launch_settings` says how to serve it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import gradio as gr
from gradio import utils
from gradio.data_classes import FileData
from gradio.processing_utils import save_pil_to_cache
from PIL import Image
from pydantic import ValidationError

from oms_app.errors import StudioError
from oms_app.prestep.corrections import CORRECTIONS
from oms_app.schema import GenerateRequest, GenerateResult, ImageResult, ImageStats, Variant
from oms_app.ui import compare_tab, create_tab, explore_tab, light, looks_panel, models_tab, remember, tour
from oms_app.ui import examples as ready_made
from oms_app.ui.form import explain
from oms_app.ui.looks_panel import Shelf
from oms_app.ui.painting import DEVICE, Save
from oms_app.ui.work import Engine, Library, available_models

HERE = Path(__file__).parent
MAX_WAITING = 32  # requests in the queue; the next is told to come back
DAY = 24 * 60 * 60  # seconds
HEADER = """
<header class="oms-header"><h1>OMS Studio</h1>
<p>Image models shy away from true darkness and bright light. One More Step, taken before the first, gives them both:
one prompt, one seed, two pictures to compare.</p></header>
"""


class House(Library, Protocol):
    """All that the page needs: `oms_app.engine.service.StudioService`, which says what each does and raises.

    examples: a folder of ready-made pairs (see `examples.load`); it may be absent.
    """

    @property
    def examples(self) -> Path: ...

    @property
    def looks(self) -> Shelf: ...

    def measure(self, image: Image.Image) -> ImageStats: ...

    def save(self, result: GenerateResult) -> GenerateResult: ...

    def estimate(self, requests: Sequence[GenerateRequest]) -> float | None: ...

    def save_sheet(self, cells: Any, row_labels: Sequence[str], column_labels: Sequence[str]) -> Path: ...


def create_demo(studio: House, *, local: bool = True) -> gr.Blocks:
    """The page. Nothing is loaded and no model runs while it is built.

    local: the visitor may name files of this machine and have models downloaded; on a Space nobody may.
    """
    models, modules, looks, save = (
        available_models(studio, "base"),
        available_models(studio, "oms"),
        studio.looks,
        studio.save,
    )
    pairs = ready_made.load(studio.examples)
    with gr.Blocks(title="OMS Studio", analytics_enabled=False, delete_cache=(DAY, DAY), fill_width=True) as demo:
        header = gr.HTML(HEADER)
        with gr.Tabs(elem_id="rooms") as rooms:
            with gr.Tab("Create", id="create"):
                components = create_tab.build(models, available_models(studio, "lora"), pairs, looks)
                show = create_tab.connect(components, studio, pairs, studio.measure, save)
                looks_panel.connect(components, looks, demo)
                remember.connect(demo, components, studio)
                if pairs:
                    tour.build()
            with gr.Tab("Explore", id="explore") as room:
                grid = explore_tab.build(models, [look for look, _ in looks.looks()])
                explore_tab.connect(grid, studio, save, looks, studio.estimate, studio.save_sheet, room)
                explore_tab.open_in_create(grid, components, rooms, show)
            with gr.Tab("Compare", id="compare"):
                rare = ("singdiffusion", "signal_leak")
                ready = [name for name in CORRECTIONS if name not in rare or available_models(studio, name)]
                compared = compare_tab.build(models, modules, ready)
                compare_tab.connect(compared, studio, save)
            with gr.Tab("Models", id="models") as room:
                shown = models_tab.build(studio, local)

        def lists(chosen: Mapping[Any, Any]) -> dict[Any, Any]:
            tabs = ((create_tab, components), (explore_tab, grid), (compare_tab, compared))
            return {part: list_ for tab, c in tabs for part, list_ in tab.lists(c, studio, chosen).items()}

        remembered = [components[name] for name in ("model", "loras", "lora_settings")]
        others = [grid["model"], grid["models"], compared["models"], compared["oms_module"]]
        models_tab.connect(shown, studio, room, lists, [*remembered, *others], remembered)
        _endpoint(studio, save)
        light.endpoint(studio, _file)
        _statistics(studio)
    limit_progress_outputs(demo, header)
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return demo


def limit_progress_outputs(demo: gr.Blocks, part: gr.HTML) -> None:
    """Events that show no progress tell theirs to one part alone, where Gradio would tell it to all their outputs.

    With each piece of news of any event the page goes through all parts that were ever told of progress, and copies
    their contents: more than forty, and half of what its scripts did while a picture was painted.
    """
    for event in demo.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = [part]


def launch_settings() -> dict[str, Any]:
    """What `launch` takes to look and behave as meant; host, port and password are the caller's to add."""
    keys = (HERE / "keys.js").read_text(encoding="utf-8")
    return {
        "theme": theme(),
        "css_paths": HERE / "style.css",
        "head": f'<meta name="color-scheme" content="light dark"><script>{keys}</script>',
        "footer_links": ["api", "settings"],
        "run_history": False,  # prompts are the user's own: the browser keeps no list of them
        "ssr_mode": False,
        "show_error": True,
        "quiet": True,
    }


def theme() -> gr.themes.Base:
    """Neutral greys, so that no colour of the page tints the eye, and amber for what can be touched."""
    system = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif")
    mono = ("ui-monospace", "Consolas", "Liberation Mono", "monospace")
    return gr.themes.Base(
        primary_hue="amber", secondary_hue="amber", neutral_hue="neutral", radius_size="md", font=system, font_mono=mono
    ).set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        button_primary_background_fill="*primary_400",
        button_primary_background_fill_hover="*primary_300",
        button_primary_background_fill_dark="*primary_400",
        button_primary_background_fill_hover_dark="*primary_300",
        button_primary_text_color="*neutral_950",
        button_primary_text_color_dark="*neutral_950",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_600",
        checkbox_border_color_selected="*primary_600",
        checkbox_border_color_selected_dark="*primary_600",
        slider_color="*primary_500",
        slider_color_dark="*primary_500",
    )


def _statistics(studio: Library) -> None:
    """The public endpoint /statistics."""

    def statistics() -> dict:
        """The store of loaded models: {"models": loaded now, "bytes_used", "budget": bytes, "hits", "misses": loads,
        "evictions": counts since the start}."""
        try:
            return studio.statistics()
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.api(statistics, api_name="statistics", queue=False)


def _endpoint(studio: Engine, save: Save) -> None:
    """The public endpoint /generate, for gradio_client and curl."""

    def generate(
        prompt: str,
        negative_prompt: str = "",
        oms: bool = True,
        oms_prompt: str | None = None,
        oms_prompt_b: str | None = None,
        oms_mix: float = 0.0,
        oms_guidance_scale: float = 1.0,
        model: str = "lumen",
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        scheduler: str | None = None,
        width: int | None = None,
        height: int | None = None,
        seed: int | None = None,
    ) -> dict:
        """Paints the raw picture and, with oms, the corrected one from the same seed.

        Answers {"seed", "images": [{"variant", "seed", "mean", "lightness", "image"}], "notes"}; images are PNG files.
        Left out or null: the model's own default; for oms_prompt the main prompt, for seed a random one.
        """
        known = {info.id for info in available_models(studio, "base")}
        if model not in known:
            # Only the catalogue: a caller from outside names no folders of this machine.
            raise gr.Error(f"unknown model {model!r}: choose one of {', '.join(sorted(known))}", print_exception=False)
        try:
            raw = Variant(name="raw")
            corrected = {
                "name": "oms",
                "correction": "oms",
                "prompt": oms_prompt,
                "prompt_b": oms_prompt_b,
                "mix": oms_mix,
                "guidance_scale": oms_guidance_scale,
            }
            request = GenerateRequest.model_validate(
                {
                    "prompt": prompt,
                    "negative_prompt": negative_prompt,
                    "variants": (raw, Variant.model_validate(corrected)) if oms else (raw,),
                    "model": model,
                    "guidance_scale": guidance_scale,
                    "num_inference_steps": num_inference_steps,
                    "scheduler": scheduler,
                    "width": width,
                    "height": height,
                    "seed": seed,
                }
            )
            result = save(studio.generate(request))
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except ValidationError as error:
            raise gr.Error(explain(error), print_exception=False) from error
        pictures = [
            {
                "variant": image.variant,
                "seed": image.seed,
                "mean": image.stats.mean,
                "lightness": image.stats.lightness,
                "image": _file(image),
            }
            for image in result.images
        ]
        return {"seed": result.seed, "images": pictures, "notes": list(result.notes)}

    gr.api(generate, api_name="generate", concurrency_id=DEVICE, concurrency_limit=1)


def _file(image: ImageResult) -> dict[str, Any]:
    path = image.path or save_pil_to_cache(image.image, cache_dir=utils.get_upload_folder(), format="png")
    return FileData(path=str(path), mime_type="image/png").model_dump()
