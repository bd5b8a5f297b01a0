"""A training step: this project against the textbook network in PyTorch, in turns on the same machine.

    python -m benchmarks.step --backbone resnet50 --threads 2
    python -m benchmarks.step --device cuda                          at fp32, TF32, bf16 and fp16, a record each
    python -m benchmarks.step --device cuda --batch largest          with as many episodes as each side has memory for
    python -m benchmarks.step --precision bf16                       on a CPU with AMX or AVX512-BF16

Where a CPU offers bfloat16, PyTorch with bf16 autocast and channels_last is a third column; the reference stays float32.

First both sides must give the same logits, losses and gradients (dropout off). Then each takes its steps in
a process of its own, project and reference in turns (dropout on): some are waited for one by one, others launched in a
row, as training does, and waited for at the end. FLOP are the textbook network's for every side: what the project need
not compute counts as if it had. With ``--episodes`` an evaluation of test episodes is timed as well.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from rich.console import Console

from benchmarks import agreement, evaluate, largest, measure, report
from benchmarks.workload import LARGEST, Workload, batch_or_largest, parser

DEFAULTS = {  # a GPU takes milliseconds where a CPU takes seconds, and the first steps choose cuDNN's algorithms
    "cpu": {"rounds": 3, "repeats": 5, "warmup": 2, "in_a_row": 0, "episodes": 0},
    "cuda": {"rounds": 2, "repeats": 20, "warmup": 10, "in_a_row": 50, "episodes": 100},
}


def arguments() -> argparse.Namespace:
    options = parser(
        "Time a training step of the project and of the PyTorch reference.",
        "benchmarks.step",
        precisions=True,
    )
    options.set_defaults(batch=2)
    for action in options._actions:
        if action.dest == "batch":
            action.type, action.help = batch_or_largest, "episodes in a step, or 'largest'"
    counts = {
        "rounds": "processes of either side",
        "repeats": "timed steps in a process, waited for one by one",
        "warmup": "steps before the timed ones",
        "in_a_row": "steps launched in a row and waited for together; 0: none",
        "episodes": "test episodes of an evaluation to time as well; 0: none",
    }
    for name, what in counts.items():
        cpu, cuda = (DEFAULTS[device][name] for device in ("cpu", "cuda"))
        flag = f"--{name.replace('_', '-')}"
        options.add_argument(flag, type=int, help=f"{what}; {cpu} on the CPU, {cuda} on CUDA")
    options.add_argument("--tolerance", type=float, default=1e-3, help="largest relative difference accepted")
    options.add_argument("--anyway", action="store_true", help="go on where the two sides differ by more")
    options.add_argument("--limit", type=int, help="of --batch largest; 8 on the CPU, 256 on CUDA")
    given = options.parse_args()
    for name, value in DEFAULTS[given.device].items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: agreement, then timings in turns, with the machine's peak before and after them."""
    if options.batch == LARGEST:
        return measured_largest(asked, options, console)
    record = {**measure.header("step", asked.device), "workload": asked.asdict()}
    with console.status("") as status:
        status.update(f"{asked.precision}: comparing logits, losses and gradients")
        record.update(agreement.check(asked, options.tolerance, options.anyway))
        limits = [measure.run("reference", "limits", asked)]
        sides = _in_turns(measure.sides_of(asked), options, status)
        limits.append(measure.run("reference", "limits", asked))
    record["warmup_steps"] = options.warmup
    record["steps_in_a_row"] = options.in_a_row
    record["images_per_second"] = {name: measure.throughput(s, asked.images) for name, s in sides.items()}
    record["textbook_flop"] = limits[0]["flop"]["training step"]
    record["machine_peak_flops"] = max(limit["peak_flops"] for limit in limits)
    record = measure.compared(record, sides)
    if options.episodes:
        passes = argparse.Namespace(episodes=options.episodes, rounds=1, repeats=3)
        record["evaluation"] = evaluate.measured(replace(asked, batch=evaluate.BATCH), passes, console)
    return record


def measured_largest(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Timings of either side at the largest batch that it has memory for; what counts is images per second."""
    record = {**measure.header("step", asked.device), "workload": {**asked.asdict(), "batch": LARGEST}}
    with console.status("") as status:
        limit = options.limit or largest.LIMIT[asked.device]
        record["largest"] = {
            name: largest.find(
                name, workload, limit, lambda text: status.update(f"{asked.precision}, {text}")
            )
            for name, workload in measure.sides_of(asked).items()
        }
        workloads = {
            name: replace(workload, batch=record["largest"][name]["batch"])
            for name, workload in measure.sides_of(asked).items()
        }
        sides = _in_turns(workloads, options, status)
    record["warmup_steps"] = options.warmup
    record["steps_in_a_row"] = options.in_a_row
    images = {name: measure.throughput(side, workloads[name].images) for name, side in sides.items()}
    record["images_per_second"] = images
    record = measure.compared(record, sides)
    for ratio in ("speed_ratio", "row_speed_ratio", "memory_ratio", "gpu_memory_ratio"):
        record.pop(ratio, None)  # of different amounts of work
    record["images_ratio"] = images["project"] / images["reference"]
    return record


def _in_turns(
    workloads: dict[str, Workload], options: argparse.Namespace, status: Any
) -> dict[str, measure.Side]:
    """Each side's steps, in processes that take turns."""
    sides = {name: measure.Side() for name in workloads}
    counts = {"warmup": options.warmup, "repeats": options.repeats, "in_a_row": options.in_a_row}
    for number in range(options.rounds):
        for name, side in sides.items():
            precision = workloads[name].precision
            status.update(f"{precision}: round {number + 1} of {options.rounds}: {name}")
            side.add(measure.run(name, "steps", workloads[name], **counts))
    return sides


def main() -> int:
    def shown(record: dict[str, Any], console: Console) -> None:
        report.show(record, "training step", console)
        if "evaluation" in record:
            evaluate.shown(record["evaluation"], console)

    return report.run("step", arguments(), measured, shown)


if __name__ == "__main__":
    sys.exit(main())
