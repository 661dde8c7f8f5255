"""Files damaged at random: bytes, chunks of PNG, and values inside JSON. The same chance gives the same file."""

from __future__ import annotations

import json
import random
import struct
import zlib
from typing import Any

ODD_NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**40, 1e308, -1e308, 0.5, float("nan"), float("inf"))
ODD: tuple[Any, ...] = (
    *ODD_NUMBERS, None, True, "", "x" * 70_000, "夜" * 999, "\ud800", "\0", "../../etc/passwd", "/etc/passwd", "absent",
    "lumen", "a\nb: c, d", "<lora:x:1e999>", [], {}, [[]], ["x"] * 300, {"a": {"b": []}}, "[" * 5_000, "9" * 5_000,
)  # fmt: skip
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, removed, doubled or added."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(found) + 1)
        length = chance.choice((1, 2, 4, 8, 40, 400))
        what = chance.randrange(6)
        if what == 0:
            found[at : at + length] = chance.randbytes(length)
        elif what == 1:
            found[at : at + 4] = struct.pack(
                chance.choice("<>") + "I", chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
            )
        elif what == 2:
            del found[at : at + length]
        elif what == 3:
            found[at:at] = found[at : at + length] * chance.choice((1, 1, 50))
        elif what == 4 and found:
            found[at % len(found)] ^= 1 << chance.randrange(8)
        elif chance.random() < 0.3:
            del found[at:]
    return bytes(found)


def damaged_json(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """One value inside replaced by an odd one, removed or doubled."""
    if isinstance(value, dict) and value and (depth == 0 or chance.random() < 0.8):
        key = chance.choice(list(value))
        rest = {name: one for name, one in value.items() if name != key}
        if chance.random() < 0.1:
            return rest
        name = str(chance.choice(ODD[13:20])) if chance.random() < 0.05 else key
        return rest | {name: damaged_json(value[key], chance, depth + 1)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        changed = damaged_json(value[at], chance, depth + 1)
        return [*value[:at], *[changed] * chance.choice((0, 1, 1, 1, 2, 300)), *value[at + 1 :]]
    return chance.choice(ODD)


def damaged_text(text: str, chance: random.Random) -> str:
    """JSON with an odd value inside, or any text with changed bytes."""
    if chance.random() < 0.7:
        try:
            value = json.loads(text)
            for _ in range(chance.choice((1, 1, 1, 3, 10))):
                value = damaged_json(value, chance)
            return json.dumps(value, ensure_ascii=chance.random() < 0.8)
        except (ValueError, RecursionError):
            pass
    return damaged_bytes(text.encode("utf-8", "surrogatepass"), chance).decode("utf-8", "replace")


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Kinds and contents of a PNG's chunks."""
    found, at = [], len(SIGNATURE)
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    return found


def png_of(found: list[tuple[bytes, bytes]]) -> bytes:
    """With right lengths and check sums, so that readers look inside."""
    return SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in found
    )


def damaged_png(content: bytes, chance: random.Random) -> bytes:
    """One chunk changed, doubled, moved or removed; texts most often."""
    found = chunks(content)
    texts = [i for i, (kind, _) in enumerate(found) if kind in (b"tEXt", b"zTXt", b"iTXt")]
    at = chance.choice(texts) if texts and chance.random() < 0.7 else chance.randrange(len(found))
    kind, inside = found[at]
    if at in texts and kind != b"zTXt" and chance.random() < 0.85:
        keyword, _, rest = inside.partition(b"\0")
        text = rest if kind == b"tEXt" else rest[2:].split(b"\0", 2)[-1]
        changed = damaged_text(text.decode("utf-8", "replace"), chance).encode("utf-8", "surrogatepass")
        kind = chance.choice((b"tEXt", b"zTXt", b"iTXt"))
        packed = zlib.compress(changed, 1)
        found[at] = (
            kind,
            {
                b"tEXt": keyword + b"\0" + changed,
                b"zTXt": keyword + b"\0\0" + packed,
                b"iTXt": keyword + b"\0\1\0\0\0" + packed,
            }[kind],
        )
        return png_of(found)
    what = chance.randrange(5)
    if what == 0:
        found[at:at] = [found[at]] * chance.choice((1, 2, 100))
    elif what == 1:
        del found[at]
    elif what == 2:
        chance.shuffle(found)
    else:
        found[at] = kind, damaged_bytes(inside, chance)
    return png_of(found)


def damaged_safetensors(content: bytes, chance: random.Random) -> bytes:
    """A value of the header changed."""
    length = int.from_bytes(content[:8], "little")
    header = damaged_text(content[8 : 8 + length].decode(), chance).encode("utf-8", "surrogatepass")
    said = len(header) if chance.random() < 0.9 else chance.choice((0, 1, 2**31, 2**63, len(header) - 1))
    return said.to_bytes(8, "little") + header + content[8 + length :]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """By what the file is; in a third of the cases bytes anywhere."""
    if chance.random() > 0.33:
        if content.startswith(SIGNATURE):
            return damaged_png(content, chance)
        if not content.startswith((b"\xff\xd8", b"RIFF")):
            return damaged_safetensors(content, chance)
    return damaged_bytes(content, chance)
