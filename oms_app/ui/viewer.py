"""The pictures of Create one over the other: a divider or their difference, zoom and pan (viewer.js, viewer.css)."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

JS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
KEYS = "+ and − zoom, 0 fits, 1 shows pixel by pixel, Shift and the arrow keys move"
HTML = f"""
<div class="oms-viewer">
<div class="oms-view-bar" role="toolbar" aria-label="View">
<button type="button" data-do="difference" aria-pressed="false" disabled
 title="How far the two pictures differ in each colour: black where they are the same">Difference</button>
<span></span>
<button type="button" data-do="fit" title="The whole picture, at most twice its size (key 0)">Fit</button>
<button type="button" data-do="one" title="Pixel by pixel (key 1)">1:1</button>
<button type="button" data-do="out" aria-label="Zoom out" title="Zoom out (key −)">−</button>
<output aria-label="Zoom">100 %</output>
<button type="button" data-do="in" aria-label="Zoom in" title="Zoom in (key +)">+</button>
<button type="button" data-do="full" aria-label="Full screen" title="Full screen">
<svg viewBox="0 0 16 16"><path d="M1 5V1h4M11 1h4v4M15 11v4h-4M5 15H1v-4"/></svg></button>
</div>
<div class="oms-view-frame"
 title="Drag the divider. Ctrl and the wheel, two fingers or a double click zoom; then drag.">
<div class="oms-view-raw" hidden><img alt="" draggable="false"></div>
<div class="oms-view-oms" hidden><img alt="" draggable="false"></div>
<span class="oms-view-name oms-of-raw" aria-hidden="true">Raw</span>
<span class="oms-view-name oms-of-oms" aria-hidden="true">With OMS</span>
<span class="oms-view-name oms-view-updating" aria-hidden="true">updating</span>
<input type="range" min="0" max="100" value="50" aria-label="Divider: raw at its left, with OMS at its right. {KEYS}">
<div class="oms-view-line" aria-hidden="true"></div>
</div>
</div>
"""


def build() -> gr.HTML:
    """Creates the viewer inside the row with the panels, whose pictures it shows."""
    return gr.HTML(HTML, js_on_load=JS, elem_id="viewer")
