"""Time a run's start: from typing a training command to its first iteration, and what that time is spent on.

    python -m benchmarks.startup                  with the caches as they are
    python -m benchmarks.startup --cold           also the first start ever, in an empty cache (minutes)
    python -m benchmarks.startup profile=tiny     other overrides for run.py

The first iteration is over at the time that the run itself writes into its TensorBoard events. Imports are
timed each in a Python of its own, less a Python that imports nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import measure, report
from benchmarks.workload import run_parser
from cpanet import runtime
from cpanet.errors import UserError

ONE_ITERATION = ("train.epochs=1", "train.iterations_per_epoch=1", "evaluate.episodes=4", "log.overlays=0")
DEFAULT = ("profile=quick", "data=embedded", "device=cpu")
IMPORTS = {
    "bare Python": "pass",
    "numpy": "import numpy",
    "hydra": "import hydra",
    "cv2": "import cv2",
    "tensorboardX": "import tensorboardX",
    "jittor, prepared": "from cpanet import runtime; runtime.prepare('cpu')",
    "all of a run": "from cpanet import runtime; runtime.prepare('cpu'); import cpanet.tasks.train",
}


def arguments() -> argparse.Namespace:
    options = run_parser("startup", __doc__, f"for run.py; default: {' '.join(DEFAULT)}")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--cold", action="store_true", help="also in an empty cache: compiles everything")
    return options.parse_args()


def timed(command: list[str], environment: Mapping[str, str] | None = None) -> float:
    """Seconds that a process takes; UserError where it fails."""
    begin = time.time()
    done = subprocess.run(command, cwd=measure.ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-3000:].strip()}")
    return time.time() - begin


def to_first_iteration(overrides: list[str], environment: Mapping[str, str] | None = None) -> float:
    """Seconds from starting ``run.py`` to the end of its first iteration."""
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
        command = [sys.executable, "run.py", *overrides, *ONE_ITERATION, f"hydra.run.dir={folder}/run"]
        begin = time.time()
        timed(command, environment)
        losses = measure.scalars(Path(folder, "run"), "train/loss")
    if not losses:
        raise UserError("The run wrote no training loss: it did not come to its first iteration.")
    return float(losses[0].wall_time) - begin


def imports(rounds: int) -> dict[str, float]:
    """Median seconds of each import, each in a new process, less the bare interpreter's."""
    found = {
        name: statistics.median(timed([sys.executable, "-c", code]) for _ in range(rounds))
        for name, code in IMPORTS.items()
    }
    return {name: t if name == "bare Python" else t - found["bare Python"] for name, t in found.items()}


def cold(overrides: list[str]) -> dict[str, float]:
    """Seconds in an empty cache: Jittor's core, then the run with its operators, then the same run again."""
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as home:
        empty = {**os.environ, "JITTOR_HOME": home}  # of the processes started here, not of this one
        core = timed([sys.executable, "-c", IMPORTS["jittor, prepared"]], empty)
        first, again = (to_first_iteration(overrides, empty) for _ in range(2))
    return {"core": core, "to first iteration": first, "the same again": again, "operators": first - again}


def measured(_: None, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: imports, the first iteration with warm caches, and where asked for with empty ones."""
    overrides = options.overrides or list(DEFAULT)
    with console.status("") as status:
        status.update("imports")
        found: dict[str, Any] = {"imports_seconds": imports(options.rounds)}
        status.update("to the first iteration")
        to_first_iteration(overrides)  # caches warm: the data set drawn, the operators compiled
        warm = [to_first_iteration(overrides) for _ in range(options.rounds)]
        found["to_first_iteration_seconds"] = {**measure.summary(warm), "all": warm}
        if options.cold:
            status.update("in an empty cache")
            found["cold_seconds"] = cold(overrides)
    return {
        **measure.header("startup", "cpu"),
        "overrides": [*overrides, *ONE_ITERATION],
        "versions": runtime.versions(),
        "torch_installed": importlib.util.find_spec("torch") is not None,
        **found,
    }


def shown(record: dict[str, Any], console: Console) -> None:
    """A row a part."""
    table = report.numbers("part", "seconds")
    for name, seconds in record["imports_seconds"].items():
        table.add_row(f"import: {name}", f"{seconds:.2f}")
    for which in ("median", "minimum"):
        seconds = record["to_first_iteration_seconds"][which]
        table.add_row(f"command → first iteration, {which}", f"{seconds:.2f}")
    for name, seconds in record.get("cold_seconds", {}).items():
        table.add_row(f"empty cache: {name}", f"{seconds:.1f}")
    console.print(" ".join(["run.py", *record["overrides"]]))
    console.print(table)
    if record["torch_installed"]:
        console.print("PyTorch is installed here: tensorboardX imports it, which costs runs here alone.")


if __name__ == "__main__":
    sys.exit(report.run("startup", arguments(), measured, shown))
