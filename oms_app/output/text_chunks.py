"""The text chunks of a PNG file, read without its pixels. A picture may come from anyone, so everything is bounded."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 8_000_000  # bytes of one text, compressed or not: ComfyUI's workflows may have a megabyte
MAX_TEXTS = 64  # texts of a file
MAX_CHUNKS = 100_000  # chunks of a file; a large picture has some thousand


def read_texts(path: Path) -> dict[str, str]:
    """The texts of all tEXt, zTXt and iTXt chunks, by keyword; of equal keywords the last.

    Chunks after the pixels are read too. A text that is too long, not text or damaged is left out. Raises OSError if
    the file cannot be read, ValueError if it is not a whole PNG.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file:
        if file.read(8) != SIGNATURE:
            raise ValueError("it is not a PNG file")
        for _ in range(MAX_CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                raise ValueError("its end is missing")
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"IEND":
                return found
            if kind in (b"tEXt", b"zTXt", b"iTXt") and length <= MAX_TEXT and len(found) < MAX_TEXTS:
                keyword, text = _read_text(file, kind, length)
                if keyword and text is not None:
                    found[keyword] = text
                file.seek(4, 1)
            else:
                file.seek(length + 4, 1)
    raise ValueError(f"it has more than {MAX_CHUNKS:,} chunks")


def _read_text(file: BinaryIO, kind: bytes, length: int) -> tuple[str, str | None]:
    """Keyword and text of a chunk. See the PNG specification, third edition, section 11.3.3."""
    content = file.read(length)
    if len(content) < length:
        raise ValueError("its end is missing")
    keyword, _, rest = content.partition(b"\0")
    name = keyword.decode("latin-1")
    if kind == b"tEXt":
        return name, _decoded(rest, "latin-1")
    if kind == b"zTXt":
        return name, _decoded(_inflated(rest[1:]), "latin-1")
    packed, rest = rest[:1] == b"\1", rest[2:]
    text = rest.split(b"\0", 2)[-1]  # after the language and the translated keyword
    return name, _decoded(_inflated(text) if packed else text, "utf-8")


def _decoded(text: bytes | None, encoding: str) -> str | None:
    """Latin-1 is what the specification asks of tEXt; several programs write UTF-8 there all the same."""
    if text is None:
        return None
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode(encoding) if encoding == "latin-1" else None


def _inflated(content: bytes) -> bytes | None:
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(content, MAX_TEXT + 1)
    except zlib.error:
        return None
    return text if stream.eof and len(text) <= MAX_TEXT else None
