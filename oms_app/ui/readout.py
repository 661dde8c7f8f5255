"""The figures under a picture, as HTML that reads well in both themes and on a phone."""

from __future__ import annotations

from html import escape
from math import atan2, degrees, hypot, sqrt

from oms_app.schema import GenerateResult, ImageStats, Progress

STAGES = {
    "load": "Getting the model ready",
    "encode": "Reading the prompt",
    "correct": "Taking the one more step",
    "denoise": "Painting",
    "decode": "Developing the pictures",
}
LEGEND = (
    '<p class="oms-legend">L* is lightness as the eye sees it, 0 black to 100 white; the two 1 % figures are its '
    "darkest and lightest ends. Mean RGB averages all colour values, 0 to 255. The colour cast is the picture's mean "
    "tint and how strong it is: 2 is hardly seen, 20 is strong.</p>"
)
# Names of hue angles in CIE a*b*, each up to its degrees; sRGB's own red is at 40, yellow 103, green 136, blue 306.
HUES = ((15, "pink"), (53, "red"), (85, "orange"), (115, "yellow"), (170, "green"), (220, "cyan"), (310, "blue"),
        (345, "magenta"), (360, "pink"))  # fmt: skip
FAINT = 2.0  # chroma below which no eye calls a picture tinted
BAR_WIDTH, BAR_HEIGHT = 4, 40  # of the histogram, in SVG units


def cast(stats: ImageStats) -> str:
    """The colour that the whole picture leans to and its CIE chroma, such as "blue 7"; "none" below chroma 2."""
    chroma = hypot(stats.a, stats.b)
    if chroma < FAINT:
        return "none"
    return f"{hue(stats)} {chroma:.0f}"


def hue(stats: ImageStats) -> str:
    """The name of the mean colour's hue."""
    angle = degrees(atan2(stats.b, stats.a)) % 360
    return next(name for end, name in HUES if angle <= end)


def figures(stats: ImageStats | None) -> str:
    """Mean, L*, percentiles, colour cast and histogram of a picture; an empty frame of the same height without one."""
    if stats is None:
        return '<div class="oms-figures oms-empty" aria-hidden="true"></div>'
    cells = (
        ("Mean L*", f"{stats.lightness:.1f}", "Mean CIE lightness: 0 is black, 100 is white"),
        ("Darkest 1\u00a0%", f"{stats.p1:.0f}", "1st percentile of L*: one pixel in a hundred is darker than this"),
        ("Lightest 1\u00a0%", f"{stats.p99:.0f}", "99th percentile of L*: one pixel in a hundred is lighter than this"),
        ("Mean RGB", f"{stats.mean:.1f}", "Mean of all red, green and blue values, from 0 to 255"),
        ("Colour cast", cast(stats), f"The mean colour, a* {stats.a:.1f} and b* {stats.b:.1f}, and its strength"),
    )
    items = "".join(f'<div title="{tip}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, tip in cells)
    return f'<div class="oms-figures"><dl>{items}</dl>{histogram(stats)}</div>'


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
    label = f"Histogram of lightness, black at the left, white at the right; most lies from {stats.p1:.0f} to "
    return (
        f'<svg class="oms-histogram" viewBox="0 0 {width} {BAR_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}{stats.p99:.0f}">{bars}</svg><div class="oms-strip" aria-hidden="true"></div>'
    )


def change(raw: ImageStats | None, oms: ImageStats | None) -> str:
    """One line on what OMS changed, such as "mean L* 54 → 12", and the colour cast where it is another."""
    if raw is None or oms is None:
        return ""
    before, after = round(raw.lightness), round(oms.lightness)
    word = "about as light" if abs(after - before) < 1 else "lighter" if after > before else "darker"
    by = "" if after == before else f"{abs(after - before)} "
    tint = "" if cast(raw) == cast(oms) else f", colour cast <b>{cast(raw)} → {cast(oms)}</b>"
    return f"mean L* <b>{before} → {after}</b> <span class='oms-soft'>({by}{word} with OMS)</span>{tint}"


def summary(result: GenerateResult, change_line: str) -> str:
    """What is shown: what changed, the seed, the settings, the time."""
    request = result.request
    parts = [f"seed <b>{result.seed}</b>"]
    if request.num_inference_steps is not None:
        parts.append(f"{request.num_inference_steps} steps")
    if request.guidance_scale is not None:
        parts.append(f"CFG {request.guidance_scale:g}")
    if request.scheduler is not None:
        parts.append(request.scheduler)
    parts.append(f"{result.seconds.total:.1f} s" if result.painted else "painted before")
    return headline(request.prompt, change_line, parts)


def headline(prompt: str, change_line: str, parts: list[str]) -> str:
    first = f'<p class="oms-change">{change_line}</p>' if change_line else ""
    quoted = f"<q>{escape(prompt if len(prompt) <= 120 else prompt[:117] + '…')}</q>"
    return f'<div class="oms-summary">{first}<p>{quoted} · {" · ".join(parts)}</p></div>'


def welcome() -> str:
    return (
        '<div class="oms-summary"><p class="oms-change">Your pictures will appear here.</p>'
        "<p>Left, as the model paints by itself; right, with one more step at the start.</p></div>"
    )


def progress(event: Progress | None, left: float | None = None) -> str:
    """The stage, the step within it, and the seconds left where known. None: the request waits for its turn."""
    text = STAGES[event.stage] if event else "Waiting for its turn"
    bar = '<progress aria-label="Progress"></progress>'
    if event and event.steps:
        text += f", step {event.step} of {event.steps}"
        bar = f'<progress aria-label="Progress" value="{event.step}" max="{event.steps}"></progress>'
        if left is not None and left >= 0.5:
            text += f", about {left:.0f} s left"
    kind = "" if event else " oms-waiting"
    return f'<div class="oms-status{kind}"><span>{text} …</span>{bar}</div>'


def working(what: str) -> str:
    """Something is under way, and nobody can tell for how long."""
    return f'<div class="oms-status"><span>{escape(what)} …</span><progress aria-label="Progress"></progress></div>'


def alert(message: str) -> str:
    """Something the user can mend. Screen readers speak it at once."""
    return f'<div class="oms-status oms-alert" role="alert">{escape(message[:1].upper() + message[1:])}</div>'


def note(*messages: str) -> str:
    """What the user should know; nothing at all without messages."""
    lines = "".join(f"<p>{escape(message[:1].upper() + message[1:])}</p>" for message in messages)
    return f'<div class="oms-status oms-note" role="status">{lines}</div>' if lines else ""
