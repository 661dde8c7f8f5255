"""A work folder's loss curves as a picture: `python -m oms_app.training.curves WORK PICTURE`"""

from __future__ import annotations

import json
import sys
from pathlib import Path

STAGES = ("autoencoder", "unet", "decoder", "oms")


def read(work: Path) -> dict[str, list[tuple[float, float]]]:
    """Stage → (minutes, loss), of the stages whose curve is in the work folder."""
    curves = {}
    for stage in STAGES:
        path = work / f"{stage}.json"
        if path.exists():
            curves[stage] = [(minutes, loss) for _, minutes, loss in json.loads(path.read_text())["loss"]]
    return curves


def draw(work: Path, picture: Path) -> None:
    """One panel per stage, loss against minutes of training. Raises ValueError if the folder contains no curve."""
    from matplotlib.figure import Figure

    curves = read(work)
    if not curves:
        raise ValueError(f"{work} contains no loss curve: train first")
    figure = Figure(figsize=(4.2 * len(curves), 3.2), layout="constrained")
    for panel, (stage, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        panel.plot(*zip(*points, strict=True), linewidth=1.0)
        panel.set_title(stage)
        panel.set_xlabel("minutes")
        panel.set_ylabel("loss, mean of 50 steps")
        panel.set_yscale("log")
        panel.grid(alpha=0.3, which="both")
    figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
