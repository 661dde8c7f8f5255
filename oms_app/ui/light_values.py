"""The values of the Light panel, and the settings of a variant that they make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from oms_app.errors import StudioError
from oms_app.fields import REQUEST_FIELDS, VARIANT_FIELDS, RequestField
from oms_app.light import LIGHTS, SIDES
from oms_app.schema import Variant

OFF, PAINTING, PICTURE = "off", "painting", "picture"
# The direction pad, row by row.
PAD = (OFF, "top", "vignette", "left", "centre", "right", PAINTING, "bottom", PICTURE)
TINT = "#3060ff"  # the first tint of the picker, which is off
LIGHT_FIELDS: Mapping[str, RequestField] = MappingProxyType(
    {
        n: VARIANT_FIELDS[n]
        for n in ("luminance", "tint", "tint_strength", "warmth", "light_strength", "light_angle", "spread")
    }
    | {PAINTING: VARIANT_FIELDS["light"], PICTURE: VARIANT_FIELDS["light"], "exact": REQUEST_FIELDS["exact"]}
)


@dataclass(frozen=True)
class LightValues:
    """The fields of the Light panel. luminance and tint count while luminance_on and tint_on; warmth 0 is off.

    light: one of PAD. light_angle counts for a side. painting, picture: the light of what was painted and of the
    uploaded picture, as `light.layout_text` writes it; "" if there is none, and then PAINTING and PICTURE ask for
    nothing.
    """

    luminance_on: bool
    luminance: float | None
    tint_on: bool
    tint: str | None
    tint_strength: float | None
    warmth: float | None
    light: str | None
    light_strength: float | None
    light_angle: float | None
    painting: str
    picture: str
    spread: float | None
    exact: bool

    def light_settings(self) -> dict[str, Any]:
        """The settings of a variant; those that are off are left out. Raises StudioError if one that is on is empty."""
        settings: dict[str, Any] = {
            "warmth": given(VARIANT_FIELDS["warmth"], self.warmth),
            "spread": given(VARIANT_FIELDS["spread"], self.spread),
        }
        if self.luminance_on:
            settings["luminance"] = given(VARIANT_FIELDS["luminance"], self.luminance)
        if self.tint_on:
            settings["tint"] = hex_colour(given(VARIANT_FIELDS["tint"], self.tint))
            settings["tint_strength"] = given(VARIANT_FIELDS["tint_strength"], self.tint_strength)
        layouts = {PAINTING: self.painting, PICTURE: self.picture}
        light = None if self.light == OFF else given(VARIANT_FIELDS["light"], self.light)
        if light in tuple(layouts):
            light = layouts[light] or None
        if light is not None:
            settings |= {"light": light, "light_strength": given(VARIANT_FIELDS["light_strength"], self.light_strength)}
        if light in SIDES:
            settings["light_angle"] = given(VARIANT_FIELDS["light_angle"], self.light_angle)
        return settings


V = TypeVar("V", bound=LightValues)


def with_light(values: V, variant: Variant) -> V:
    """The values with the dials of a variant, and those off that it does not set."""
    values = replace(
        values,
        luminance_on=variant.luminance is not None,
        tint_on=variant.tint is not None,
        warmth=variant.warmth,
        spread=variant.spread,
        light=OFF,
    )
    if variant.luminance is not None:
        values = replace(values, luminance=variant.luminance)
    if variant.tint is not None:
        values = replace(values, tint=variant.tint, tint_strength=variant.tint_strength)
    if variant.light is not None:
        values = replace(values, light_strength=variant.light_strength, light_angle=variant.light_angle)
        if variant.light in LIGHTS:
            return replace(values, light=variant.light)
        return replace(values, light=PICTURE, picture=variant.light)
    return values


def given(field: RequestField, value: Any) -> Any:
    """The value. Raises StudioError if it is None."""
    if value is None:
        raise StudioError(f"{field.label} is missing: {field.permitted}")
    return value


def hex_colour(value: Any) -> str:
    """`#rrggbb` of what a colour picker sends, such as `rgba(48, 96, 255, 1)`. Other texts stay as they are."""
    text = str(value).strip()
    found = re.fullmatch(r"rgba?\(\s*([\d.]{1,8})\s*,\s*([\d.]{1,8})\s*,\s*([\d.]{1,8})\s*(?:,[^)]*)?\)", text)
    if found is None:
        return text
    try:
        channels = [round(float(one)) for one in found.groups()]
    except ValueError:
        return text
    return "#" + "".join(f"{min(channel, 255):02x}" for channel in channels)
