"""Any field of the field table as an axis of a grid: its values read from a text, and the requests that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from oms_app.errors import StudioError
from oms_app.fields import CORRECTION_FIELD, LORA_FIELDS, REQUEST_FIELDS, VARIANT_FIELDS, RequestField
from oms_app.prestep.corrections import CORRECTIONS
from oms_app.schema import GenerateRequest, Lora, Variant, one_more_step, variant_of
from oms_app.ui import markup

REQUEST, VARIANT, LORA = "request", "variant", "lora"  # what a field belongs to
LINES = {"prompt", "negative_prompt", "prompt_b"}  # fields whose values may contain commas
SKIPPED = {"count", "force"}  # the grid itself makes many pictures; wrong colours are made on purpose in Compare only


@dataclass(frozen=True)
class Axis:
    """belongs: REQUEST, VARIANT or LORA. name: of the field there."""

    belongs: str
    name: str
    field: RequestField

    def values(self, text: str) -> list[Any]:
        """From a text with a value on each line; separated by commas unless the field is a prompt. Each once.

        Raises StudioError if there is none, or one is not of the field's type. Ranges are the request's to check.
        """
        lines = [line.strip() for line in text.splitlines()]
        words = lines if self.name in LINES else [word.strip() for line in lines for word in line.split(",")]
        found = [self._value(word) for word in dict.fromkeys(words) if word]
        if not found:
            raise StudioError(f"{self.field.label} has no values: write one or more")
        return found

    def _value(self, word: str) -> Any:
        kind = self.field.kind
        if kind is bool:
            if word.lower() not in ("yes", "no"):
                raise StudioError(f"{self.field.label} has the value {word[:40]!r}: write yes or no")
            return word.lower() == "yes"
        try:
            return kind(word)
        except ValueError as error:
            raise StudioError(f"{self.field.label} has the value {word[:40]!r}: write numbers") from error

    def label(self, value: Any) -> str:
        if self.name in LINES:
            return markup.own(value)
        shown = f"{value:g}" if isinstance(value, float) else {True: "yes", False: "no"}.get(value, str(value))
        shown = markup.own(shown) if self.field.kind is str and self.name != "light" else shown  # ids, but sides
        return f"{self.field.label.partition(' (')[0]} {shown}"


def _axes() -> Mapping[str, Axis]:
    found = {f"{VARIANT} {CORRECTION_FIELD.name}": Axis(VARIANT, CORRECTION_FIELD.name, CORRECTION_FIELD)}
    for belongs, fields in ((VARIANT, VARIANT_FIELDS), (REQUEST, REQUEST_FIELDS)):
        found |= {f"{belongs} {n}": Axis(belongs, n, one) for n, one in fields.items() if n not in SKIPPED}
    return MappingProxyType(found | {f"{LORA} scale": Axis(LORA, "scale", LORA_FIELDS["scale"])})


AXES = _axes()  # by the names that the page's lists send
CHOICES = tuple((axis.field.label, name) for name, axis in AXES.items())


def axis_of(name: Any) -> Axis:
    """Raises StudioError for a name that is not in AXES."""
    if name not in AXES:
        raise StudioError(f"the axis is {str(name)[:60]!r}: choose one of the list")
    return AXES[name]


def cell(base: GenerateRequest, settings: Mapping[Axis, Any], number: int) -> tuple[GenerateRequest, Variant]:
    """The request of a cell, without variants of its own, and its variant. settings: the values of its axes.

    Raises ValidationError for a value that is not permitted.
    """
    of_request = {axis.name: value for axis, value in settings.items() if axis.belongs == REQUEST}
    of_variant: dict[str, Any] = {axis.name: value for axis, value in settings.items() if axis.belongs == VARIANT}
    strength = next((value for axis, value in settings.items() if axis.belongs == LORA), None)
    if strength is not None:
        if not base.loras:
            raise StudioError("there is no LoRA whose strength could change: choose one under Picture settings")
        of_request["loras"] = tuple(Lora(id=one.id, scale=strength) for one in base.loras)
    correction = of_variant.pop(CORRECTION_FIELD.name, None) or one_more_step(of_variant)
    if correction not in CORRECTIONS:
        raise StudioError(f"the correction is {str(correction)[:40]!r}: choose one of {', '.join(CORRECTIONS)}")
    read = {one.name for one in CORRECTIONS[correction].options}
    unread = [name for name, value in of_variant.items() if name not in read and value != VARIANT_FIELDS[name].default]
    if unread and correction != "raw":
        raise StudioError(f"{CORRECTIONS[correction].title} does not read {unread[0]}: choose another axis")
    variant = variant_of(correction, of_variant, name=f"{correction} {number}")
    return GenerateRequest.model_validate({**dict(base), **of_request}), variant


def require_known(axis: Axis, values: Sequence[Any], known: Mapping[str, Sequence[str]]) -> None:
    """Models and modules come from the catalogue only. known: their ids, by the axis's name."""
    for value in values if axis.name in ("model", "module") else ():
        if value not in known[axis.name]:
            choices = ", ".join(known[axis.name]) or "those you download"
            raise StudioError(f"unknown {axis.field.label.lower()} {str(value)[:60]!r}: choose one of {choices}")
