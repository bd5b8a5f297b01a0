"""Processes that die while Jittor compiles operators in several threads, with its graph kept to one of them and without.

    python -m benchmarks.compiling --processes 150

A process makes sixty convolutions of one picture, for each of which Jittor puts oneDNN's operator in the place of loops
while it compiles. Of either kind two run side by side. The compiled operators stay in the cache, so that all but the
first processes spend their time with the graph.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console

from benchmarks import measure, report
from cpanet import runtime

GUARDED, UNGUARDED = "one thread at a time", "as Jittor does it"
SIDE_BY_SIDE = 2
CONVOLUTIONS = """
import numpy as np
from cpanet.runtime import jt, prepare
prepare("cpu")
{before}
def drawn(*shape):
    return jt.array(np.random.default_rng(0).random(shape, np.float32))
x, weight = drawn(1, 4, 40, 40), drawn(4, 4, 3, 3)
jt.sync([jt.nn.conv2d(x, weight, None, s, p, d) for s in (1, 2, 3, 4) for p in range(5) for d in (1, 2, 3)])
"""
UNGUARD = """
import ctypes, jittor_core
ctypes.c_void_p.in_dll(ctypes.CDLL(jittor_core.__file__), "_ZN6jittor15do_compile_hookE").value = None
"""


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="benchmarks.compiling", description=__doc__.splitlines()[0])
    options.add_argument("--processes", type=int, default=150, help="of either kind")
    options.add_argument("--out", help="JSON file (default: benchmarks/results/)")
    return options.parse_args()


def ends(processes: int, before: str = "") -> list[tuple[int, str]]:
    """Exit status and standard error of each of ``processes`` that compile convolutions after the code ``before``."""

    def one(_: int) -> tuple[int, str]:
        code = CONVOLUTIONS.format(before=before)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
        return done.returncode, done.stderr

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(pool.map(one, range(processes)))


def measured(_: None, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record."""
    runtime.prepare("cpu")
    died = {}
    for kind, before in ((GUARDED, ""), (UNGUARDED, UNGUARD)):
        died[kind] = [error.strip()[-200:] for status, error in ends(options.processes, before) if status]
    return {**measure.header("compiling", "cpu"), "processes": options.processes, "died": died}


def shown(record: dict[str, Any], console: Console) -> None:
    """How many died of either kind."""
    for kind, errors in record["died"].items():
        console.print(f"{kind}: {len(errors)} of {record['processes']} processes died")


if __name__ == "__main__":
    sys.exit(report.run("compiling", arguments(), measured, shown))
