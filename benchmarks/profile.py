"""Time of a training step by what it is spent on: time in kernels against wall time, launches, copies, waits; both sides.

    python -m benchmarks.profile --device cuda --precision tf32

Wall time is measured without a profiler, the rest by PyTorch's profiler, on CUDA for both sides, and by Jittor's for the
operators of the project. Where a tool cannot be had its part is null, with the reason beside it.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import measure, report
from benchmarks.profiler import OPERATORS, TRACE
from benchmarks.workload import Workload, parser
from cpanet.errors import UserError

BUSY = 0.9  # of the wall time: a step waits for a GPU that computes as much of it


def arguments() -> argparse.Namespace:
    options = parser("Profile a training step of both sides.", "benchmarks.profile", precisions=True)
    options.add_argument("--steps", type=int, default=5, help="profiled steps")
    options.add_argument("--warmup", type=int, default=3, help="steps before them")
    options.add_argument(
        "--as-on-cuda",
        action="store_true",
        help="on a CPU: the project alone, with the operators it uses on CUDA",
    )
    return options.parse_args()


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: a profile of each side by each tool that can be had, and what bounds it."""
    record = {**measure.header("profile", asked.device), "workload": asked.asdict()}
    # PyTorch's profiler sees what a driver tells it: of Jittor nothing on a CPU
    tools = {"project": [OPERATORS, TRACE], "reference": [TRACE]}
    if asked.device == "cpu":
        tools["project"].remove(TRACE)
    if options.as_on_cuda:
        del tools["reference"]
        record["as_on_cuda"] = True
    record["sides"] = {}
    with console.status("") as status:
        for side, names in tools.items():
            found: dict[str, Any] = {}
            for tool in names:
                status.update(f"{asked.precision}: {side}, {tool}")
                found[tool] = attempt(side, asked, options, tool)
            record["sides"][side] = found
    if not any("wall_seconds" in one for found in record["sides"].values() for one in found.values()):
        reasons = {one["error"] for found in record["sides"].values() for one in found.values()}
        raise UserError(f"Nothing could be profiled. {' '.join(sorted(reasons))}")
    record["bound"] = {side: bound(best(found)) for side, found in record["sides"].items()}
    return record


def attempt(side: str, asked: Workload, options: argparse.Namespace, tool: str) -> dict[str, Any]:
    """A profile, or ``error``: why there is none."""
    steps = {"warmup": options.warmup, "steps": options.steps, "as_on_cuda": options.as_on_cuda}
    try:
        return measure.run(side, "profile", asked, tool=tool, **steps)
    except UserError as error:
        return {"tool": tool, "error": str(error)}


def best(found: dict[str, Any]) -> dict[str, Any] | None:
    """The trace where there is one, which knows of overlap and waits, else what Jittor's profiler says."""
    usable = [found[tool] for tool in (TRACE, OPERATORS) if "wall_seconds" in found.get(tool, {})]
    return usable[0] if usable else None


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


def table(record: dict[str, Any]) -> Table:
    """A column a profile."""
    columns = [
        (f"{side}, {tool}", found)
        for side, tools in record["sides"].items()
        for tool, found in tools.items()
        if "wall_seconds" in found
    ]
    made = Table("a step", *(name for name, _ in columns))
    for column in made.columns[1:]:
        column.justify = "right"

    def row(label: str, value: Any) -> None:
        made.add_row(label, *(_shown(value(found)) for _, found in columns))

    row("wall time, not profiled, ms", lambda p: 1000 * p["wall_seconds"])
    row("in kernels, ms", lambda p: 1000 * p["kernel_seconds"])
    row("busy, share of wall", lambda p: p["busy_seconds"] / p["wall_seconds"])
    row("busy by nvidia-smi, share", lambda p: p.get("utilisation"))
    row("kernels", lambda p: p["kernels"])
    row("operators", lambda p: p["operators"])
    row("of them a library's", lambda p: p.get("library_calls"))
    for direction in ("host to device", "device to host"):
        row(f"copies {direction}", lambda p, d=direction: p["copies"] and p["copies"][d]["count"])
    row("waits for the device", lambda p: p["synchronisations"] and p["synchronisations"]["count"])
    row("waits, ms", lambda p: p["synchronisations"] and 1000 * p["synchronisations"]["seconds"])
    return made


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def shown(record: dict[str, Any], console: Console) -> None:
    """Table, what bounds either side, and the kernels that take longest."""
    console.print(table(record))
    for side, found in record["bound"].items():
        if found is not None:
            console.print(
                f"{side}: bound by {found['by']}, busy {found['busy']:.0%} of the time", highlight=False
            )
    for side, tools in record["sides"].items():
        for tool, one in tools.items():
            if "error" in one:
                console.print(f"{side}, {tool}: {one['error']}", highlight=False, markup=False)
        longest = best(tools)
        for kernel in longest["top"][:5] if longest else ():
            text = f"{1000 * kernel['seconds']:8.3f} ms {kernel['count']:6.1f} × {brief(kernel['name'])}"
            console.print(f"{side}: {text}", highlight=False, markup=False)


def brief(name: str) -> str:
    """A kernel's name in a line; of Jittor's keys the operators that were fused."""
    fused = re.findall(r"opkey\d+:(\w+)(?:«[^«]*)*?(?:«OP:(\w+))?(?=«opkey|«JIT|$)", name)
    if fused:
        return "+".join(what or kind for kind, what in fused)[:90]
    return name.partition("«")[0].splitlines()[0][:90]


def main() -> int:
    return report.run("profile", arguments(), measured, shown)


if __name__ == "__main__":
    sys.exit(main())
