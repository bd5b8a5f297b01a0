"""Profile a training step of both sides: time in kernels against wall time, launches, copies, waits.

    python -m benchmarks.profile --device cuda --precision tf32

Wall time is measured without a profiler, the rest by PyTorch's profiler, on CUDA for both sides, and by Jittor's for the
operators of the project. Where a tool cannot be had its part is null, with the reason beside it.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any, Callable

from rich.console import Console
from rich.table import Table

from benchmarks import measure, report
from benchmarks.profiler import OPERATORS, TRACE
from benchmarks.workload import Workload, parser
from cpanet.errors import UserError

BUSY = 0.9  # of the wall time: a step waits for a GPU that computes as much of it


def arguments() -> argparse.Namespace:
    options = parser("profile", __doc__, precisions=True)
    options.add_argument("--steps", type=int, default=5, help="profiled steps")
    options.add_argument("--warmup", type=int, default=3, help="steps before them")
    alone = "on a CPU: the project alone, with the operators it uses on CUDA"
    options.add_argument("--as-on-cuda", action="store_true", help=alone)
    return options.parse_args()


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: a profile of each side by each tool that can be had, and what bounds it."""
    record = measure.header("profile", asked.device, asked)
    # PyTorch's profiler sees what a driver tells it: of Jittor nothing on a CPU
    tools = {"project": [OPERATORS, TRACE] if asked.device == "cuda" else [OPERATORS], "reference": [TRACE]}
    if options.as_on_cuda:
        del tools["reference"]
        record["as_on_cuda"] = True
    sides: dict[str, dict[str, Any]] = {side: {} for side in tools}
    for side, names in tools.items():
        for tool in names:
            with console.status(f"{asked.precision}: {side}, {tool}"):
                sides[side][tool] = attempt(side, asked, options, tool)
    profiles = [one for found in sides.values() for one in found.values()]
    if all("error" in one for one in profiles):
        reasons = sorted({one["error"] for one in profiles})
        raise UserError(f"Nothing could be profiled. {' '.join(reasons)}")
    return {**record, "sides": sides, "bound": {side: bound(best(found)) for side, found in sides.items()}}


def attempt(side: str, asked: Workload, options: argparse.Namespace, tool: str) -> dict[str, Any]:
    """A profile, or ``error``: why there is none."""
    steps = {"warmup": options.warmup, "steps": options.steps, "as_on_cuda": options.as_on_cuda}
    try:
        return measure.run(side, "profile", asked, tool=tool, **steps)
    except UserError as error:
        return {"tool": tool, "error": str(error)}


def best(found: dict[str, Any]) -> dict[str, Any] | None:
    """The trace where there is one, which knows of overlap and waits, else what Jittor's profiler says."""
    return next((found[tool] for tool in (TRACE, OPERATORS) if "wall_seconds" in found.get(tool, {})), None)


def bound(profile: dict[str, Any] | None) -> dict[str, Any] | None:
    """Shares of the wall time, and what the step waits for: kernels, copies, or the host that launches them."""
    if profile is None:
        return None
    wall = profile["wall_seconds"]
    copies = sum(c["seconds"] for c in (profile["copies"] or {}).values())
    shares = {"kernels": profile["kernel_seconds"] / wall, "copies": copies / wall}
    busy = profile["busy_seconds"] / wall
    by = "host" if busy < BUSY else max(shares, key=lambda name: shares[name])
    return {"by": by, "busy": busy, **shares}


ROWS: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "wall time, not profiled, ms": lambda p: 1000 * p["wall_seconds"],
    "in kernels, ms": lambda p: 1000 * p["kernel_seconds"],
    "busy, share of wall": lambda p: p["busy_seconds"] / p["wall_seconds"],
    "busy by nvidia-smi, share": lambda p: p.get("utilisation"),
    "kernels": lambda p: p["kernels"],
    "operators": lambda p: p["operators"],
    "of them a library's": lambda p: p.get("library_calls"),
    "copies host to device": lambda p: p["copies"] and p["copies"]["host to device"]["count"],
    "copies device to host": lambda p: p["copies"] and p["copies"]["device to host"]["count"],
    "waits for the device": lambda p: p["synchronisations"] and p["synchronisations"]["count"],
    "waits, ms": lambda p: p["synchronisations"] and 1000 * p["synchronisations"]["seconds"],
}


def table(record: dict[str, Any]) -> Table:
    """A column a profile."""
    columns = {
        f"{side}, {tool}": found
        for side, tools in record["sides"].items()
        for tool, found in tools.items()
        if "wall_seconds" in found
    }
    made = report.numbers("a step", *columns)
    for label, value in ROWS.items():
        cells = [value(found) for found in columns.values()]
        made.add_row(label, *("–" if cell is None else f"{cell:.2f}" for cell in cells))
    return made


def shown(record: dict[str, Any], console: Console) -> None:
    """Table, what bounds either side, and the kernels that take longest."""
    console.print(table(record))
    for side, found in record["bound"].items():
        if found is not None:
            console.print(f"{side}: bound by {found['by']}, busy {found['busy']:.0%} of the time")
    for side, tools in record["sides"].items():
        for tool, one in tools.items():
            if "error" in one:
                console.print(f"{side}, {tool}: {one['error']}", markup=False)
        longest = best(tools)
        for kernel in longest["top"][:5] if longest else ():
            text = f"{1000 * kernel['seconds']:8.3f} ms {kernel['count']:6.1f} × {brief(kernel['name'])}"
            console.print(f"{side}: {text}", markup=False)


def brief(name: str) -> str:
    """A kernel's name in a line; of Jittor's keys the operators that were fused."""
    fused = re.findall(r"opkey\d+:(\w+)(?:«[^«]*)*?(?:«OP:(\w+))?(?=«opkey|«JIT|$)", name)
    if fused:
        return "+".join(what or kind for kind, what in fused)[:90]
    return name.partition("«")[0].splitlines()[0][:90]


if __name__ == "__main__":
    sys.exit(report.run("profile", arguments(), measured, shown))
