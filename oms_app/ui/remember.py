"""The settings of the Create tab survive a reload: the visitor's own browser keeps them, and no server does.

What comes back is checked like anything else that comes from outside; what does not pass keeps its default.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import gradio as gr

from oms_app.fields import MAX_PROMPT_CHARACTERS, MAX_SEED
from oms_app.schedulers import SCHEDULERS
from oms_app.ui.create_tab import lists
from oms_app.ui.form import BETWEEN_TWO, ONE_PROMPT
from oms_app.ui.painting import QUICK
from oms_app.ui.work import Engine, available_models

TEXTS = ("prompt", "negative_prompt", "oms_prompt", "oms_prompt_left", "oms_prompt_right")
SWITCHES = ("oms_on", "oms_plain", "random_seed")
NUMBERS: dict[str, tuple[float, float]] = {
    "oms_mix": (0, 1), "oms_guidance_scale": (0, 4), "guidance_scale": (0, 30), "num_inference_steps": (1, 200),
    "width": (64, 2048), "height": (64, 2048), "seed": (0, MAX_SEED), "lora_scale": (-2, 2),
}  # fmt: skip
# Without the model they mean nothing:
OF_MODEL = ("width", "height", "num_inference_steps", "scheduler", "guidance_scale", "loras")
KEPT = (*TEXTS, *SWITCHES, *NUMBERS, "oms_mode", "model", "scheduler", "loras")
# Not a secret: localStorage belongs to this page's own origin. Gradio draws another at each start if none is given.
STORAGE = {"storage_key": "oms-studio-create", "secret": "oms-studio"}


def valid(saved: Any, models: Sequence[str], loras: Sequence[str] = ()) -> dict[str, Any]:
    """Those of the saved values that may stand in the fields, by name. models, loras: ids of those that are here."""
    if not isinstance(saved, dict):
        return {}
    choices = {"oms_mode": (ONE_PROMPT, BETWEEN_TWO), "model": models, "scheduler": SCHEDULERS}

    def passes(name: str, value: Any) -> bool:
        if name in TEXTS:
            return isinstance(value, str) and len(value) <= MAX_PROMPT_CHARACTERS
        if name in SWITCHES:
            return isinstance(value, bool)
        if name in NUMBERS:
            low, high = NUMBERS[name]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and math.isfinite(value) and low <= value <= high
        if name == "loras":
            return isinstance(value, list) and all(one in loras for one in value)
        return isinstance(value, str) and value in choices[name]

    good = {name: saved[name] for name in KEPT if name in saved and passes(name, saved[name])}
    if "model" not in good:
        good = {name: value for name, value in good.items() if name not in OF_MODEL}
    return good


def connect(demo: gr.Blocks, c: dict[str, Any], studio: Engine) -> None:
    """Writes every change of a field into the browser, and fills the fields when the page opens."""
    names = [name for name in KEPT if name in c]
    fields = [c[name] for name in names]
    store = gr.BrowserState({}, **STORAGE)

    def restore(saved: Any) -> dict[Any, Any]:
        """The fields, and with them the lists of models and LoRAs as they are now: both at once, or the later of the
        two would undo the other's choice."""
        good = valid(saved, *([info.id for info in available_models(studio, kind)] for kind in ("base", "lora")))
        chosen = {c[name]: good.pop(name, c[name].value) for name in ("model", "loras")}
        return {**lists(c, studio, chosen), **{c[name]: value for name, value in good.items()}}

    demo.load(restore, store, [*fields, c["lora_settings"]], **QUICK)
    gr.on(  # in the browser alone
        [field.change for field in fields],
        None,
        fields,
        store,
        js=f"(...values) => Object.fromEntries({json.dumps(names)}.map((name, i) => [name, values[i]]))",
        **QUICK,
    )
