"""The page as a whole: `create_demo` builds it around a studio; `launch_settings` says how to serve it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio import utils
from gradio.data_classes import FileData
from gradio.processing_utils import save_pil_to_cache
from pydantic import ValidationError

from oms_app.requests import CORRECTIONS, GenerateRequest, ImageResult, StudioError, Variant
from oms_app.ui import compare_tab, create_tab, light, remember
from oms_app.ui import examples as ready_made
from oms_app.ui.form import explain
from oms_app.ui.painting import DEVICE, Save
from oms_app.ui.work import Engine

HERE = Path(__file__).parent
MAX_WAITING = 16  # requests in the queue; the next is told to come back
DAY = 24 * 60 * 60  # seconds
HEADER = """
<header class="oms-header"><h1>OMS Studio</h1>
<p>Image models shy away from true darkness and bright light. One More Step, taken before the first, gives them both:
one prompt, one seed, two pictures to compare.</p></header>
"""


def create_demo(
    studio: Engine,
    *,
    measure: create_tab.Measure,
    save: Save = lambda result: result,
    examples: Path | None = None,
) -> gr.Blocks:
    """The page. Nothing is loaded and no model runs while it is built.

    measure: the figures of a ready-made picture. save: keeps the pictures of a result and returns it with their paths;
    the page then offers these files. examples: a folder of ready-made pairs (see `examples.load`); it may be absent.
    """
    here = [info for info in studio.models() if info.available]
    bases = [info for info in here if info.kind == "base"]
    models = sorted(bases, key=lambda info: info.id != create_tab.EMBEDDED)  # the embedded one first, and chosen
    pairs = ready_made.load(examples) if examples else []
    with gr.Blocks(title="OMS Studio", analytics_enabled=False, delete_cache=(DAY, DAY), fill_width=True) as demo:
        gr.HTML(HEADER)
        with gr.Tabs(elem_id="rooms"):
            with gr.Tab("Create", id="create"):
                components = create_tab.build(models, pairs)
                create_tab.connect(components, studio, models, pairs, measure, save)
                remember.connect(demo, components, models)
            with gr.Tab("Compare", id="compare"):
                kinds = {info.kind for info in here}
                ready = [name for name in CORRECTIONS if name not in ("singdiffusion", "signal_leak") or name in kinds]
                modules = [info for info in here if info.kind == "oms"]
                compare_tab.connect(compare_tab.build(models, modules, ready), studio, save)
        _endpoint(studio, {info.id for info in models}, save)
        light.endpoint(studio, {info.id for info in models}, _file)
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return demo


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


def _endpoint(studio: Engine, known: set[str], save: Save) -> None:
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
