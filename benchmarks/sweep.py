"""Time a sweep: the rows of a table in one process against the same runs in a process each.

python -m benchmarks.sweep                              the 8 combinations of the modules, quick runs
python -m benchmarks.sweep --rows cpp,full profile=tiny fewer, smaller
python -m benchmarks.sweep --axis seed --rows 0,1,2     runs that share less
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

from rich.console import Console

from benchmarks import measure, report
from benchmarks.startup import DEFAULT, ONE_ITERATION, timed
from benchmarks.workload import run_parser
from cpanet import runtime

MODULES = ("none", "cpp", "sa", "ssa", "cpp_sa", "sa_ssa", "cpp_ssa", "full")


def arguments() -> argparse.Namespace:
    options = run_parser("sweep", __doc__, f"for run.py; default: {' '.join(DEFAULT)}")
    options.add_argument("--axis", default="ablation", help="what varies from run to run")
    options.add_argument("--rows", default=",".join(MODULES), metavar="A,B,…", help="the values it takes")
    return options.parse_args()


def together(overrides: list[str], axis: str, rows: list[str]) -> float:
    """Seconds of ``run.py -m AXIS=A,B,…``."""
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
        swept = f"{axis}={','.join(rows)}"
        return timed([sys.executable, "run.py", "-m", *overrides, swept, f"hydra.sweep.dir={folder}"])


def apart(overrides: list[str], axis: str, rows: list[str]) -> list[float]:
    """Seconds of each of the same runs as a command of its own."""
    seconds = []
    for row in rows:
        with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
            command = [sys.executable, "run.py", *overrides, f"{axis}={row}", f"hydra.run.dir={folder}/run"]
            seconds.append(timed(command))
    return seconds


def measured(_: None, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: the same runs in one process, and in a process each."""
    overrides, rows = options.overrides or list(DEFAULT), options.rows.split(",")
    with console.status("") as status:
        status.update("warming the caches")
        apart([*overrides, *ONE_ITERATION], options.axis, rows)  # every row has operators of its own
        status.update(f"{len(rows)} runs in one process")
        one = together(overrides, options.axis, rows)
        status.update(f"{len(rows)} runs in {len(rows)} processes")
        each = apart(overrides, options.axis, rows)
    return {
        **measure.header("sweep", "cpu"),
        "overrides": overrides,
        "axis": options.axis,
        "rows": rows,
        "versions": runtime.versions(),
        "one_process_seconds": one,
        "separate_seconds": each,
        "ratio": one / sum(each),
    }


def shown(record: dict[str, Any], console: Console) -> None:
    """Both ways, and one over the other."""
    console.print(" ".join(["run.py", *record["overrides"]]))
    each = record["separate_seconds"]
    made = report.numbers(f"{len(each)} runs", "seconds")
    made.add_row("in one process", f"{record['one_process_seconds']:.1f}")
    made.add_row("in a process each", f"{sum(each):.1f}")
    made.add_row("one process ÷ separate", f"{record['ratio']:.2f}")
    console.print(made)


if __name__ == "__main__":
    sys.exit(report.run("sweep", arguments(), measured, shown))
