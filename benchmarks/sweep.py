"""A sweep: several quick runs in one process against the same runs in a process each.

python -m benchmarks.sweep                          8 seeds of a quick run
python -m benchmarks.sweep --runs 2 profile=tiny    fewer, smaller
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.startup import DEFAULT, timed
from cpanet import runtime
from cpanet.errors import UserError


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", description="Time a sweep in one process and in several."
    )
    options.add_argument("overrides", nargs="*", help=f"for run.py; default: {' '.join(DEFAULT)}")
    options.add_argument("--runs", type=int, default=8, help="seeds 0, 1, …")
    options.add_argument("--out", metavar="FILE", help="where the JSON goes")
    return options.parse_args()


def together(overrides: list[str], runs: int) -> float:
    """Seconds of ``run.py -m seed=0,1,…``."""
    seeds = ",".join(map(str, range(runs)))
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
        return timed(
            [sys.executable, "run.py", "-m", *overrides, f"seed={seeds}", f"hydra.sweep.dir={folder}"]
        )


def apart(overrides: list[str], runs: int) -> list[float]:
    """Seconds of each of the same runs as a command of its own."""
    seconds = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
            command = [sys.executable, "run.py", *overrides, f"seed={seed}", f"hydra.run.dir={folder}/run"]
            seconds.append(timed(command))
    return seconds


def main() -> int:
    options, console = arguments(), Console()
    overrides = options.overrides or list(DEFAULT)
    try:
        with console.status("") as status:
            status.update("warming the caches")
            apart(overrides, 1)
            status.update(f"{options.runs} runs in one process")
            one = together(overrides, options.runs)
            status.update(f"{options.runs} runs in {options.runs} processes")
            each = apart(overrides, options.runs)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    record = {
        **measure.header("sweep", "cpu"),
        "overrides": overrides,
        "versions": runtime.versions(),
        "one_process_seconds": one,
        "separate_seconds": each,
        "ratio": one / sum(each),
    }
    console.print(" ".join(["run.py", *record["overrides"]]), highlight=False)
    console.print(table(record))
    console.print(f"Written to {measure.write('sweep', record, options.out)}")
    return 0


def table(record: dict[str, Any]) -> Table:
    """Both ways, and one over the other."""
    each = record["separate_seconds"]
    made = Table(f"{len(each)} runs", "seconds")
    made.columns[1].justify = "right"
    made.add_row("in one process", f"{record['one_process_seconds']:.1f}")
    made.add_row("in a process each", f"{sum(each):.1f}")
    made.add_row("one process ÷ separate", f"{record['ratio']:.2f}")
    return made


if __name__ == "__main__":
    sys.exit(main())
