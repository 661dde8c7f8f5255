"""The figures of `evaluate dials` from the records of pictures, and its rows: measured, target, whether it is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oms_app.evaluate.dials import (
    EVEN_LEVELS,
    EXACT_LEVELS,
    LEVELS,
    RIVAL_LEVELS,
    RIVAL_TINT,
    RIVALS,
    TINTS,
    Records,
    painted_light,
)
from oms_app.light import LIGHTS
from oms_app.measure.color import srgb_to_lab
from oms_app.measure.distances import bootstrap_interval
from oms_app.measure.light import ciede2000, coarse_lightness, correlation, hue_difference, rank_correlation
from oms_app.paths import EMBEDDED

Prompts = Sequence[Records]
# Of each direction, the difference of `halves` that it makes, and its sign.
TOWARDS = {
    "left": ("left", 1),
    "right": ("left", -1),
    "top": ("top", 1),
    "bottom": ("top", -1),
    "centre": ("centre", 1),
    "vignette": ("centre", 1),
}


def values(prompts: Prompts, setting: str, figure: str) -> np.ndarray:
    """A figure of every picture of a setting, (n, …), by prompt, then seed."""
    return np.array([one[figure] for prompt in prompts for one in prompt.get(setting, ())])


def spread_of(errors: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(errors)), "p90": float(np.percentile(errors, 90)), "n": len(errors)}


def brightness(prompts: Prompts, prefix: str, levels: Sequence[int]) -> dict[str, Any]:
    """Points between asked and got mean brightness. Of several levels also the rank correlation and slope of both."""
    got = [values(prompts, f"{prefix} {level}", "mean") for level in levels]
    asked, all_got = np.repeat(levels, [len(one) for one in got]), np.concatenate(got)
    found: dict[str, Any] = spread_of(np.abs(all_got - asked))
    if len(levels) > 1:
        found |= {"rank": rank_correlation(asked, all_got), "slope": float(np.polyfit(asked, all_got, 1)[0])}
    return found


def colour_error(rgb: np.ndarray, tint: str) -> tuple[np.ndarray, np.ndarray]:
    """ΔE00 and degrees of hue between mean colours (n, 3) in 0…255 and a tint "#rrggbb"."""
    wanted = srgb_to_lab(np.array(list(bytes.fromhex(tint[1:])), np.float64))
    lab = srgb_to_lab(rgb)
    return ciede2000(lab, wanted), hue_difference(lab, wanted)


def tints(prompts: Prompts) -> dict[str, Any]:
    errors = {name: colour_error(values(prompts, f"tint {name}", "rgb"), tint) for name, tint in TINTS.items()}
    delta, hue = (np.concatenate([pair[k] for pair in errors.values()]) for k in (0, 1))
    return {
        **spread_of(delta),
        "hue": spread_of(hue),
        "by_tint": {name: spread_of(pair[0]) for name, pair in errors.items()},
    }


def kept(prompts: Prompts, setting: str) -> dict[str, Any] | None:
    """Subjects kept and CLIP scores, against the free run of the same seeds; None if nothing judged the pictures.

    The interval resamples prompts, with all their pictures.
    """
    if "clip" not in prompts[0][setting][0]:
        return None
    free = [{"free": prompt["free"][: len(prompt[setting])]} for prompt in prompts]
    before, now = values(free, "free", "subject"), values(prompts, setting, "subject")
    difference = (values(prompts, setting, "clip") - values(free, "free", "clip")).reshape(len(prompts), -1)
    return {
        "subject": float(now.mean() / max(before.mean(), 1e-9)),
        "free_subject": float(before.mean()),
        "clip": float(difference.mean()),
        "clip_interval": list(bootstrap_interval(lambda i: float(difference[i].mean()), len(prompts))),
    }


def directions(prompts: Prompts) -> dict[str, Any]:
    found = {}
    for where in LIGHTS:
        towards, free = (_towards(prompts, setting, where) for setting in (f"light {where}", "free"))
        found[where] = {
            "right": float((towards > 0).mean()),
            "median": float(np.median(towards)),
            "free": float(np.median(free)),
            "kept": kept(prompts, f"light {where}"),
        }
    left, right = (_towards(prompts, f"light {where}", "left") for where in ("left", "right"))
    return {
        "by_direction": found,
        "pair": {"right": float((left > right).mean()), "median": float(np.median(left - right))},
    }


def _towards(prompts: Prompts, setting: str, where: str) -> np.ndarray:
    """By how much L* is higher where a direction has its light, of every picture of a setting."""
    half, sign = TOWARDS[where]
    return sign * np.array([one[half] for one in values(prompts, setting, "halves")])


def painted(prompts: Prompts) -> dict[str, float]:
    wanted = coarse_lightness(np.asarray(painted_light()))
    r = {name: [correlation(one, wanted) for one in values(prompts, name, "cells")] for name in ("painted", "free")}
    return {name: float(np.median(one)) for name, one in r.items()}


def rivals(prompts: Prompts) -> dict[str, Any]:
    """The dial and the other ways at the same brightness and tint, from the same seeds: error, CLIP score, subjects."""
    other = f"{RIVALS[0]} {RIVAL_LEVELS[0]}"
    seeds = min(len(prompt.get(other, prompt["free"])) for prompt in prompts)
    same = [{name: found[:seeds] for name, found in prompt.items()} for prompt in prompts]
    found: dict[str, Any] = {}
    for name in ("luminance", "gain", *RIVALS):
        if f"{name} {RIVAL_LEVELS[0]}" not in same[0]:
            continue
        delta, hue = colour_error(values(same, f"{name} tint", "rgb"), RIVAL_TINT[0])
        found[name] = {
            "brightness": brightness(same, name, RIVAL_LEVELS),
            "tint": {**spread_of(delta), "hue": spread_of(hue)},
            "kept": {str(what): kept(same, f"{name} {what}") for what in (*RIVAL_LEVELS, "tint")},
        }
    return found


def measure(prompts: Prompts, about: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure of the table. about: see `dial_jobs.Measured`."""
    clipped_free = values(prompts, "free", "clipped").mean()
    runs = values(prompts, "exact runs", "runs")
    found = {
        **about,
        "prompts": len(prompts),
        "seeds": len(prompts[0]["free"]),
        "brightness": brightness(prompts, "luminance", EVEN_LEVELS),
        "by_level": {str(level): brightness(prompts, "luminance", [level]) for level in LEVELS},
        "exact": {**brightness(prompts, "exact", EXACT_LEVELS), "runs": int(runs.max())},
        "tint": tints(prompts),
        "fixed": [float(v) for v in values(prompts, "fixed", "rgb").std(0, ddof=1) / 255],
        "clipped": {
            str(level): float(values(prompts, f"luminance {level}", "clipped").mean() - clipped_free)
            for level in LEVELS
        },
        "kept": {str(level): kept(prompts, f"luminance {level}") for level in RIVAL_LEVELS},
        "directions": directions(prompts),
        "painted": painted(prompts),
        "rivals": rivals(prompts),
    }
    return _rounded(found)


def _rounded(value: Any) -> Any:
    """Numbers with five digits after the point, so that a table made from the stored figures is the same."""
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


Row = tuple[str, str, str, str]
UNJUDGED = "not measured: classifier and CLIP of scenes know only what the embedded models paint"


def rows(figures: Mapping[str, Any]) -> list[Row]:
    """(measure, measured, target, met) of every target. Of another base than the embedded one only the brightness has
    a target; the rest is reported.
    """
    if figures["model"] != EMBEDDED:
        b = figures["brightness"]
        first, *others = _light_rows(figures)
        told = [(*first[:2], "median ≤ 2", _met(b["median"] <= 2)), *others, *_kept_rows(figures), *_run_rows(figures)]
        return [told[0], *((title, text, "", "") for title, text, _, _ in told[1:])]
    return [*_light_rows(figures), *_kept_rows(figures), *_run_rows(figures), *_elsewhere_rows(figures)]


def _met(yes: bool) -> str:
    return "yes" if yes else "**no**"


def _light_rows(figures: Mapping[str, Any]) -> list[Row]:
    b, e, t, d, p = (figures[key] for key in ("brightness", "exact", "tint", "directions", "painted"))
    most_clipped = max(figures["clipped"][str(level)] for level in LEVELS if 15 <= level <= 60)
    return [
        (
            "mean brightness, 10 to 90 %, one run",
            f"median {b['median']:.2f}, 90th percentile {b['p90']:.2f} points, rank correlation {b['rank']:.4f}, "
            f"slope {b['slope']:.3f}",
            "≤ 1.0, ≤ 3, ≥ 0.99",
            _met(b["median"] <= 1 and b["p90"] <= 3 and b["rank"] >= 0.99),
        ),
        (
            "the same with `--exact`",
            f"median {e['median']:.2f}, 90th percentile {e['p90']:.2f} points, {e['runs']} runs at most",
            "≤ 0.3, ≤ 1.0, ≤ 3 runs",
            _met(e["median"] <= 0.3 and e["p90"] <= 1 and e["runs"] <= 3),
        ),
        (
            "tint at strength 1",
            f"ΔE00 median {t['median']:.2f}, 90th percentile {t['p90']:.2f}; hue median {t['hue']['median']:.1f}°",
            "≤ 3, ≤ 6, ≤ 8°",
            _met(t["median"] <= 3 and t["p90"] <= 6 and t["hue"]["median"] <= 8),
        ),
        (
            "one prompt, 16 seeds, brightness and tint: deviation of the mean colour",
            ", ".join(f"{v:.4f}" for v in figures["fixed"]),
            "≤ 0.02 per channel",
            _met(max(figures["fixed"]) <= 0.02),
        ),
        (
            "clipped pixels at 15 to 60 %, over the free run",
            f"{100 * most_clipped:+.1f} points at most (15 %: {100 * figures['clipped']['15']:+.1f}, "
            f"60 %: {100 * figures['clipped']['60']:+.1f}); at 85 % {100 * figures['clipped']['85']:+.1f}",
            "≤ +10 points",
            _met(most_clipped <= 0.1),
        ),
        (
            "left- against right-lit: sign, median difference of L*(left - right)",
            f"{d['pair']['right']:.1%}, {d['pair']['median']:.1f} points",
            "≥ 98 %, ≥ 12",
            _met(d["pair"]["right"] >= 0.98 and d["pair"]["median"] >= 12),
        ),
        (
            "painted layout: median correlation of 4 × 4 luminance",
            f"{p['painted']:.2f} (free run {p['free']:.2f})",
            "≥ 0.9",
            _met(p["painted"] >= 0.9),
        ),
    ]


def _kept_rows(figures: Mapping[str, Any]) -> list[Row]:
    """Subjects and CLIP scores at 20 and 80 % and with each direction of light."""
    titles = {level: f"subject kept at {level} %; CLIP score over the free run's" for level in figures["kept"]}
    lit = "each direction: subject kept"
    if not figures["judged"]:
        return [(title, UNJUDGED, "≥ 92 %", "") for title in titles.values()] + [(lit, UNJUDGED, "≥ 90 %", "")]
    found: list[Row] = []
    for level, title in titles.items():
        one = figures["kept"][level]
        low, high = one["clip_interval"]
        text = f"{one['subject']:.1%}; {one['clip']:+.2f} ({low:+.2f} … {high:+.2f})"
        found.append((title, text, "≥ 92 %", _met(one["subject"] >= 0.92)))
    by = {where: one["kept"]["subject"] for where, one in figures["directions"]["by_direction"].items()}
    text = ", ".join(f"{where} {share:.1%}" for where, share in by.items())
    return [*found, (lit, text, "≥ 90 %", _met(min(by.values()) >= 0.9))]


def _run_rows(figures: Mapping[str, Any]) -> list[Row]:
    c = figures["cost"]
    free = "raw + OMS pair" if figures["free"] == "oms" else "pair of two runs of the base alone"
    text = ", ".join(f"{name} {ratio:.3f} × ({c['seconds'][name]:.2f} s)" for name, ratio in c["ratio"].items())
    decodes = ", ".join(f"{name} {c['extra_decodes'][name]} pictures, {x:.2f}" for name, x in c["extra_pixels"].items())
    return [
        (
            f"cost: raw + dial pair over {free}",
            f"{text} of {c['seconds']['free']:.2f} s; medians of {c['runs']} interleaved runs, threads: {c['threads']}",
            "≤ 1.05 ×",
            _met(max(c["ratio"].values()) <= 1.05),
        ),
        (
            "decoded during the steps: small pictures, and their pixels together in units of a picture's",
            decodes,
            "at most one extra decode (by pixels)",
            _met(max(c["extra_pixels"].values()) <= 1),
        ),
    ]


def _elsewhere_rows(figures: Mapping[str, Any]) -> list[Row]:
    """What other commands measure, or a reader judges."""
    found = [
        (
            "spread 1 over captions, and within one prompt",
            "not measured here: `python -m oms_app evaluate spread`, section Spread",
            "≤ 0.15, ≤ 0.35",
            "",
        )
    ]
    title, target = "dial beside a gain in linear light at 20 and 80 %, ranked blind", "dial preferred in ≥ 14 of 20"
    blind = figures.get("blind")
    if blind is None or blind["weights"] != figures["weights"]:
        return [
            *found,
            (title, "not ranked yet: `evaluate dials --blind DIR`, then with `--score ANSWERS`", target, ""),
        ]
    by = ", ".join(f"{level} %: {one['dial']} of {one['pairs']}" for level, one in blind["by_level"].items())
    text = f"dial preferred in {blind['dial']} of {blind['pairs']} ({by})"
    return [*found, (title, text, target, _met(blind["dial"] >= 14))]
