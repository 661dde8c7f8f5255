"""Looks: an artist's presets of light and colour, shipped in presets/looks or saved by the user.

A look adds words before and after the artist's prompt and sets One More Step. It is a JSON file, usually with a
thumbnail of the same name beside it. What is read back is validated like any user's input.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import threading
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import Field, ValidationError, field_validator, model_validator

from oms_app.errors import StudioError, argument_of, describe, describe_entry
from oms_app.fields import REQUEST_FIELDS, VARIANT_FIELDS
from oms_app.paths import PRESETS, atomic_path, atomic_write
from oms_app.records import locked, set_aside
from oms_app.schema import Frozen, GenerateRequest, Variant, one_more_step, variant_of

logger = logging.getLogger(__name__)
SHIPPED = PRESETS / "looks"
PLAIN = "plain"  # the look that adds nothing; it is listed first
THUMBNAIL = 96  # pixels
MAX_BYTES = 64 * 1024  # of a look's JSON file; the largest valid one is smaller
MAX_USER_LOOKS = 200  # looks that a user may save
DIALS = (  # that a look may set
    "luminance", "tint", "tint_strength", "warmth", "light", "light_strength", "light_angle", "spread",
)  # fmt: skip
Words = Annotated[str, Field(max_length=200)]


class Look(Frozen):
    """A preset of light and colour.

    prefix, suffix: words before and after the artist's prompt; "" adds none.
    oms_prompt: None follows the whole prompt. oms_prompt_b, mix: the other end of the OMS prompt slider and the
    position on it, 0…1. oms_guidance_scale: OMS CFG. luminance to spread: the dial's, as in `Variant`.
    sample, seed: the prompt and seed of the thumbnail; `sample` is also used if the artist's prompt is empty.
    thumbnail: file name of a picture beside the look, or "".
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]
    title: str
    description: Annotated[str, Field(max_length=160)] = ""
    prefix: Words = ""
    suffix: Words = ""
    oms_prompt: Annotated[str | None, VARIANT_FIELDS["prompt"]] = None
    oms_prompt_b: Annotated[str | None, VARIANT_FIELDS["prompt_b"]] = None
    mix: Annotated[float, VARIANT_FIELDS["mix"].on_page] = VARIANT_FIELDS["mix"].default
    oms_guidance_scale: Annotated[float, VARIANT_FIELDS["guidance_scale"].on_page] = VARIANT_FIELDS[
        "guidance_scale"
    ].default
    luminance: Annotated[float | None, VARIANT_FIELDS["luminance"]] = None
    tint: Annotated[str | None, VARIANT_FIELDS["tint"]] = None
    tint_strength: Annotated[float, VARIANT_FIELDS["tint_strength"]] = VARIANT_FIELDS["tint_strength"].default
    warmth: Annotated[float, VARIANT_FIELDS["warmth"]] = VARIANT_FIELDS["warmth"].default
    light: Annotated[str | None, VARIANT_FIELDS["light"]] = None
    light_strength: Annotated[float, VARIANT_FIELDS["light_strength"]] = VARIANT_FIELDS["light_strength"].default
    light_angle: Annotated[float, VARIANT_FIELDS["light_angle"]] = VARIANT_FIELDS["light_angle"].default
    spread: Annotated[float, VARIANT_FIELDS["spread"]] = VARIANT_FIELDS["spread"].default
    sample: Annotated[str, Field(min_length=1, max_length=200)] = "mountains"
    seed: Annotated[int, REQUEST_FIELDS["seed"].required] = 1
    thumbnail: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,59}\.(jpg|png))?$")] = ""

    @field_validator("title")
    @classmethod
    def _title_can_be_shown(cls, value: str) -> str:
        if not re.fullmatch(r"[\w][\w .'&+()-]{0,39}", value):
            shown = value if len(value) <= 40 else value[:39] + "…"
            raise ValueError(
                f"{shown!r} is not a valid name of a look: take up to 40 letters, digits, spaces and . ' & + - ( ), "
                "starting with a letter or digit"
            )
        return value

    @model_validator(mode="after")
    def _mix_needs_two_prompts(self) -> Look:
        if self.mix != 0.0 and self.oms_prompt_b is None:
            raise ValueError(f"mix is {self.mix}: there is no second OMS prompt: give oms_prompt_b, or set it to 0")
        return self

    @model_validator(mode="after")
    def _dials_fit_together(self) -> Look:
        try:
            self.variant()
        except ValidationError as error:
            raise ValueError(describe(error, argument_of)) from error
        return self

    def wrap(self, subject: str) -> str:
        """The artist's prompt with the look's words around it; `sample` if the prompt is empty."""
        return " ".join(part for part in (self.prefix, subject.strip() or self.sample, self.suffix) if part)

    def variant(self) -> Variant:
        """One More Step with the look's settings; named after the correction, which is dial if it sets a dial."""
        settings = {name: getattr(self, name) for name in DIALS}
        settings |= {"prompt": self.oms_prompt, "prompt_b": self.oms_prompt_b, "mix": self.mix}
        settings["guidance_scale"] = self.oms_guidance_scale
        return variant_of(one_more_step(settings), settings)

    def request(self) -> GenerateRequest:
        """The request that makes the thumbnail, with the embedded model."""
        return GenerateRequest(prompt=self.wrap(""), seed=self.seed, variants=(self.variant(),))


class LookLibrary:
    """All looks: the shipped ones, then the user's, each sorted by title.

    folder: the user's looks; None if nothing may be saved. Raises StudioError if a shipped look is broken; a
    broken look of the user is skipped, and `warnings` names it.
    """

    def __init__(self, shipped: Path = SHIPPED, folder: Path | None = None) -> None:
        self.folder = folder
        self._shipped = _read_all(shipped)
        self.warnings: list[str] = []
        self._lock = threading.Lock()

    @property
    def can_save(self) -> bool:
        return self.folder is not None

    def looks(self) -> list[tuple[Look, Path | None]]:
        """Every look, with the file of its thumbnail if it has one. Reads the user's folder again."""
        taken = {look.id for look, _ in self._shipped}
        damaged: list[str] = []
        saved = _read_all(self.folder, damaged) if self.folder else []
        for text in set(damaged) - set(self.warnings):
            logger.warning("%s", text)
        self.warnings = damaged
        return [*self._shipped, *(pair for pair in saved if pair[0].id not in taken)]

    def find(self, look_id: str) -> Look:
        """Raises StudioError if no look has this id."""
        for look, _ in self.looks():
            if look.id == look_id:
                return look
        raise StudioError(f"there is no look {look_id[:60]!r}: choose one of those shown, or open the page again")

    def save(self, title: str, picture: Image.Image | None = None, **settings: object) -> Look:
        """Save a look in the user's folder. settings: fields of Look. picture: for its thumbnail.

        Raises StudioError if the title is empty, taken or not valid, a setting is out of range, or the folder cannot be
        written to.
        """
        if self.folder is None:
            raise StudioError("looks cannot be saved on a shared page: run OMS Studio on your computer")
        title = " ".join(title.split())
        if not title:
            raise StudioError("the look has no name yet: type one, for example 'my night'")
        look_id = _slug(title)
        try:
            look = Look.model_validate(
                {**settings, "id": look_id, "title": title, "thumbnail": f"{look_id}.jpg" if picture else ""}
            )
        except ValidationError as error:
            raise StudioError(describe_entry(error)) from error
        try:
            with self._lock, locked(self.folder):
                self._add(look, picture)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StudioError(f"{self.folder} cannot be written to ({reason}): make it writable") from error
        return look

    def _add(self, look: Look, picture: Image.Image | None) -> None:
        """Raises StudioError if the name is taken or there are too many, and OSError."""
        assert self.folder is not None
        others = [other for other, _ in self.looks()]
        if any(other.id == look.id or other.title.casefold() == look.title.casefold() for other in others):
            raise StudioError(f"a look named {look.title!r} exists already: choose another name")
        if len(others) - len(self._shipped) >= MAX_USER_LOOKS:
            raise StudioError(f"you have {MAX_USER_LOOKS} looks already: delete some from {self.folder}")
        file = self.folder / f"{look.id}.json"
        if os.path.lexists(file):  # a damaged one, else it would be among the others
            set_aside(file)
        write(look, self.folder, picture)


def write(look: Look, folder: Path, picture: Image.Image | None = None) -> None:
    """Write the look as JSON, and its thumbnail if there is a picture. Raises OSError."""
    if picture is not None and look.thumbnail:
        with atomic_path(folder / look.thumbnail) as temporary:
            thumbnail(picture).save(temporary, "JPEG", quality=85)
    atomic_write(folder / f"{look.id}.json", look.model_dump_json(indent=2, exclude_defaults=True) + "\n")


def thumbnail(picture: Image.Image) -> Image.Image:
    """The centre of a picture, THUMBNAIL pixels square."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    middle = picture.convert("RGB").crop((left, top, left + side, top + side))
    return middle.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)


def _read_all(folder: Path, damaged: list[str] | None = None) -> list[tuple[Look, Path | None]]:
    """damaged: takes the messages about looks that cannot be read; without it they are raised."""
    found: list[tuple[Look, Path | None]] = []
    for path in folder.glob("*.json"):
        try:
            look = _read(path)
        except StudioError as error:
            if damaged is None:
                raise
            damaged.append(str(error))
            continue
        picture = folder / look.thumbnail if look.thumbnail else None
        found.append((look, picture if picture and _can_be_shown(picture) else None))
    return sorted(found, key=lambda pair: (pair[0].id != PLAIN, pair[0].title.casefold()))


def _can_be_shown(picture: Path) -> bool:
    """Whether a thumbnail is a plain file, no link, and small: it is sent to every visitor inside the page."""
    try:
        status = picture.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and 0 < status.st_size <= MAX_BYTES


def _read(path: Path) -> Look:
    """Raises StudioError if the file is not a valid look, or its id is not the file's name."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # a FIFO would wait for ever
            raise ValueError("it is not a plain file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        look = Look.model_validate_json(path.read_bytes())
        if look.id != path.stem:
            raise ValueError(f"its id is {look.id!r}, not the file's name")
        return look
    except ValidationError as error:
        reason = describe_entry(error)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except ValueError as error:
        reason = str(error)
    raise StudioError(f"{path.name} is not a valid look ({reason}): correct the file, or delete it")


def _slug(title: str) -> str:
    """A file name for a title: its ASCII letters and digits, or a hash if it has none."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-")
    return plain or "look-" + hashlib.sha256(title.encode()).hexdigest()[:12]
