"""Pictures side by side on one sheet, with or without labels."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GREY = (128, 128, 128)
INK = (40, 40, 40)
PAPER = (255, 255, 255)
TEXT, LINE = 13, 17  # pixels: font size, line height


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
    """A grid of pictures of one size, with a label above each column and before each row. Long labels are wrapped.

    Raises ValueError if the numbers of labels, rows and columns differ.
    """
    if len(rows) != len(row_labels) or any(len(row) != len(column_labels) for row in rows):
        raise ValueError(f"{len(row_labels)} row labels and {len(column_labels)} column labels do not fit the pictures")
    font = ImageFont.load_default(TEXT)
    width, height = rows[0][0].size
    pad = 8
    left_labels = [wrapped(label, font, width, height) for label in row_labels]
    top_labels = [wrapped(label, font, width, 4 * LINE) for label in column_labels]
    left = pad + max(int(font.getlength(line)) for label in left_labels for line in label.split("\n")) + pad
    top = TEXT + LINE * max(label.count("\n") for label in top_labels) + 2 * pad
    sheet = Image.new("RGB", (left + len(column_labels) * (width + gap), top + len(rows) * (height + gap)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for x, label in enumerate(top_labels):
        pen.text((left + x * (width + gap) + width / 2, top / 2), label, INK, font, anchor="mm", align="center")
    for y, (label, pictures) in enumerate(zip(left_labels, rows, strict=True)):
        pen.text((pad, top + y * (height + gap) + height / 2), label, INK, font, anchor="lm")
        for x, picture in enumerate(pictures):
            sheet.paste(picture, (left + x * (width + gap), top + y * (height + gap)))
    return sheet


def notice(text: str, size: tuple[int, int]) -> Image.Image:
    """A pale tile with a text in place of a picture that could not be made. size: (width, height) in pixels."""
    tile = Image.new("RGB", size, (232, 232, 232))
    font = ImageFont.load_default(TEXT)
    words = wrapped(text, font, size[0] - 2 * TEXT, size[1] - 2 * TEXT)
    ImageDraw.Draw(tile).text((size[0] / 2, size[1] / 2), words, INK, font, anchor="mm", align="center")
    return tile


def framed(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The whole picture on a tile of that size: shrunk if it is larger, never enlarged."""
    small = picture.convert("RGB")
    small.thumbnail(size, Image.Resampling.LANCZOS)
    if small.size == size:
        return small
    tile = Image.new("RGB", size, PAPER)
    tile.paste(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 2))
    return tile


def wrapped(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int, height: int) -> str:
    """The text in lines of at most `width` pixels, as many as fit into `height`; the rest becomes "…"."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        while font.getlength(word) > width and len(word) > 1:  # a word wider than the line
            fits = max(n for n in range(1, len(word)) if n == 1 or font.getlength(word[:n]) <= width)
            lines[-1:] = [word[:fits], ""]
            word = word[fits:]
        lines[-1] = word
    room = max(1, height // LINE)
    if len(lines) > room:
        last = lines[room - 1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        lines[room - 1 :] = [last.rstrip() + "…"]
    return "\n".join(lines)
