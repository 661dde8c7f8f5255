"""The pictures of Create: raw and OMS side by side and one over the other, with their figures and a summary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from oms_app.prestep.corrections import DIAL
from oms_app.schema import GenerateResult, ImageResult, ImageStats, Progress, Reached
from oms_app.ui import live_previews, readout, viewer
from oms_app.ui.events import Component, Updates
from oms_app.ui.form import PLAIN

# The panels by name: the variants, of which a result has one, the title, what a screen reader says.
PANELS = {
    "raw": (("raw",), "Raw", "The raw picture, without correction"),
    "oms": (("oms", DIAL), "With OMS", "The picture with One More Step and the light that was set"),
    "plain": ((PLAIN,), "OMS, no CFG", "The picture with One More Step at OMS CFG 1"),
}


@dataclass(frozen=True)
class Picture:
    """file: the saved PNG, which carries its settings; else the picture, which Gradio saves as PNG."""

    file: Path | Image.Image
    stats: ImageStats
    reached: tuple[Reached, ...] = ()

    @classmethod
    def of(cls, image: ImageResult | None) -> Picture | None:
        return cls(image.path or image.image, image.stats, image.reached) if image else None


@dataclass(frozen=True)
class ShownResult:
    """What Create shows: the raw picture, the corrected one of the same seed, or both.

    plain: the picture at OMS CFG 1, which may be `oms` itself. details: such as "20 steps". notes: what the visitor
    should know.
    """

    prompt: str
    seed: int
    raw: Picture | None
    oms: Picture | None
    plain: Picture | None = None
    details: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of_result(cls, result: GenerateResult) -> ShownResult:
        """The first picture of each variant that Create asks for."""
        first = {image.variant: Picture.of(image) for image in result.images if image.index == 0}
        oms = first.get("oms") or first.get(DIAL)
        return cls(
            prompt=result.request.prompt,
            seed=result.seed,
            raw=first.get("raw"),
            oms=oms,
            plain=first.get(PLAIN, oms),
            details=readout.details(result),
            notes=result.notes,
        )


class ResultView:
    """summary: the line above the pictures; it changes with each new result. shown: prompt and seed of the pair.
    oms_file: path of the OMS picture on the server, which no caller can change; None if it is not saved.
    draft: what drafts.py lays over the OMS picture."""

    def build(self, first: ShownResult | None) -> None:
        """Creates the components inside the current column. first: what the page shows when it opens."""
        shows = _contents(first)
        self.summary = gr.HTML(shows["summary"], elem_id="summary")
        self._images: dict[str, gr.Image] = {}
        self.shown, self.oms_file = gr.State(shows["shown"]), gr.State(shows["oms file"])
        self._figures: dict[str, gr.HTML] = {}
        self._overlays: dict[str, gr.HTML] = {}
        with gr.Row(elem_id="pictures"):
            for name, (_, title, alt) in PANELS.items():
                with gr.Column(
                    min_width=0, visible=name != "plain", elem_classes="oms-panel", elem_id=f"{name}-panel"
                ) as panel:
                    self._images[name] = picture_panel(f"{name}-image", label=title, alt_text=alt, value=shows[name])
                    self._overlays[name] = live_previews.build(name)
                    if name == "oms":
                        self.draft = gr.HTML("", elem_id="draft")
                if name == "plain":
                    self.plain_panel = panel
            viewer.build()
        with gr.Row(elem_id="figures"):
            for name in PANELS:
                self._figures[name] = gr.HTML(shows[f"{name} figures"], elem_id=f"{name}-figures")

    @property
    def outputs(self) -> list[Component]:
        """The components that `show` updates."""
        return [*self._images.values(), *self._figures.values(), self.summary, self.shown, self.oms_file]

    @property
    def oms_image(self) -> gr.Image:
        return self._images["oms"]

    def show_figures(self, image: ImageResult) -> Updates:
        """The figures of an OMS picture that is shown before it is saved."""
        return {self.oms_figures: _figures("oms", Picture.of(image))}

    @property
    def oms_figures(self) -> gr.HTML:
        return self._figures["oms"]

    @property
    def overlays(self) -> list[Component]:
        """The components that `live` updates."""
        return list(self._overlays.values())

    def show(self, result: ShownResult) -> Updates:
        shows = _contents(result)
        return {
            **{self._images[name]: shows[name] for name in PANELS},
            **{self._figures[name]: shows[f"{name} figures"] for name in PANELS},
            self.summary: shows["summary"],
            self.shown: shows["shown"],
            self.oms_file: shows["oms file"],
        }

    def live(self, event: Progress | None) -> Updates:
        """The previews of an event over the panels; None removes them."""
        overlays = {variant: overlay for name, overlay in self._overlays.items() for variant in PANELS[name][0]}
        return live_previews.updates(overlays, event)


def _contents(result: ShownResult | None) -> dict[str, Any]:
    """The values of the components: "shown", "oms file", "summary", and for each panel its picture and its figures."""
    if result is None:
        empty = {name: None for name in PANELS} | {f"{name} figures": _figures(name, None) for name in PANELS}
        return {"summary": readout.welcome(), "shown": None, "oms file": None, **empty}
    pictures = {"raw": result.raw, "oms": result.oms, "plain": result.plain}
    raw, oms = result.raw, result.oms
    change = readout.change(raw.stats, oms.stats) if raw and oms else ""
    return {
        "shown": (result.prompt, result.seed),
        "oms file": oms.file if oms and isinstance(oms.file, Path) else None,
        "summary": readout.summary(result.prompt, result.seed, result.details, change),
        **{name: picture.file if picture else None for name, picture in pictures.items()},
        **{f"{name} figures": _figures(name, picture) for name, picture in pictures.items()},
    }


def _figures(name: str, picture: Picture | None) -> str:
    stats, reached = (picture.stats, picture.reached) if picture else (None, ())
    return f"<h2>{PANELS[name][1]}</h2>{readout.figures(stats, reached)}"


def picture_panel(elem_id: str, label: str | None = None, alt_text: str | None = None, value: Any = None) -> gr.Image:
    """A place for a finished picture, which is served as the PNG that it is."""
    return gr.Image(
        value,
        label=label,
        format="png",
        type="pil",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id=elem_id,
        alt_text=alt_text,
    )
