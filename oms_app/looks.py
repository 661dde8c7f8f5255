"""Looks: an artist's presets of light and colour, shipped in presets/looks or saved by the user.

A look puts words around the artist's own prompt and sets One More Step. It is a JSON file, as a rule with a small
picture of the same name beside it. What is read back is checked like any user's input.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import Field, ValidationError, field_validator, model_validator

from oms_app.errors import StudioError
from oms_app.fields import VARIANT_FIELDS
from oms_app.paths import PRESETS
from oms_app.schema import Frozen, GenerateRequest, Variant

logger = logging.getLogger(__name__)
SHIPPED = PRESETS / "looks"
PLAIN = "plain"  # the look that adds nothing: it comes first
THUMBNAIL = 96  # pixels
MAX_BYTES = 64 * 1024  # of a look's JSON file: the largest there can be takes less
MAX_OWN = 200  # looks a user may save
Words = Annotated[str, Field(max_length=200)]


class Look(Frozen):
    """A preset of light and colour.

    prefix, suffix: words before and after the artist's prompt; "" adds none.
    oms_prompt: None follows the whole prompt. oms_prompt_b, mix: the other end of the OMS prompt slider and the place
    on it, 0…1. oms_guidance_scale: OMS CFG. sample, seed: the prompt and seed of the thumbnail; `sample` also stands in
    for a prompt that is still empty. thumbnail: a picture's file name beside the look, "" without one.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]
    title: str
    description: Annotated[str, Field(max_length=160)] = ""
    prefix: Words = ""
    suffix: Words = ""
    oms_prompt: Annotated[str | None, VARIANT_FIELDS["prompt"]] = None
    oms_prompt_b: Annotated[str | None, VARIANT_FIELDS["prompt_b"]] = None
    mix: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.0
    oms_guidance_scale: Annotated[float, Field(ge=0.0, le=4.0, allow_inf_nan=False)] = 1.0
    sample: Annotated[str, Field(min_length=1, max_length=200)] = "mountains"
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 1
    thumbnail: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,59}\.(jpg|png))?$")] = ""

    @field_validator("title")
    @classmethod
    def _title_can_be_shown(cls, value: str) -> str:
        if not re.fullmatch(r"[\w][\w .'&+()-]{0,39}", value):
            shown = value if len(value) <= 40 else value[:39] + "…"
            raise ValueError(
                f"{shown!r} is no name for a look: take up to 40 letters, digits, spaces and . ' & + - ( ), beginning "
                "with a letter or digit"
            )
        return value

    @model_validator(mode="after")
    def _mix_needs_two_prompts(self) -> Look:
        if self.mix != 0.0 and self.oms_prompt_b is None:
            raise ValueError(f"mix is {self.mix} but there is no second OMS prompt: give oms_prompt_b, or set mix to 0")
        return self

    def wrap(self, subject: str) -> str:
        """The artist's prompt with the look's words around it; `sample` where the prompt is empty."""
        return " ".join(part for part in (self.prefix, subject.strip() or self.sample, self.suffix) if part)

    def variant(self, name: str = "oms") -> Variant:
        """One More Step as the look has it."""
        return Variant(
            name=name,
            correction="oms",
            prompt=self.oms_prompt,
            prompt_b=self.oms_prompt_b,
            mix=self.mix,
            guidance_scale=self.oms_guidance_scale,
        )

    def request(self) -> GenerateRequest:
        """What the thumbnail is painted from, by the embedded model."""
        return GenerateRequest(prompt=self.wrap(""), seed=self.seed, variants=(self.variant(),))


class Shelf:
    """The looks there are: shipped ones first, then the user's own, both by title.

    own: the user's folder of looks; None where nothing may be saved. Raises StudioError where a shipped look is broken;
    a broken one of the user's is passed over, and the log says why.
    """

    def __init__(self, shipped: Path = SHIPPED, own: Path | None = None) -> None:
        self.own = own
        self._shipped = _read_all(shipped, strict=True)
        self._lock = threading.Lock()

    @property
    def can_save(self) -> bool:
        return self.own is not None

    def looks(self) -> list[tuple[Look, Path | None]]:
        """Every look, with the file of its thumbnail if it has one. Reads the user's folder anew."""
        taken = {look.id for look, _ in self._shipped}
        own = _read_all(self.own) if self.own else []
        return [*self._shipped, *(pair for pair in own if pair[0].id not in taken)]

    def find(self, look_id: str) -> Look:
        """Raises StudioError for an id that no look has."""
        for look, _ in self.looks():
            if look.id == look_id:
                return look
        raise StudioError(f"there is no look {look_id[:60]!r}: choose one of those shown, or open the page again")

    def save(self, title: str, picture: Image.Image | None = None, **settings: object) -> Look:
        """Keeps a look in the user's folder. settings: fields of Look. picture: for its thumbnail.

        Raises StudioError for a title that is empty, taken or unfit, for settings out of range, and where the folder
        cannot be written to.
        """
        if self.own is None:
            raise StudioError("looks cannot be saved here: run OMS Studio on your own computer")
        title = " ".join(title.split())
        if not title:
            raise StudioError("the look has no name yet: type one, for example 'my night'")
        name = _slug(title)
        try:
            look = Look.model_validate(
                {**settings, "id": name, "title": title, "thumbnail": f"{name}.jpg" if picture else ""}
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = str(first["loc"][-1]) + ": " if first["loc"] and first["type"] != "value_error" else ""
            raise StudioError(where + first["msg"].removeprefix("Value error, ")) from error
        with self._lock:
            others = [other for other, _ in self.looks()]
            if any(other.id == name or other.title.casefold() == title.casefold() for other in others):
                raise StudioError(f"a look named {title!r} is there already: take another name")
            if len(others) - len(self._shipped) >= MAX_OWN:
                raise StudioError(f"{MAX_OWN} looks of your own are there already: delete some from {self.own}")
            try:
                write(look, self.own, picture)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise StudioError(f"the folder {self.own} cannot be written to ({reason}): mend that first") from error
        return look


def write(look: Look, folder: Path, picture: Image.Image | None = None) -> None:
    """The look as JSON, and its thumbnail where there is a picture; each under a temporary name first, then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    if picture is not None and look.thumbnail:
        temporary = folder / f".{look.thumbnail}.tmp"
        try:
            thumbnail(picture).save(temporary, "JPEG", quality=85)
            temporary.replace(folder / look.thumbnail)
        finally:
            temporary.unlink(missing_ok=True)
    temporary = folder / f".{look.id}.json.tmp"
    temporary.write_text(look.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")
    os.replace(temporary, folder / f"{look.id}.json")


def thumbnail(picture: Image.Image) -> Image.Image:
    """The middle of a picture, THUMBNAIL pixels square."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    middle = picture.convert("RGB").crop((left, top, left + side, top + side))
    return middle.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)


def _read_all(folder: Path, *, strict: bool = False) -> list[tuple[Look, Path | None]]:
    found: list[tuple[Look, Path | None]] = []
    for path in folder.glob("*.json"):
        try:
            look = _read(path)
        except StudioError as error:
            if strict:
                raise
            logger.warning("%s", error)
            continue
        picture = folder / look.thumbnail if look.thumbnail else None
        found.append((look, picture if picture and picture.is_file() else None))
    return sorted(found, key=lambda pair: (pair[0].id != PLAIN, pair[0].title.casefold()))


def _read(path: Path) -> Look:
    """Raises StudioError, in one line, for anything but a look whose id is the file's name."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        look = Look.model_validate_json(path.read_bytes())
        if look.id != path.stem:
            raise ValueError(f"its id is {look.id!r}, not the file's name")
        return look
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg']}"
    except OSError as error:
        why = error.strerror or "it cannot be read"
    except ValueError as error:
        why = str(error)
    raise StudioError(f"{path.name} is no look ({why}): mend the file, or delete it")


def _slug(title: str) -> str:
    """A file name for a title: ASCII letters and digits; a title with none of these is known by its hash."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-")
    return plain or "look-" + hashlib.sha256(title.encode()).hexdigest()[:12]
