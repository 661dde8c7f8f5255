"""Asked and got: the light that a dial asked for, beside what the pixels of the finished picture have."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from oms_app.light import LIGHTS, SIDES, layout_picture, towards
from oms_app.measure.color import srgb_to_lab
from oms_app.measure.light import ciede2000, coarse_lightness, correlation, halves, lit_half
from oms_app.prestep.dial import Target
from oms_app.schema import Reached, Variant

LEAST_VARIATION = 1.0  # of L*, between the parts of a picture given as light


def reached(variant: Variant, image: Image.Image) -> tuple[Reached, ...]:
    """What a variant's dials asked for and its picture has; nothing if no dial was set, or only the warmth.

    The warmth shifts the picture's own colour, and so does a tint at a strength below 1: neither has an exact target.
    """
    if not variant.spec.steers:
        return ()
    rgb = np.asarray(image.convert("RGB"))
    found = []
    if variant.luminance is not None:
        found.append(_brightness(variant.luminance, float(rgb.mean()) / 2.55))
    if variant.tint is not None and variant.tint_strength > 0:
        found.append(_tint(variant, rgb.reshape(-1, 3).mean(0)))
    if variant.light is not None:
        found.append(_direction(variant, rgb) if variant.light in LIGHTS else _layout(variant.light, rgb))
    return tuple(found)


def _brightness(asked: float, got: float) -> Reached:
    return Reached(
        what="brightness",
        asked=asked,
        got=round(got, 2),
        difference=round(abs(got - asked), 2),
        text=f"brightness asked {asked:g} %, got {got:.1f} %",
        meaning="The average of all R, G and B values of the picture: 0 is black, 100 white.",
    )


def _tint(variant: Variant, got: NDArray[np.float64]) -> Reached:
    """got: the mean colour, 0…255. With a brightness, the tint at that brightness was asked for."""
    assert variant.tint is not None
    target = Target(variant.luminance, variant.tint, 1.0, variant.warmth)
    wanted = 255 * target.colour(torch.full((3,), 0.5))[0].numpy().astype(np.float64).clip(0, 1)
    asked, mean = _hex(wanted), _hex(got)
    if variant.tint_strength < 1:
        return Reached(
            what="tint",
            asked=asked,
            got=mean,
            text=f"tint asked {asked} at strength {variant.tint_strength:g}, mean colour {mean}",
            meaning="Below strength 1 the mean colour lies between the picture's own and the tint.",
        )
    difference = float(ciede2000(srgb_to_lab(got), srgb_to_lab(wanted)))
    return Reached(
        what="tint",
        asked=asked,
        got=mean,
        difference=round(difference, 2),
        text=f"tint asked {asked}, got {mean} (ΔE00 {difference:.1f})",
        meaning="The mean colour of the picture. ΔE00 is a difference as the eye sees it: 1 is barely visible.",
    )


def _direction(variant: Variant, rgb: NDArray[np.uint8]) -> Reached:
    asked, angle = variant.light or "", variant.light_angle
    if asked in SIDES:
        got = lit_half(rgb, *towards(asked, angle))
        where = f"the {asked} half" if angle == 0 else "the half on that side"
    else:
        got, where = halves(rgb)["centre"], "the middle"
    if angle:
        asked = f"{asked} {angle:+g}°"
    return Reached(
        what="light",
        asked=asked,
        got=round(got, 2),
        text=f"light asked {asked}, got {where} {abs(got):.0f} L* {'lighter' if got >= 0 else 'darker'}",
        meaning="By how much mean lightness L* (0 black, 100 white) is higher there than in the rest of the picture.",
    )


def _layout(text: str, rgb: NDArray[np.uint8]) -> Reached:
    asked = coarse_lightness(np.asarray(layout_picture(text)))
    got = correlation(coarse_lightness(rgb), asked)
    return Reached(
        what="light",
        asked="picture",
        got=round(got, 3),
        text=f"light asked as in the picture, got a match of {got:.2f}"
        if np.ptp(asked) >= LEAST_VARIATION
        else "light asked as in a picture that is equally light everywhere, so there is no match to measure",
        meaning="How well the light of 4 × 4 parts follows the painting or picture: 1 exactly, 0 not at all.",
    )


def _hex(colour: NDArray[np.float64]) -> str:
    """`#rrggbb` of R, G and B, 0…255."""
    return "#" + "".join(f"{round(float(value)):02x}" for value in colour)
