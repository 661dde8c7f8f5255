"""Plots of evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from oms_app.evaluate.pictures import Seen

BINS = 32


def log_frequencies(seen: Seen, path: Path) -> Path:
    """How often which mean of a picture comes, on a logarithmic scale (OMS paper, Fig. 6), as a PNG at `path`."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 255, BINS + 1)
    for name, means in {"scenes": seen.scene_means.ravel(), **seen.means}.items():
        share = np.histogram(means, edges)[0] / len(means)
        drawn = axes.stairs(share, edges, label=name, linewidth=1.5, fill=name == "scenes")
        if name == "scenes":
            drawn.set(color="0.75", zorder=0)
    axes.set(yscale="log", xlim=(0, 255), xlabel="mean of all RGB values", ylabel="share of pictures")
    axes.legend(ncols=2, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
