"""A grid on the page while it is generated: its cells, and an HTML table whose pictures can be clicked."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from urllib.parse import quote

from gradio import utils
from gradio.processing_utils import save_pil_to_cache

from oms_app.schema import GenerateRequest, GenerateResult, ImageResult, Variant
from oms_app.ui.grids import Grid, GridPart

SHOWN = 256  # pixels: the largest side of a picture in the table
KEPT = 512  # … of the copy that goes on the sheet, if the picture itself is on disk
MISSING = "not generated"


@dataclass(frozen=True)
class GridCell:
    """A finished cell. url: of its picture, for the browser."""

    request: GenerateRequest
    image: ImageResult
    url: str

    @property
    def variant(self) -> Variant:
        return next(v for v in self.request.variants if v.name == self.image.variant)


@dataclass
class GridResult:
    """The cells of a grid by (row, column): finished, or the reason why not; those to come are absent."""

    grid: Grid
    cells: dict[tuple[int, int], GridCell | str] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """How many pictures there are."""
        return sum(isinstance(cell, GridCell) for cell in self.cells.values())

    def add(self, row: int, part: GridPart, result: GenerateResult) -> None:
        for column, image in zip(part.columns, result.images, strict=True):
            self.cells[row, column] = GridCell(result.request, _reduced(image), _url(image))

    def raw_of(self, cell: GridCell) -> ImageResult | None:
        """The raw picture of the same request and noise, if the grid has it."""
        asked = cell.request.model_copy(update={"variants": ()})
        for other in self.cells.values():
            if isinstance(other, GridCell) and not other.variant.is_corrected:
                same = other.request.model_copy(update={"variants": ()}) == asked
                if same and other.image.seed == cell.image.seed:
                    return other.image
        return None

    def for_sheet(self) -> list[list[tuple[GenerateRequest, ImageResult] | str]]:
        """Row by row: what `StudioService.save_sheet` takes."""

        def entry(cell: GridCell | str | None) -> tuple[GenerateRequest, ImageResult] | str:
            return (cell.request, cell.image) if isinstance(cell, GridCell) else cell or MISSING

        columns = range(len(self.grid.column_labels))
        return [
            [entry(self.cells.get((row, column))) for column in columns] for row in range(len(self.grid.row_labels))
        ]


def table(result: GridResult) -> str:
    """The grid as HTML; cells to come are empty frames."""
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in result.grid.column_labels)
    rows = []
    for row, label in enumerate(result.grid.row_labels):
        cells = "".join(_cell(result, row, column) for column in range(len(result.grid.column_labels)))
        rows.append(f'<tr><th scope="row"><span>{escape(label)}</span></th>{cells}</tr>')
    return (
        '<div class="oms-grid" tabindex="0" role="region" aria-label="The grid" '
        f'style="--columns:{len(result.grid.column_labels)}">'
        f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(result: GridResult, row: int, column: int) -> str:
    cell = result.cells.get((row, column))
    labels = f"{result.grid.row_labels[row]}, {result.grid.column_labels[column]}"
    if cell is None:
        return '<td><div class="oms-cell oms-pending" aria-hidden="true"></div></td>'
    if isinstance(cell, str):
        reason = escape(cell[:1].upper() + cell[1:], quote=True)
        return (
            f'<td><div class="oms-cell oms-failed" role="note" title="{reason}" tabindex="0"><p>{reason}</p></div></td>'
        )
    lightness = f"{cell.image.stats.lightness:.0f}"
    brightness = [one.text.partition(", ")[2] for one in cell.image.reached if one.what == "brightness"]
    got = "".join(f", {one.text}" for one in cell.image.reached)
    label = escape(f"{labels}, mean L* {lightness}{got}: open in Create", quote=True)
    caption = brightness[0] if brightness else f"L* {lightness}"
    return (
        f'<td><button type="button" data-row="{row}" data-column="{column}" aria-label="{label}" title="{label}">'
        f'<img class="oms-cell" alt="" src="{cell.url}"><span class="oms-caption">{caption}</span></button></td>'
    )


def _reduced(image: ImageResult) -> ImageResult:
    """What is kept in memory: a smaller copy if the picture itself is on disk."""
    if image.path is None or max(image.image.size) <= KEPT:
        return image
    small = image.image.copy()
    small.thumbnail((KEPT, KEPT))
    return image.model_copy(update={"image": small})


def _url(image: ImageResult) -> str:
    """Of a small copy in Gradio's cache, which it serves and deletes after a day."""
    small = image.image.copy()
    small.thumbnail((SHOWN, SHOWN))
    return "gradio_api/file=" + quote(save_pil_to_cache(small, cache_dir=utils.get_upload_folder(), format="png"))
