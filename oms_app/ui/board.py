"""A grid on the page while it is painted: what is finished, as an HTML table whose pictures can be clicked."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from urllib.parse import quote

from gradio import utils
from gradio.processing_utils import save_pil_to_cache

from oms_app.schema import GenerateRequest, GenerateResult, ImageResult, Variant
from oms_app.ui.grids import Grid, Part

SHOWN = 256  # pixels: the largest side of a picture in the table
KEPT = 512  # … of the copy that goes on the sheet, where the picture itself is on disk
WAITING = "not painted"


@dataclass(frozen=True)
class Painted:
    """A finished cell. address: where the browser finds it."""

    request: GenerateRequest
    image: ImageResult
    address: str

    @property
    def variant(self) -> Variant:
        return next(v for v in self.request.variants if v.name == self.image.variant)


@dataclass
class Board:
    """The cells of a grid by (row, column): painted, or what went wrong; those still to come are absent."""

    grid: Grid
    cells: dict[tuple[int, int], Painted | str] = field(default_factory=dict)

    @property
    def painted(self) -> int:
        return sum(isinstance(cell, Painted) for cell in self.cells.values())

    def put(self, row: int, part: Part, result: GenerateResult) -> None:
        for column, image in zip(part.columns, result.images, strict=True):
            self.cells[row, column] = Painted(result.request, _light(image), _address(image))

    def raw_of(self, row: int) -> ImageResult | None:
        """The raw picture from the same noise as the row's others, if the grid has it."""
        cell = self.cells.get((row, 0))
        return cell.image if isinstance(cell, Painted) and not cell.variant.is_corrected else None

    def for_sheet(self) -> list[list[tuple[GenerateRequest, ImageResult] | str]]:
        def shown(cell: Painted | str | None) -> tuple[GenerateRequest, ImageResult] | str:
            return (cell.request, cell.image) if isinstance(cell, Painted) else cell or WAITING

        columns = range(len(self.grid.column_labels))
        return [
            [shown(self.cells.get((row, column))) for column in columns] for row in range(len(self.grid.row_labels))
        ]


def table(board: Board | None) -> str:
    """The grid as HTML; cells still to come keep their place. Empty without a board."""
    if board is None:
        return ""
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in board.grid.column_labels)
    rows = []
    for row, label in enumerate(board.grid.row_labels):
        cells = "".join(_cell(board, row, column) for column in range(len(board.grid.column_labels)))
        rows.append(f'<tr><th scope="row"><span>{escape(label)}</span></th>{cells}</tr>')
    return (
        '<div class="oms-board" tabindex="0" role="region" aria-label="The grid" '
        f'style="--columns:{len(board.grid.column_labels)}">'
        f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


CLICK_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-row]');
  if (button) trigger('click', {row: Number(button.dataset.row), column: Number(button.dataset.column)});
});
"""


def _cell(board: Board, row: int, column: int) -> str:
    cell = board.cells.get((row, column))
    where = f"{board.grid.row_labels[row]}, {board.grid.column_labels[column]}"
    if cell is None:
        return '<td><div class="oms-cell oms-waiting" aria-hidden="true"></div></td>'
    if isinstance(cell, str):
        said = escape(cell[:1].upper() + cell[1:], quote=True)
        return f'<td><div class="oms-cell oms-failed" role="note" title="{said}" tabindex="0"><p>{said}</p></div></td>'
    lightness = f"L* {cell.image.stats.lightness:.0f}"
    label = escape(f"{where}, mean {lightness}: open in Create", quote=True)
    return (
        f'<td><button type="button" data-row="{row}" data-column="{column}" aria-label="{label}" title="{label}">'
        f'<img class="oms-cell" alt="" src="{cell.address}"><span class="oms-caption">{lightness}</span></button></td>'
    )


def _light(image: ImageResult) -> ImageResult:
    """What is kept in memory: a smaller copy where the picture itself is on disk."""
    if image.path is None or max(image.image.size) <= KEPT:
        return image
    small = image.image.copy()
    small.thumbnail((KEPT, KEPT))
    return image.model_copy(update={"image": small})


def _address(image: ImageResult) -> str:
    """Of a small copy in Gradio's cache, which it serves and clears away after a day."""
    small = image.image.copy()
    small.thumbnail((SHOWN, SHOWN))
    return "gradio_api/file=" + quote(save_pil_to_cache(small, cache_dir=utils.get_upload_folder(), format="png"))
