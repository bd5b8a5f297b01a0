"""Loading: training steps on freshly augmented episodes against the same steps on one batch for ever.

    python -m benchmarks.loading --workers 2 --threads 2

The data's cost is the steps' extra time. Both run on the project's own loop, in turns, each in a process of
its own.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import measure, report
from benchmarks.workload import Workload, parser


def arguments() -> argparse.Namespace:
    options = parser("Time training steps with and without loading.", "benchmarks.loading")
    options.add_argument("--workers", type=int, default=2, help="processes that prepare batches")
    options.add_argument("--rounds", type=int, default=3, help="processes of either kind")
    options.add_argument("--repeats", type=int, default=10, help="timed steps in a process")
    options.add_argument("--warmup", type=int, default=3, help="steps before the timed ones")
    return options.parse_args()


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: timings of both kinds in turns."""
    record = {
        **measure.header("loading", asked.device),
        "workload": asked.asdict(),
        "workers": options.workers,
    }
    kinds: dict[str, int | None] = {"one batch": None, "loaded": options.workers}
    sides = {name: measure.Side() for name in kinds}
    with console.status("") as status:
        for number in range(options.rounds):
            for name, workers in kinds.items():
                status.update(f"round {number + 1} of {options.rounds}: {name}")
                steps = {"warmup": options.warmup, "repeats": options.repeats, "workers": workers}
                sides[name].add(measure.run("project", "steps", asked, **steps))
    record["sides"] = {name: side.asdict() for name, side in sides.items()}
    record["ratio"] = sides["loaded"].summary.median / sides["one batch"].summary.median
    return record


def shown(record: dict[str, Any], console: Console) -> None:
    """Both kinds, and one over the other."""
    made = Table("training step", "median", "minimum", "spread")
    for name, side in record["sides"].items():
        times = side["summary_seconds"]
        made.add_row(name, *(f"{times[key]:.3f} s" for key in ("median", "minimum", "spread")))
    made.add_row("loaded ÷ one batch", f"{record['ratio']:.3f}")
    console.print(made)


def main() -> int:
    return report.run("loading", arguments(), measured, shown)


if __name__ == "__main__":
    sys.exit(main())
