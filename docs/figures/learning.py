"""Draw learning curves, a panel a fold: ``python docs/figures/learning.py FILE LABEL=SWEEP_DIR [LABEL=SWEEP_DIR …]``.

mIoU on the test classes over iterations: a line a seed, the untrained network at iteration 0, and dashed the training-free
baseline on the same episodes. Runs of a directory that are not completed are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cpanet.records.result_file import read_result, read_rows

COLOURS = ("#1b6ca8", "#c44e52", "#55a868", "#8172b2", "#937860")


def runs(directory: Path) -> list[tuple[dict[str, Any], list[tuple[float, float]]]]:
    """Result and curve (iteration, mIoU in percent) of every completed run below ``directory``."""
    found = []
    for path in sorted(directory.rglob("result.json")):
        result = read_result(path.parent) or {}
        if result["status"] == "completed" and result["floor"]:
            rows = read_rows(path.parent, "metrics.csv") or []
            curve = [(float(row["iteration"]), 100 * float(row["miou"])) for row in rows]
            found.append((result, curve))
    return found


def draw(sweeps: dict[str, Path], target: Path) -> None:
    """One figure of all sweeps, by label."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "cpanet"
    by_label = {label: runs(directory) for label, directory in sweeps.items()}
    folds = sorted({result["config"]["fold"] for found in by_label.values() for result, _ in found})
    figure, axes = pyplot.subplots(
        1,
        len(folds),
        figsize=(max(6.4, 2.8 * len(folds)), 3.1),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, fold in zip(axes[0], folds):
        for colour, (label, found) in zip(COLOURS, by_label.items()):
            for number, (_, curve) in enumerate(
                (result, curve) for result, curve in found if result["config"]["fold"] == fold
            ):
                name = label if number == 0 else None
                axis.plot(*zip(*curve), color=colour, marker="o", markersize=3, linewidth=1.2, label=name)
        here = [
            result for found in by_label.values() for result, _ in found if result["config"]["fold"] == fold
        ]
        baseline = 100 * here[0]["floor"]["miou"]
        axis.axhline(baseline, color="#444444", linestyle="--", linewidth=1, label="training-free baseline")
        axis.set(title=f"fold {fold}", xlabel="iteration")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set(ylabel="mIoU, %", ylim=(0, None))
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=2 if len(folds) < 3 else 4,
        frameon=False,
        fontsize=8,
    )
    figure.savefig(target, dpi=110, metadata={"Date": None} if target.suffix == ".svg" else None)


if __name__ == "__main__":
    labelled = dict(argument.split("=", 1) for argument in sys.argv[2:])
    draw({label: Path(directory) for label, directory in labelled.items()}, Path(sys.argv[1]))
