"""A training step: this project against the textbook network in PyTorch, in turns on the same machine.

    python -m benchmarks.step --backbone resnet50 --threads 2

First both sides must give the same logits, losses and gradients (dropout off). Then each takes its steps in
a process of its own, project and reference in turns (dropout on). FLOP are the textbook network's for both
sides: what the project need not compute counts as if it had.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console

from benchmarks import agreement, measure, report
from benchmarks.workload import Workload, parser


def arguments() -> argparse.Namespace:
    options = parser("Time a training step of the project and of the PyTorch reference.", "benchmarks.step")
    options.add_argument("--rounds", type=int, default=3, help="processes of either side")
    options.add_argument("--repeats", type=int, default=5, help="timed steps in a process")
    options.add_argument("--warmup", type=int, default=2, help="steps before the timed ones")
    options.add_argument("--tolerance", type=float, default=1e-3, help="largest relative difference accepted")
    return options.parse_args()


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: agreement, then timings in turns, with the machine's peak before and after them."""
    record = {**measure.header("step", asked.device), "workload": asked.asdict()}
    with console.status("") as status:
        status.update("comparing logits, losses and gradients")
        record["agreement"] = vars(agreement.check(asked, options.tolerance))
        limits = [measure.run("reference", "limits", asked)]
        sides = {name: measure.Side() for name in measure.SIDES}
        for number in range(options.rounds):
            for name, side in sides.items():
                status.update(f"round {number + 1} of {options.rounds}: {name}")
                side.add(measure.run(name, "steps", asked, warmup=options.warmup, repeats=options.repeats))
        limits.append(measure.run("reference", "limits", asked))
    record["textbook_flop"] = limits[0]["flop"]["training step"]
    record["machine_peak_flops"] = max(limit["peak_flops"] for limit in limits)
    return measure.compared(record, sides)


def main() -> int:
    def shown(record: dict[str, Any], console: Console) -> None:
        report.show(record, "training step", console)

    return report.run("step", arguments(), measured, shown)


if __name__ == "__main__":
    sys.exit(main())
