"""The measured figures of a picture, and the line above the pictures, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import atan2, degrees, hypot, sqrt

from oms_app.schema import GenerateResult, ImageStats, Reached

LEGEND = (
    '<p class="oms-legend">L* is perceived lightness: 0 is black, 100 is white. The two 1 % figures are the L* of the '
    "darkest and lightest pixels. Mean RGB is the mean of all colour values, 0 to 255. The colour cast is the mean "
    "tint and its strength: 2 is barely visible, 20 is strong.</p>"
)
# Names of hue angles in CIE a*b*, each up to its degrees; sRGB red is at 40, yellow 103, green 136, blue 306.
HUES = ((15, "pink"), (53, "red"), (85, "orange"), (115, "yellow"), (170, "green"), (220, "cyan"), (310, "blue"),
        (345, "magenta"), (360, "pink"))  # fmt: skip
FAINT = 2.0  # chroma below which a tint is not visible
BAR_WIDTH, BAR_HEIGHT = 4, 40  # of the histogram, in SVG units


def cast(stats: ImageStats) -> str:
    """The hue of the mean colour and its CIE chroma, such as "blue 7"; "none" below chroma 2."""
    chroma = hypot(stats.a, stats.b)
    if chroma < FAINT:
        return "none"
    return f"{hue(stats)} {chroma:.0f}"


def hue(stats: ImageStats) -> str:
    """The name of the mean colour's hue."""
    angle = degrees(atan2(stats.b, stats.a)) % 360
    return next(name for end, name in HUES if angle <= end)


def figures(stats: ImageStats | None, reached: Sequence[Reached] = ()) -> str:
    """What was asked of a picture's light and what it has, mean L*, percentiles, mean RGB, colour cast and histogram;
    an empty frame of the same height for None."""
    if stats is None:
        return '<div class="oms-figures oms-empty" aria-hidden="true"></div>'
    cells = (
        ("Mean L*", f"{stats.lightness:.1f}", "Mean CIE lightness: 0 is black, 100 is white"),
        ("Darkest 1\u00a0%", f"{stats.p1:.0f}", "1st percentile of L*: one pixel in a hundred is darker than this"),
        ("Lightest 1\u00a0%", f"{stats.p99:.0f}", "99th percentile of L*: one pixel in a hundred is lighter than this"),
        ("Mean RGB", f"{stats.mean:.1f}", f"Mean of all R, G and B values, 0 to 255: {stats.mean / 2.55:.1f} percent"),
        ("Colour cast", cast(stats), f"The mean colour, a* {stats.a:.1f} and b* {stats.b:.1f}, and its strength"),
    )
    items = "".join(f'<div title="{tip}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, tip in cells)
    asked = " · ".join(f'<span title="{escape(one.meaning, quote=True)}">{escape(one.text)}</span>' for one in reached)
    return f'<div class="oms-figures"><p class="oms-reached">{asked}</p><dl>{items}</dl>{histogram(stats)}</div>'


def histogram(stats: ImageStats) -> str:
    """The 64 bins of L* as bars over a strip from black to white.

    Heights go with the square root, so that a few stars in a black sky still show.
    """
    top = max(stats.histogram) or 1
    bars = "".join(
        f'<rect x="{i * BAR_WIDTH}" y="{BAR_HEIGHT - height:.1f}" width="{BAR_WIDTH - 1}" height="{height:.1f}"/>'
        for i, count in enumerate(stats.histogram)
        if (height := BAR_HEIGHT * sqrt(count / top)) > 0
    )
    width = len(stats.histogram) * BAR_WIDTH
    most = f"most lies from {stats.p1:.0f} to {stats.p99:.0f}"
    label = f"Histogram of lightness, black at the left, white at the right; {most}"
    return (
        f'<svg class="oms-histogram" viewBox="0 0 {width} {BAR_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{bars}</svg><div class="oms-strip" aria-hidden="true"></div>'
    )


def change(raw: ImageStats | None, oms: ImageStats | None) -> str:
    """One line on what OMS changed, such as "mean L* 54 → 12", and the colour cast if it changed."""
    if raw is None or oms is None:
        return ""
    before, after = round(raw.lightness), round(oms.lightness)
    by = f"{after - before} lighter" if after > before else f"{before - after} darker"
    by = "about as light" if after == before else by
    tint = "" if cast(raw) == cast(oms) else f", colour cast <b>{cast(raw)} → {cast(oms)}</b>"
    return f"mean L* <b>{before} → {after}</b> <span class='oms-soft'>({by} with OMS)</span>{tint}"


def details(result: GenerateResult) -> tuple[str, ...]:
    """The settings and the time, such as "20 steps"."""
    request = result.request
    parts = []
    if request.num_inference_steps is not None:
        parts.append(f"{request.num_inference_steps} steps")
    if request.guidance_scale is not None:
        parts.append(f"CFG {request.guidance_scale:g}")
    if request.scheduler is not None:
        parts.append(request.scheduler)
    return (*parts, f"{result.seconds.total:.1f} s" if result.painted else "from the cache")


def summary(prompt: str, seed: int, details: Sequence[str], change_line: str = "") -> str:
    """The line above the pictures. change_line: from `change`."""
    first = f'<p class="oms-change">{change_line}</p>' if change_line else ""
    quoted = f'<q translate="no">{escape(prompt if len(prompt) <= 120 else prompt[:117] + "…")}</q>'
    parts = " · ".join((quoted, f"seed <b>{seed}</b>", *map(escape, details)))
    return f'<div class="oms-summary">{first}<p>{parts}</p></div>'


def welcome() -> str:
    """In place of the summary until there are pictures."""
    return (
        '<div class="oms-summary"><p class="oms-change">Your pictures will appear here.</p>'
        "<p>Left: the model without correction (raw). Right: the same seed with One More Step (OMS).</p></div>"
    )
