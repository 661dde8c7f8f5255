"""Pictures side by side on one sheet, with labels where they have any."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GREY = (128, 128, 128)
INK = (40, 40, 40)
PAPER = (255, 255, 255)
TEXT = 13  # pixels


def tiled(pictures: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """A sheet of pictures of one size, row by row."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), GREY)
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def labelled(
    rows: Sequence[Sequence[Image.Image]], row_labels: Sequence[str], column_labels: Sequence[str], gap: int = 4
) -> Image.Image:
    """A grid of pictures of one size, with a label above each column and before each row.

    Raises ValueError where there are not as many labels as rows and columns.
    """
    if len(rows) != len(row_labels) or any(len(row) != len(column_labels) for row in rows):
        raise ValueError(f"{len(row_labels)} row labels and {len(column_labels)} column labels do not fit the pictures")
    font = ImageFont.load_default(TEXT)
    width, height = rows[0][0].size
    pad = 8
    left = pad + max(int(font.getlength(label)) for label in row_labels) + pad
    top = TEXT + 2 * pad
    sheet = Image.new("RGB", (left + len(column_labels) * (width + gap), top + len(rows) * (height + gap)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for x, label in enumerate(column_labels):
        pen.text((left + x * (width + gap) + width / 2, top / 2), label, INK, font, anchor="mm")
    for y, (label, pictures) in enumerate(zip(row_labels, rows, strict=True)):
        pen.text((pad, top + y * (height + gap) + height / 2), label, INK, font, anchor="lm")
        for x, picture in enumerate(pictures):
            sheet.paste(picture, (left + x * (width + gap), top + y * (height + gap)))
    return sheet
