"""The settings in a picture, of this program or another, with models only as the catalogue has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oms_app.models.catalog import ModelInfo
from oms_app.output import png
from oms_app.output.foreign import ForeignSettings, read_foreign
from oms_app.output.text_chunks import read_texts
from oms_app.schema import Lora


@dataclass(frozen=True)
class PictureSettings:
    """What a picture says. restored: of a picture of this program. fields: of a request, of one of another program.

    program: the one that made it. unread: what is not restored, in words.
    """

    program: str
    restored: png.Restored | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What the user should know, in one line; "" of a picture of this program."""
        if self.restored is not None:
            return ""
        missing = f"not restored: {', '.join(self.unread)}" if self.unread else "everything is restored"
        return f"from {self.program}; {missing}; its noise differs, so the picture will not be the same"


def read_picture(path: Path, infos: Iterable[ModelInfo]) -> PictureSettings:
    """The settings in a PNG, or in a JPEG or WebP of another program. infos: the catalogue.

    Raises StudioError if there are none, or if a picture of ours names a model that is not in the catalogue.
    """
    known = list(infos)
    if _is_ours(path):
        return PictureSettings("OMS Studio", png.read(path, [info.id for info in known]))
    found = read_foreign(path)
    fields, unread = dict(found.settings), list(found.unread)
    here = [info for info in known if info.available]
    if model := _named(found.model, here, "base"):
        fields["model"] = model
    elif found.model or found.model_hash:
        unread.insert(0, f"model {found.model or '?'}" + (f" (hash {found.model_hash})" if found.model_hash else ""))
    fields["loras"] = _loras(found, here, unread)
    return PictureSettings(found.program, None, fields, tuple(unread))


def _is_ours(path: Path) -> bool:
    try:
        return "oms_studio" in read_texts(path)
    except (OSError, ValueError):
        return False


def _loras(found: ForeignSettings, here: list[ModelInfo], unread: list[str]) -> tuple[Lora, ...]:
    """Those that are on this machine; the others are added to `unread`."""
    loras: list[Lora] = []
    for name, strength in found.loras:
        known = _named(name, here, "lora")
        if known and -4.0 <= strength <= 4.0 and known not in [one.id for one in loras]:
            loras.append(Lora(id=known, scale=strength))
        else:
            unread.append(f"LoRA {name[:60]}")
    return tuple(loras)


def _named(name: str, here: list[ModelInfo], kind: str) -> str | None:
    """The id of the model that a name of another program means: its id, its title or its file."""

    def plain(text: str) -> str:
        last = text.replace("\\", "/").rpartition("/")[2].casefold()
        return last.removesuffix(".safetensors").removesuffix(".ckpt")

    if not name:
        return None
    of_kind = (info for info in here if info.kind == kind)
    return next((info.id for info in of_kind if plain(name) in (plain(info.id), plain(info.title))), None)
