"""Plots of evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from oms_app.evaluate.pictures import EvalSamples

BINS = 32


def plot_mean_frequencies(samples: EvalSamples, path: Path) -> Path:
    """Frequencies of the pictures' means on a logarithmic scale (OMS paper, Fig. 6), as a PNG at `path`."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 255, BINS + 1)
    for name, means in {"scenes": samples.scene_means.ravel(), **samples.means}.items():
        share = np.histogram(means, edges)[0] / len(means)
        steps = axes.stairs(share, edges, label=name, linewidth=1.5, fill=name == "scenes")
        if name == "scenes":
            steps.set(color="0.75", zorder=0)
    axes.set(yscale="log", xlim=(0, 255), xlabel="mean of all RGB values", ylabel="share of pictures")
    axes.legend(ncols=2, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
