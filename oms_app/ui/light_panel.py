"""The Light panel of Create: OMS prompt and OMS CFG, brightness, tint, warmth, and where the light is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from oms_app.engine.service import StudioService
from oms_app.fields import VARIANT_FIELDS
from oms_app.light import SIDES
from oms_app.prestep.corrections import CORRECTIONS, DIAL
from oms_app.schema import Variant
from oms_app.ui import controls, markup, oms_preview
from oms_app.ui.events import QUICK, Component
from oms_app.ui.field_set import FieldSet
from oms_app.ui.form import BETWEEN_TWO, CREATE_FIELDS, OMS_MODES, ONE_PROMPT, CreateValues
from oms_app.ui.light_picture import LightPicture
from oms_app.ui.light_values import OFF, PAD, TINT

_INLINE: Mapping[str, Any] = {"info": None, "min_width": 120, "scale": 3, "buttons": []}
DIM = 20.0  # percent: the first brightness of its slider, which is off


class LightPanel:
    """preview: the OMS preview, which `oms_preview.connect` keeps up to date. switches: the row of its first line."""

    def __init__(self, service: StudioService) -> None:
        self._service = service
        self._pictures = LightPicture()

    # Layout

    def build(self, found: dict[str, Component], first: Variant) -> None:
        """Creates the components inside the current column, and adds them to `found` by their field of Create.

        first: whose OMS prompt, OMS CFG and mean brightness are set when the page opens.
        """
        with gr.Group(elem_id="oms"):
            with gr.Row(elem_id="oms-switches") as self.switches:
                found["oms_on"] = gr.Checkbox(
                    value=True, label="Light: One More Step (OMS)", elem_id="oms-on", container=False,
                )  # fmt: skip
            with gr.Column(elem_id="oms-settings") as self._settings:
                self._build_words(found, first)
                self._build_colours(found, first)
                with gr.Row(elem_id="light-where"):
                    self._build_pad(found)
                    self.preview = oms_preview.build()
                self._pictures.build(found)
                self._build_more(found)
                self._expected = gr.HTML("", elem_id="expected")
                with gr.Accordion("What these do", open=False, elem_id="light-help"):
                    shown = [field for field in CORRECTIONS[DIAL].options if field.name in VARIANT_FIELDS]
                    gr.HTML(markup.definitions((field.label, field.help) for field in shown))

    def _build_words(self, found: dict[str, Component], first: Variant) -> None:
        with gr.Row(elem_id="oms-words"):
            found["oms_prompt"] = controls.text(
                CREATE_FIELDS["oms_prompt"], value=first.prompt or "", info=None, elem_id="oms-prompt",
                placeholder="empty = the main prompt",
                min_width=90, max_lines=2,
            )  # fmt: skip
            found["oms_guidance_scale"] = controls.slider(
                CREATE_FIELDS["oms_guidance_scale"],
                value=first.guidance_scale,
                info=None,
                elem_id="oms-cfg",
                min_width=90,
            )

    def _build_colours(self, found: dict[str, Component], first: Variant) -> None:
        luminance, tint = VARIANT_FIELDS["luminance"], VARIANT_FIELDS["tint"]
        with gr.Row(elem_id="dial-luminance", elem_classes="oms-dial"):
            found["luminance_on"] = gr.Checkbox(
                first.luminance is not None,
                label=luminance.label,
                elem_id="luminance-on",
                container=False,
                min_width=90,
            )
            found["luminance"] = controls.slider(
                luminance, value=first.luminance or DIM, label=f"{luminance.label} in %", elem_id="luminance", **_INLINE
            )
        with gr.Row(elem_id="dial-tint", elem_classes="oms-dial"):
            found["tint_on"] = gr.Checkbox(False, label=tint.label, elem_id="tint-on", container=False, min_width=60)
            found["tint"] = gr.ColorPicker(
                TINT, label="Colour of the tint", show_label=False, container=False, elem_id="tint", min_width=40,
                scale=0,
            )  # fmt: skip
            found["tint_strength"] = controls.slider(
                VARIANT_FIELDS["tint_strength"], elem_id="tint-strength", **_INLINE
            )
        with gr.Row(elem_id="dial-warmth", elem_classes="oms-dial"):
            found["warmth"] = controls.slider(VARIANT_FIELDS["warmth"], elem_id="warmth", **_INLINE)
        with gr.Row(elem_id="dial-spread", elem_classes="oms-dial"):
            found["spread"] = controls.slider(VARIANT_FIELDS["spread"], elem_id="spread", **_INLINE)

    def _build_pad(self, found: dict[str, Component]) -> None:
        light, strength = VARIANT_FIELDS["light"], VARIANT_FIELDS["light_strength"]
        with gr.Column(min_width=0, elem_id="light-pad-column"):
            found["light"] = gr.Radio(
                [(name.capitalize(), name) for name in PAD], value=OFF, label=light.label, elem_id="light-pad"
            )
            with gr.Row(elem_classes="oms-dial"):
                found["light_strength"] = controls.slider(strength, elem_id="light-strength", **_INLINE)
            with gr.Row(elem_classes="oms-dial", visible=False) as self._turn:
                found["light_angle"] = controls.slider(VARIANT_FIELDS["light_angle"], elem_id="light-angle", **_INLINE)

    def _build_more(self, found: dict[str, Component]) -> None:
        with gr.Row(elem_id="oms-more"):
            found["exact"] = controls.checkbox(CREATE_FIELDS["exact"], elem_id="exact", min_width=90)
            found["oms_plain"] = gr.Checkbox(
                False, label="Show OMS without CFG too", elem_id="oms-plain", min_width=90,
                info="A third picture at OMS CFG 1. If OMS CFG is 1, it is the same picture.",
            )  # fmt: skip
        found["oms_mode"] = gr.Radio(
            list(OMS_MODES), value=ONE_PROMPT, label="Light and colour come from", elem_id="oms-mode"
        )
        with gr.Row(visible=False, elem_id="oms-slide") as self._slide:
            for side, value in (("left", "dark"), ("right", "light")):
                found[f"oms_prompt_{side}"] = gr.Textbox(
                    value, label=f"{side.capitalize()} end", elem_id=f"oms-{side}", min_width=90, max_lines=2
                )
            found["oms_mix"] = controls.slider(CREATE_FIELDS["oms_mix"], elem_id="oms-mix", info=None, min_width=180)

    # Events

    def connect(self, demo: gr.Blocks, fields: FieldSet[CreateValues], also: Component) -> None:
        """also: as of `oms_preview.connect`."""
        oms_preview.connect(self.preview, fields, self._service, also=also)
        self._pictures.connect(demo, fields)
        for switch, names in (("luminance_on", ("luminance",)), ("tint_on", ("tint", "tint_strength"))):
            for name in names:  # a dial that is moved is on: in the browser, since Generate may follow at once
                fields[name].input(None, None, fields[switch], js="() => true", **QUICK)
        fields["oms_mode"].change(
            lambda mode: (gr.update(visible=mode == ONE_PROMPT), gr.update(visible=mode == BETWEEN_TWO)),
            fields["oms_mode"],
            [fields["oms_prompt"], self._slide],
            **QUICK,
        )
        fields["light"].change(lambda light: gr.update(visible=light in SIDES), fields["light"], self._turn, **QUICK)
        fields["oms_on"].change(lambda on: gr.update(visible=bool(on)), fields["oms_on"], self._settings, **QUICK)
        spread = fields["spread"]
        gr.on(
            [demo.load, fields["model"].change],
            self._expect,
            [fields["model"], spread],
            [self._expected, spread],
            **QUICK,
        )

    def _expect(self, model: Any, spread: Any) -> tuple[str, Any]:
        """How exactly the model obeys the dials, as measured; and its slider of spread, which no module may have."""
        if not model:
            return "", gr.skip()
        measured = self._service.calibration(str(model))
        expected = (
            f"Measured with {model}: {measured.expectation}."
            if measured
            else f"How exactly {model} obeys has not been measured: run oms calibrate {model}."
        )
        reason = "" if self._service.has_spread_head(str(model)) else f"No OMS module for {model} has a spread head."
        slider = gr.update(interactive=not reason or bool(spread), info=reason or None)  # what is set can be set to 0
        return markup.legend(expected), slider
