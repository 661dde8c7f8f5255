"""The table of `evaluate dials`: rows with measured figures, targets and whether they are met, from stored figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oms_app.evaluate.dials import (
    EXACT_LEVELS,
    LEVELS,
    RIVAL_LEVELS,
    RIVAL_TINT,
    RIVALS,
    TINTS,
    painted_light,
)
from oms_app.light import LIGHTS
from oms_app.measure.color import srgb_to_lab
from oms_app.measure.distances import bootstrap_interval
from oms_app.measure.light import ciede2000, coarse_lightness, correlation, hue_difference, rank_correlation

Records = Sequence[Mapping[str, Any]]  # of each prompt: setting → one record per seed
SIGNS = {"left": 1, "right": -1, "top": 1, "bottom": -1, "centre": 1, "vignette": 1}
SIDES = {"left": "left", "right": "left", "top": "top", "bottom": "top", "centre": "centre", "vignette": "centre"}


def values(records: Records, setting: str, figure: str) -> np.ndarray:
    """A figure of every picture of a setting, (n, …), by prompt, then seed."""
    return np.array([one[figure] for prompt in records for one in prompt.get(setting, ())])


def spread_of(errors: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(errors)), "p90": float(np.percentile(errors, 90)), "n": len(errors)}


def brightness(records: Records, prefix: str, levels: Sequence[int]) -> dict[str, Any]:
    """Points between asked and got mean brightness, and the rank correlation of both."""
    got = [values(records, f"{prefix} {level}", "mean") for level in levels]
    asked = np.repeat(levels, [len(one) for one in got])
    all_got = np.concatenate(got)
    return {**spread_of(np.abs(all_got - asked)), "rank": rank_correlation(asked, all_got)}


def colour_error(rgb: np.ndarray, tint: str) -> tuple[np.ndarray, np.ndarray]:
    """ΔE00 and degrees of hue between mean colours (n, 3) in 0…255 and a tint "#rrggbb"."""
    wanted = srgb_to_lab(np.array(list(bytes.fromhex(tint[1:])), np.float64))
    lab = srgb_to_lab(rgb)
    return ciede2000(lab, wanted), hue_difference(lab, wanted)


def tints(records: Records) -> dict[str, Any]:
    errors = {name: colour_error(values(records, f"tint {name}", "rgb"), tint) for name, tint in TINTS.items()}
    delta, hue = (np.concatenate([pair[k] for pair in errors.values()]) for k in (0, 1))
    return {
        **spread_of(delta),
        "hue": spread_of(hue),
        "by_tint": {name: spread_of(pair[0]) for name, pair in errors.items()},
    }


def kept(records: Records, setting: str) -> dict[str, Any]:
    """Subjects kept and CLIP scores, against the free run. The interval resamples pictures."""
    free, now = values(records, "free", "subject"), values(records, setting, "subject")
    difference = values(records, setting, "clip") - values(records, "free", "clip")
    return {
        "subject": float(now.mean() / max(free.mean(), 1e-9)),
        "free_subject": float(free.mean()),
        "clip": float(difference.mean()),
        "clip_interval": bootstrap_interval(lambda i: float(difference[i].mean()), len(difference)),
    }


def directions(records: Records) -> dict[str, Any]:
    found = {}
    for where in LIGHTS:
        side = np.array([half[SIDES[where]] for half in values(records, f"light {where}", "halves")])
        towards = SIGNS[where] * side
        free = SIGNS[where] * np.array([half[SIDES[where]] for half in values(records, "free", "halves")])
        found[where] = {
            "right": float((towards > 0).mean()),
            "median": float(np.median(towards)),
            "free": float(np.median(free)),
            "kept": kept(records, f"light {where}"),
        }
    left, right = (
        np.array([half["left"] for half in values(records, f"light {where}", "halves")]) for where in ("left", "right")
    )
    return {
        "by_direction": found,
        "pair": {"right": float((left > right).mean()), "median": float(np.median(left - right))},
    }


def painted(records: Records) -> dict[str, float]:
    wanted = coarse_lightness(np.asarray(painted_light()))
    r = {name: [correlation(one, wanted) for one in values(records, name, "cells")] for name in ("painted", "free")}
    return {name: float(np.median(one)) for name, one in r.items()}


def rivals(records: Records) -> dict[str, Any]:
    """The dial and the other ways at the same brightness and tint: error, CLIP score and subjects."""
    found: dict[str, Any] = {}
    for name in ("luminance", "gain", *RIVALS, "words"):
        if f"{name} {RIVAL_LEVELS[0]}" not in records[0]:
            continue
        found[name] = {
            "brightness": brightness(records, name, RIVAL_LEVELS),
            "kept": {str(level): kept(records, f"{name} {level}") for level in RIVAL_LEVELS},
        }
        setting = "tint rival" if name == "luminance" else f"{name} tint"
        if setting in records[0]:
            delta, hue = colour_error(values(records, setting, "rgb"), RIVAL_TINT[0])
            found[name]["tint"] = {**spread_of(delta), "hue": spread_of(hue), "kept": kept(records, setting)}
    return found


def measure(records: Records) -> dict[str, Any]:
    """Every figure of the table, from the stored figures of the prompts."""
    clipped_free = values(records, "free", "clipped").mean()
    fixed = values(records, "fixed", "rgb")
    return {
        "prompts": len(records),
        "seeds": len(records[0]["free"]),
        "brightness": brightness(records, "luminance", [level for level in LEVELS if level != 85]),
        "by_level": {str(level): brightness(records, "luminance", [level]) for level in LEVELS},
        "exact": brightness(records, "exact", EXACT_LEVELS),
        "tint": tints(records),
        "fixed": [float(v) for v in fixed.std(0, ddof=1) / 255],
        "clipped": {
            str(level): float(values(records, f"luminance {level}", "clipped").mean() - clipped_free)
            for level in LEVELS
        },
        "kept": {str(level): kept(records, f"luminance {level}") for level in RIVAL_LEVELS},
        "directions": directions(records),
        "painted": painted(records),
        "rivals": rivals(records),
    }


Row = tuple[str, str, str, str]


def rows(figures: Mapping[str, Any]) -> list[Row]:
    """(measure, measured, target, met) of every target that this command measures."""

    def row(title: str, measured: str, target: str, met: bool) -> Row:
        return title, measured, target, "yes" if met else "**no**"

    b, e, t, d, p = (figures[key] for key in ("brightness", "exact", "tint", "directions", "painted"))
    most_clipped = max(figures["clipped"][str(level)] for level in LEVELS if 15 <= level <= 60)
    worst = min(one["kept"]["subject"] for one in d["by_direction"].values())
    return [
        row(
            "mean brightness, 10 to 90 %, one run",
            f"median {b['median']:.2f}, 90th percentile {b['p90']:.2f} points, rank correlation {b['rank']:.4f}",
            "≤ 1.0, ≤ 3, ≥ 0.99",
            b["median"] <= 1 and b["p90"] <= 3 and b["rank"] >= 0.99,
        ),
        row(
            "the same with `--exact`",
            f"median {e['median']:.2f}, 90th percentile {e['p90']:.2f} points",
            "≤ 0.3, ≤ 1.0",
            e["median"] <= 0.3 and e["p90"] <= 1,
        ),
        row(
            "tint at strength 1",
            f"ΔE00 median {t['median']:.2f}, 90th percentile {t['p90']:.2f}; hue median {t['hue']['median']:.1f}°",
            "≤ 3, ≤ 6, ≤ 8°",
            t["median"] <= 3 and t["p90"] <= 6 and t["hue"]["median"] <= 8,
        ),
        row(
            "one prompt, 16 seeds, brightness and tint: deviation of the mean colour",
            ", ".join(f"{v:.4f}" for v in figures["fixed"]),
            "≤ 0.02 per channel",
            max(figures["fixed"]) <= 0.02,
        ),
        row(
            "clipped pixels at 15 to 60 %, over the free run",
            f"{100 * most_clipped:+.1f} points at most; at 85 % {100 * figures['clipped']['85']:+.1f}",
            "≤ +10 points",
            most_clipped <= 0.1,
        ),
        *(
            row(
                f"subject kept at {level} %; CLIP score over the free run's",
                f"{one['subject']:.1%}; {one['clip']:+.2f} "
                f"({one['clip_interval'][0]:+.2f} … {one['clip_interval'][1]:+.2f})",
                "≥ 92 %",
                one["subject"] >= 0.92,
            )
            for level, one in figures["kept"].items()
        ),
        row(
            "left- against right-lit: sign, median difference of L*(left - right)",
            f"{d['pair']['right']:.1%}, {d['pair']['median']:.1f} points",
            "≥ 98 %, ≥ 12",
            d["pair"]["right"] >= 0.98 and d["pair"]["median"] >= 12,
        ),
        row("each direction: subject kept, the least", f"{worst:.1%}", "≥ 90 %", worst >= 0.9),
        row(
            "painted layout: median correlation of 4 × 4 luminance",
            f"{p['painted']:.2f} (free run {p['free']:.2f})",
            "≥ 0.9",
            p["painted"] >= 0.9,
        ),
    ]
