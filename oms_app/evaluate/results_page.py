"""The sections of docs/results.md as text, from measured figures: `evaluate report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Sequence[object]
MEASURES = ("fid", "clip_score", "precision", "recall", "density", "coverage")
TITLES = ("FID ↓", "CLIP score ↑", "precision ↑", "recall ↑", "density ↑", "coverage ↑")
LOWER_IS_BETTER = {"wasserstein", "fid"}
# OMS paper, Table 2: 10,000 captions of COCO, features of Inception and CLIP.
PAPER = (
    ("SD1.5, raw", 12.52, 0.2641, 0.60, 0.55, 0.56, 0.54, 22.47),
    ("SD1.5, OMS", 14.74, 0.2645, 0.64, 0.46, 0.64, 0.57, 7.84),
    ("SD2.1, raw", 14.10, 0.2624, 0.58, 0.55, 0.52, 0.50, 21.63),
    ("SD2.1, OMS", 15.72, 0.2628, 0.61, 0.48, 0.58, 0.54, 7.70),
    ("SDXL, raw", 13.14, 0.2669, 0.64, 0.52, 0.67, 0.63, 11.08),
    ("SDXL, OMS", 13.29, 0.2679, 0.65, 0.49, 0.70, 0.64, 7.25),
)


def table(titles: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def section_of(page: str, heading: str) -> str:
    """The section of a page under a heading such as "## Dials", or "" if it has none."""
    _, found, rest = f"\n{page}".partition(f"\n{heading}\n")
    return f"{heading}\n" + rest.split("\n## ")[0].rstrip("\n") + "\n" if found else ""


def with_section(page: str, text: str) -> str:
    """A page with a section in place of the one with the same heading; at the end if there was none."""
    before = section_of(page, text.split("\n")[0])
    return page.replace(before, text) if before else page.rstrip("\n") + "\n\n" + text


def with_interval(value: float, interval: Sequence[float], digits: int = 2) -> str:
    """`25.80 (23.20 … 28.40)`"""
    return f"{value:.{digits}f} ({interval[0]:.{digits}f} … {interval[1]:.{digits}f})"


def met(yes: bool) -> str:
    return "yes" if yes else "**no**"


def head(command: str, captions: int, torch_version: str, cores: int, device: str) -> str:
    return f"""# Results

Written by `python -m oms_app {command}`, which measures every figure again: {captions} held-out captions, Lumen as
shipped, defaults (20 steps, DDIM, trailing spacing, CFG 5, 256 px, float32), {cores} CPU cores, device {device}, torch
{torch_version}. Each table names the command that measures it alone. Intervals are at 95 %. Earlier experiments are recorded
in dev/LOG.md.
"""


def light(solids: Mapping[str, Any], seeds: int, words: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    def span(one: Mapping[str, float]) -> str:
        return f"{one['average']:.1f} ({one['least']:.1f} … {one['greatest']:.1f})"

    black, white = (solids[f"solid {colour} background"] for colour in ("black", "white"))
    solid_rows = [
        ("black, raw", span(black["raw"]), "", ""),
        ("black, OMS CFG 1", span(black["oms CFG 1"]), "average ≤ 25", met(black["oms CFG 1"]["average"] <= 25)),
        ("black, OMS CFG 2", span(black["oms CFG 2"]), "every seed ≤ 8", met(black["oms CFG 2"]["greatest"] <= 8)),
        ("white, raw", span(white["raw"]), "", ""),
        ("white, OMS CFG 1", span(white["oms CFG 1"]), "average ≥ 230", met(white["oms CFG 1"]["average"] >= 230)),
        ("white, OMS CFG 2", span(white["oms CFG 2"]), "every seed ≥ 247", met(white["oms CFG 2"]["least"] >= 247)),
    ]
    order, falls, mean = words["dark < main < light"], words["OMS CFG 1 → 2 → 3 darkens"], words["mean"]
    word_rows = [
        (
            'OMS prompt "dark" < the main prompt < "light" in the mean, same seed',
            f"{order:.1%} (means {mean['dark 1']}, {mean['main']}, {mean['light']})",
            "≥ 95 %",
            met(order >= 0.95),
        ),
        (
            'OMS CFG 1 → 2 → 3 with "dark": the mean falls, or is ≤ 8 already',
            f"{falls:.1%} (means {mean['dark 1']}, {mean['dark 2']}, {mean['dark 3']})",
            "≥ 90 %",
            met(falls >= 0.9),
        ),
    ]
    w, ratio, spread = figures["wasserstein"], figures["ratio"]["oms"], figures["interval"]
    distance_rows = [
        ("W_raw", with_interval(w["raw"], spread["wasserstein"]["raw"], 1), "15 to 45", met(15 <= w["raw"] <= 45)),
        ("W_oms", with_interval(w["oms"], spread["wasserstein"]["oms"], 1), "", ""),
        ("floor: scenes against scenes", f"{figures['floor']:.1f}", "", ""),
        ("(W_oms - floor)/(W_raw - floor)", with_interval(ratio, spread["ratio"]["oms"]), "≤ 0.35", met(ratio <= 0.35)),
    ]
    means = figures["mean"]
    return f"""## Light

`python -m oms_app.evaluate.solid`, "solid black background" and "solid white background", means of all RGB values, average (least …
greatest) of seeds 0 to {seeds - 1}:

{table(("prompt", "measured", "target", "met"), solid_rows)}
`python -m oms_app.evaluate.light_words`, prompts that do not mention light × seeds, n = {words["n"]}:

{table(("measure", "measured", "target", "met"), word_rows)}
`python -m oms_app evaluate luminance --captions {figures["n"]}`, Wasserstein distance of the pictures' means from those of the
scenes of the same captions, seed {figures["seed"]}; means of scenes {means["scenes"]:.1f}, raw {means["raw"]:.1f}, OMS
{means["oms"]:.1f}. The paper's ratio for SD1.5 is 7.84/22.47 = 0.35:

{table(("measure", "measured", "target", "met"), distance_rows)}"""


def sharpness(figures: Mapping[str, Any], target: tuple[float, float]) -> str:
    least, most = target
    rows = [
        (
            f"{kind}, {how}",
            f"{figures[kind][key]:.2f}",
            f"{least:.2f} to {most:.2f}",
            met(least <= figures[kind][key] <= most),
        )
        for kind in ("all", "landscapes")
        if kind in figures
        for key, how in (("sharp", "as they are"), ("blurred", "blurred by 4 pixels"))
    ]
    return f"""## Sharpness

`python -m oms_app.evaluate.sharpness`, gradient energy of OMS pictures over that of scenes of the same {figures["n"]} captions,
{figures["landscapes_n"]} of them landscapes; below 1 is too soft, above 1 has edges or noise that scenes have not:

{table(("pictures", "measured", "target", "met"), rows)}"""


def words(figures: Mapping[str, Any], predictions: Mapping[str, float]) -> str:
    right, n = figures["right"], figures["n"]
    named = (
        ("background colour: median of the border within ΔE 20 (CIE76)", "background colour", 0.9),
        ("subject, shapes and figures", "shape or figure subject", 0.85),
        ("subject, landscapes", "scene subject", 0.85),
    )
    rows = [
        (
            title,
            f"{right[f'{key}, raw']:.1%}",
            f"{right[f'{key}, oms']:.1%}",
            f"≥ {target:.0%}",
            met(right[f"{key}, oms"] >= target),
        )
        for title, key, target in named
    ]
    return f"""## Words

`python -m oms_app.evaluate.fidelity`, {n} prompts like "a red circle on a blue background", {n} like "mountains at night", picture i
with seed i; the subject is recognised by a classifier trained on scenes, independent of the base model, which is right for
{figures["classifier"]["accuracy"]:.1%} of {figures["classifier"]["n"]} unseen scenes:

{table(("measure", "raw", "OMS CFG 1", "target (OMS)", "met"), rows)}
In the decoded x̂0 of OMS, {predictions["right"]:.0%} of the borders are within ΔE 20 of the named colour (median {predictions["median"]}, greatest
{predictions["greatest"]}; `python -m oms_app.evaluate.fidelity --predictions`): the base model, which also depends on the noise, loses the
rest.
"""


def methods(
    figures: Mapping[str, Any],
    good: Mapping[str, Any],
    against_oms: Mapping[str, Mapping[str, Any]],
    clip: Mapping[str, Any],
) -> str:
    names, spread = list(figures["wasserstein"]), figures["interval"]
    distances = [
        (
            name,
            with_interval(figures["wasserstein"][name], spread["wasserstein"][name], 1),
            with_interval(figures["ratio"][name], spread["ratio"][name]) if name in figures["ratio"] else "1",
            f"{figures['mean'][name]:.1f}",
        )
        for name in names
    ]
    distances.append(("scenes (the floor)", f"{figures['floor']:.1f}", "0", f"{figures['mean']['scenes']:.1f}"))
    listed = ",".join(names)
    return f"""## All corrections, side by side

One base model, the same captions and noise, n = {figures["n"]}, seed {figures["seed"]}, each correction with its defaults.
`python -m oms_app evaluate luminance --captions {figures["n"]} --variants {listed}`:

{table(("method", "W ↓", "ratio ↓", "mean"), distances)}
`python -m oms_app evaluate quality --captions {figures["n"]} --variants {listed}`; features and CLIP score by a small CLIP trained on
scenes, independent of the base model (it picks the right one of {clip["of"]} captions for {clip["accuracy"]:.1%} of {clip["n"]} unseen scenes), so the
figures cannot be compared with those of papers; the last row compares another scene of each caption with the same reference:

{quality_table(good["figures"])}
{verdict(good, against_oms)}
Frequencies of the means (as Fig. 6 of the paper; `evaluate quality --plot FILE`):

![log-frequency of means](pictures/means.png)
"""


def quality_table(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    digits = {"fid": 3, "clip_score": 1}
    rows = [
        (name, *(with_interval(one[m]["value"], one[m]["interval"], digits.get(m, 2)) for m in MEASURES))
        for name, one in figures.items()
    ]
    return table(("method", *TITLES), rows)


def compare(figure: Mapping[str, Any], measure: str) -> int:
    """1 if the interval of a difference says better, -1 for worse, 0 for neither."""
    low, high = figure["interval"]
    sign = 1 if low > 0 else -1 if high < 0 else 0
    return -sign if measure in LOWER_IS_BETTER else sign


def verdict(good: Mapping[str, Any], against_oms: Mapping[str, Mapping[str, Any]]) -> str:
    """OMS compared with raw, and every other method with OMS, in words, by the intervals of the differences."""
    raw = good["minus_raw"]["oms"]
    kind = {1: "favours OMS", 0: "includes 0", -1: "**favours raw**"}
    lines = [
        f"- OMS minus raw: CLIP score {_signed(raw['clip_score'], 2)}, which {kind[compare(raw['clip_score'], 'clip_score')]}; "
        f"coverage {_signed(raw['coverage'], 3)}, which {kind[compare(raw['coverage'], 'coverage')]}."
    ]
    for name, light_difference in against_oms.items():
        figures = {"wasserstein": light_difference, **good["minus_oms"][name]}
        better = [_title(m) for m, figure in figures.items() if compare(figure, m) > 0]
        worse = [_title(m) for m, figure in figures.items() if compare(figure, m) < 0]
        equal = [_title(m) for m, figure in figures.items() if compare(figure, m) == 0]
        parts = [
            f"{verdict_text} {', '.join(titles)}"
            for verdict_text, titles in (
                ("**better** in", better),
                ("worse in", worse),
                ("no clear difference in", equal),
            )
            if titles
        ]
        lines.append(f"- {name} compared with OMS: {'; '.join(parts)}.")
    return "\n".join(lines) + "\n"


def _title(measure: str) -> str:
    return "light (W)" if measure == "wasserstein" else dict(zip(MEASURES, TITLES, strict=True))[measure][:-2]


def _signed(figure: Mapping[str, Any], digits: int) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:+.{digits}f} ({low:+.{digits}f} … {high:+.{digits}f})"


def table2(model: str, figures: Mapping[str, Any], good: Mapping[str, Any]) -> str:
    rows: list[Row] = [
        (
            f"{model}, {title}",
            *(f"{good['figures'][name][m]['value']:.{3 if m == 'fid' else 2}f}" for m in MEASURES),
            f"{figures['wasserstein'][name]:.2f}",
        )
        for name, title in (("raw", "raw"), ("oms", "OMS"))
    ]
    rows += PAPER
    return f"""## Table 2 of the paper

Our figures (n = {figures["n"]}, seed {figures["seed"]}; intervals above) and those of the paper (10,000 captions of COCO). The features differ, so only
the direction from raw to OMS can be compared:

{table(("model", *TITLES, "Wasserstein ↓"), rows)}"""


def sweeps() -> str:
    return """## Sweeps

Each row has one prompt and one seed; raw comes first. OMS CFG with the OMS prompt "dark" (CFG 0 is the unconditional prediction):

![OMS CFG](pictures/sweep_cfg.png)

OMS prompts at OMS CFG 1 (as Fig. 7 of the paper):

![OMS prompts](pictures/sweep_prompts.png)
"""


def times(pair: Mapping[str, Any], first_page: float, runs: int, starts: int) -> str:
    ratio, share, seconds = pair["ratio"], pair["share"], pair["seconds"]
    rows = [
        (
            "pair against two stock calls (raw; then x̃_T as latents), encode to decode, caches cold",
            f"{ratio:.2f} × ({seconds['pair']:.2f} s against {seconds['two_stock_calls']:.2f} s), median of {runs} interleaved runs",
            "≤ 1.05 ×",
            met(ratio <= 1.05),
            "`python -m oms_app bench pair`",
        ),
        *(
            (
                f"OMS step's share of a raw run, OMS CFG {w}",
                f"{share[f'cfg_{w}']:.1%}",
                "≤ 5 %",
                met(share[f"cfg_{w}"] <= 0.05),
                "the same",
            )
            for w in (1, 2)
        ),
        (
            "first page from `python app.py`, warm disk",
            f"{first_page:.2f} s, median of {starts}",
            "≤ 15 s",
            met(first_page <= 15),
            "`python -m oms_app.bench.first_page`",
        ),
    ]
    return f"""## Time

{table(("measure", "measured", "target", "met", "command"), rows)}"""


def flaw(inspected: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    paper = {"cosine": "3.0518e-05", "linear": "6.0119e-03", "LDM pixels": "6.8893e-01", "LDM latents": "3.4447e-02"}
    lines = [
        (row["schedule"], f"{row['snr']:.3e}", f"{row['radius_gap']:.4e}", paper.get(str(row["schedule"]), ""))
        for row in rows
    ]
    return f"""## The flaw

`python -m oms_app inspect`: ᾱ_T = {inspected["alpha_bar_T"]:.4e}, SNR(T) = {inspected["terminal_snr"]:.3e}, first timestep
{inspected["first_timestep"]}, radii {inspected["radius_training"]:.4f} (training) and {inspected["radius_sampling"]:.4f} (sampling).

`python -m oms_app inspect --table`, Table 1 of the paper in closed form:

{table(("schedule", "SNR(T)", "r_S - r_T", "the paper's (sampled)"), lines)}"""
