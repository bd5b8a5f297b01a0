"""Time training steps on freshly augmented episodes against the same steps on one batch for ever.

    python -m benchmarks.loading --workers 2 --threads 2

The data's cost is the steps' extra time. Both run on the project's own loop, in turns, each in a process of
its own.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import measure, report
from benchmarks.workload import Workload, parser


def arguments() -> argparse.Namespace:
    options = parser("loading", __doc__)
    options.add_argument("--workers", type=int, default=2, help="processes that prepare batches")
    options.add_argument("--rounds", type=int, default=3, help="processes of either kind")
    options.add_argument("--repeats", type=int, default=10, help="timed steps in a process")
    options.add_argument("--warmup", type=int, default=3, help="steps before the timed ones")
    return options.parse_args()


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: timings of both kinds in turns."""
    record = {**measure.header("loading", asked.device, asked), "workers": options.workers}
    kinds: dict[str, int | None] = {"one batch": None, "loaded": options.workers}
    steps = {"warmup": options.warmup, "repeats": options.repeats}
    jobs = {
        name: partial(measure.run, "project", "steps", asked, workers=workers, **steps)
        for name, workers in kinds.items()
    }
    results = measure.in_turns(jobs, options.rounds, console)
    record["sides"] = sides = {name: measure.side(found) for name, found in results.items()}
    loaded, same = (sides[name]["summary_seconds"]["median"] for name in ("loaded", "one batch"))
    return {**record, "ratio": loaded / same}


def shown(record: dict[str, Any], console: Console) -> None:
    """Both kinds, and one over the other."""
    made = Table("training step", "median", "minimum", "spread")
    for name, side in record["sides"].items():
        times = side["summary_seconds"]
        made.add_row(name, *(f"{times[key]:.3f} s" for key in ("median", "minimum", "spread")))
    made.add_row("loaded ÷ one batch", f"{record['ratio']:.3f}")
    console.print(made)


if __name__ == "__main__":
    sys.exit(report.run("loading", arguments(), measured, shown))
