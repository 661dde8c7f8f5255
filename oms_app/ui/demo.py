"""The page as a whole: `create_demo` builds it around a service; `launch_settings` are for its `launch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from oms_app.engine.service import INTERVAL, KEPT, StudioService
from oms_app.ui import api, gradio_compat, input_errors, send
from oms_app.ui.compare_tab import CompareTab
from oms_app.ui.create_tab import CreateTab
from oms_app.ui.explore_tab import ExploreTab
from oms_app.ui.fair_queue import share_fairly
from oms_app.ui.gallery_tab import GalleryTab
from oms_app.ui.models_tab import ModelsTab
from oms_app.ui.tab import Page, Tab
from oms_app.ui.translation import translations

FOLDER = Path(__file__).parent
SCRIPTS = ("language.js", "keys.js", "drop.js", "undo.js", "picture_size.js", "ranges.js", "gradio_aria.js")
LOGIN_SCRIPTS = ("language.js", "login.js")
MAX_WAITING = 32  # requests in the queue; further ones are refused
# Seconds between two searches for old uploads and previews, and that they are kept: for the owner, for strangers.
OWNERS, STRANGERS = (60 * 60.0, 24 * 60 * 60.0), (INTERVAL, KEPT)
HEADER = """
<header class="oms-header"><h1>OMS Studio</h1>
<p>Diffusion models rarely reach true black or white. One More Step corrects the starting noise.</p></header>
"""


def make_tabs(service: StudioService, local: bool) -> Sequence[Tab]:
    """The tabs in their order. A new tab is one more entry."""
    create = CreateTab(service)
    return (
        create,
        GalleryTab(service, create),
        ExploreTab(service, create),
        CompareTab(service),
        ModelsTab(service, local),
    )


def create_demo(service: StudioService, *, local: bool = True) -> gr.Blocks:
    """The page. No model is loaded or run while it is built.

    local: visitors may name files of this machine and download models; on a Space they may not.
    """
    with gr.Blocks(title="OMS Studio", analytics_enabled=False, fill_width=True) as demo:
        header = gr.HTML(HEADER)
        api.add_endpoints(service)  # first: Gradio renames an endpoint whose name a handler has already
        tabs = make_tabs(service, local)
        page = Page(demo, tabs)
        send.connect(page, [tab for tab in tabs if isinstance(tab, send.SendingTab)])
    gradio_compat.limit_progress_outputs(demo, header)
    input_errors.phrase_errors(demo, strangers=not local)
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)
    gradio_compat.keep_no_statistics(demo._queue)
    gradio_compat.rest_between_events(demo._queue)
    share_fairly(demo)
    return demo


def own_scripts(names: Sequence[str] = SCRIPTS) -> str:
    """The page's scripts, which Gradio's page adds to its head; with LOGIN_SCRIPTS, those of the form to log in."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


def launch_settings() -> dict[str, Any]:
    """Arguments of `launch` for look and behaviour; host, port and password are the caller's."""
    return {
        "theme": theme(),
        "css_paths": [FOLDER / "style.css", FOLDER / "viewer.css"],
        "head": f'<meta name="color-scheme" content="light dark"><script>{own_scripts()}</script>',
        "footer_links": ["api", "settings"],
        "run_history": False,  # prompts are the visitor's: the browser keeps no list of them
        "ssr_mode": False,
        "show_error": True,
        "i18n": gr.I18n(en=gradio_compat.ENGLISH, **{one.code: dict(one.gradio) for one in translations().values()}),
        "quiet": True,
        # Else Gradio, once the server has answered it, asks for the whole page too and gives up after 3 seconds, which
        # on a busy machine are too few.
        "_frontend": False,
    }


def theme() -> gr.themes.Base:
    """Neutral greys, so that no colour of the page changes how a picture looks, and amber for controls."""
    system = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif")
    mono = ("ui-monospace", "Consolas", "Liberation Mono", "monospace")
    both_themes = {
        "button_primary_background_fill": "*primary_400",
        "button_primary_background_fill_hover": "*primary_300",
        "button_primary_text_color": "*neutral_950",
        "checkbox_background_color_selected": "*primary_600",
        "checkbox_border_color_selected": "*primary_600",
        "slider_color": "*primary_500",
    }
    return gr.themes.Base(
        primary_hue="amber", secondary_hue="amber", neutral_hue="neutral", radius_size="md", font=system, font_mono=mono
    ).set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        **both_themes,
        **{f"{name}_dark": value for name, value in both_themes.items()},
    )
