"""Compare loss curves at every precision that the device offers with fp32.

    python -m benchmarks.precision --steps 100

The same network, weights, episodes and order of steps; each curve in a process of its own. A CPU offers float32 alone: there
the second fp32 curve shows what two runs of the same command differ by.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import measure, report
from benchmarks.workload import Workload, parser
from cpanet.runtime.precision import offered

WINDOW = 10  # steps that a curve is averaged over: single steps scatter with their episodes


def arguments() -> argparse.Namespace:
    options = parser("precision", __doc__)
    options.set_defaults(size=96, width=64)
    options.add_argument("--steps", type=int, default=100)
    return options.parse_args()


def smoothed(losses: list[float]) -> np.ndarray:
    """Means over :data:`WINDOW` steps; over all of them where there are fewer."""
    width = min(WINDOW, len(losses))
    return np.convolve(losses, np.full(width, 1 / width), mode="valid")


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: a curve a precision, and its distance from the one in fp32."""
    record = {**measure.header("precision", asked.device, asked), "steps": options.steps}
    curves: dict[str, list[float]] = {}
    for name in (*offered(asked.device), "fp32 again"):
        with console.status(name):
            job = measure.run("project", "losses", asked, steps=options.steps, precision=name.split()[0])
        curves[name] = job["losses"]
    reference = smoothed(curves["fp32"])
    distance = {name: float(np.abs(smoothed(losses) - reference).max()) for name, losses in curves.items()}
    return {**record, "losses": curves, "largest_distance": distance}


def shown(record: dict[str, Any], console: Console) -> None:
    """First and last smoothed loss, and the largest distance from fp32 in between."""
    made = Table("precision", "first", "last", "largest distance from fp32")
    for name, losses in record["losses"].items():
        curve = smoothed(losses)
        made.add_row(name, f"{curve[0]:.4f}", f"{curve[-1]:.4f}", f"{record['largest_distance'][name]:.2e}")
    console.print(f"main loss, means of {WINDOW} steps")
    console.print(made)


if __name__ == "__main__":
    sys.exit(report.run("precision", arguments(), measured, shown))
