"""Time a training step: this project against the textbook network in PyTorch, in turns on the same machine.

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
from functools import partial
from typing import Any, Callable

from rich.console import Console

from benchmarks import agreement, evaluate, measure, report
from benchmarks.workload import LARGEST, Workload, parser
from cpanet.errors import UserError

DEFAULTS = {  # a GPU takes milliseconds where a CPU takes seconds, and the first steps choose cuDNN's algorithms
    "cpu": {"rounds": 3, "repeats": 5, "warmup": 2, "in_a_row": 0, "episodes": 0, "limit": 8},
    "cuda": {"rounds": 2, "repeats": 20, "warmup": 10, "in_a_row": 50, "episodes": 100, "limit": 256},
}
SECONDS = 180.0  # for one try of a batch: whatever does not end in time is not tried any larger


def arguments() -> argparse.Namespace:
    options = parser("step", __doc__, precisions=True)
    options.add_argument("--batch", type=batch_or_largest, default=2, help="episodes in a step, or 'largest'")
    counts = {
        "rounds": "processes of either side",
        "repeats": "timed steps in a process, waited for one by one",
        "warmup": "steps before the timed ones",
        "in_a_row": "steps launched in a row and waited for together; 0: none",
        "episodes": "test episodes of an evaluation to time as well; 0: none",
        "limit": "of --batch largest",
    }
    for name, what in counts.items():
        cpu, cuda = (DEFAULTS[device][name] for device in ("cpu", "cuda"))
        flag = f"--{name.replace('_', '-')}"
        options.add_argument(flag, type=int, help=f"{what}; {cpu} on the CPU, {cuda} on CUDA")
    options.add_argument("--tolerance", type=float, default=1e-3, help="largest relative difference accepted")
    options.add_argument("--anyway", action="store_true", help="go on where the two sides differ by more")
    given = options.parse_args()
    for name, value in DEFAULTS[given.device].items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


def batch_or_largest(text: str) -> int | str:
    try:
        return text if text == LARGEST else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number or {LARGEST!r}, not {text!r}") from None


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record: agreement, then timings in turns, with the machine's peak before and after them."""
    record = measure.header("step", asked.device, asked)
    if options.batch == LARGEST:
        return {**record, **measured_largest(asked, options, console)}
    with console.status(f"{asked.precision}: comparing logits, losses and gradients"):
        record.update(agreement.check(asked, options.tolerance, options.anyway))
    limits = [measure.run("reference", "limits", asked)]
    timings = timed(measure.sides_of(asked), options, console)
    limits.append(measure.run("reference", "limits", asked))
    record["textbook_flop"] = limits[0]["flop"]["training step"]
    record["machine_peak_flops"] = max(limit["peak_flops"] for limit in limits)
    record.update(timings)
    if options.episodes:
        passes = argparse.Namespace(episodes=options.episodes, rounds=1, repeats=3)
        record["evaluation"] = evaluate.measured(replace(asked, batch=evaluate.BATCH), passes, console)
    return record


def measured_largest(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Timings of either side at the largest batch that it has memory for; what counts is images per second."""
    found, workloads = {}, {}
    for name, workload in measure.sides_of(asked).items():
        with console.status(f"{asked.precision}, {name}: the largest batch"):
            found[name] = find_largest(name, workload, options.limit)
        workloads[name] = replace(workload, batch=found[name]["batch"])
    record = {"workload": {**vars(asked), "batch": LARGEST}, "largest": found}
    record.update(timed(workloads, options, console))
    for ratio in ("speed_ratio", "row_speed_ratio", "memory_ratio", "gpu_memory_ratio"):
        record.pop(ratio, None)  # of different amounts of work
    images = record["images_per_second"]
    return {**record, "images_ratio": images["project"] / images["reference"]}


def timed(workloads: dict[str, Workload], options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Each side's steps, in processes that take turns."""
    counts = {name: getattr(options, name) for name in ("warmup", "repeats", "in_a_row")}
    jobs = {name: partial(measure.run, name, "steps", asked, **counts) for name, asked in workloads.items()}
    results = measure.in_turns(jobs, options.rounds, console)
    sides = {name: measure.side(found) for name, found in results.items()}
    return {
        "warmup_steps": options.warmup,
        "steps_in_a_row": options.in_a_row,
        "images_per_second": {
            name: measure.throughput(side, workloads[name].images) for name, side in sides.items()
        },
        **measure.compared(sides),
    }


def find_largest(side: str, asked: Workload, limit: int) -> dict[str, Any]:
    """``batch``: the largest that ``side`` can train with; ``tried``: what every try, in a process of its own, came to."""
    tried: dict[str, str] = {}

    def fits(batch: int) -> bool:
        try:
            measure.run(side, "steps", replace(asked, batch=batch), timeout=SECONDS, warmup=1, repeats=1)
        except measure.OutOfMemory:
            tried[str(batch)] = "out of memory"
        except measure.TookTooLong:
            tried[str(batch)] = f"more than {SECONDS:.0f} s"
        else:
            tried[str(batch)] = "fits"
        return tried[str(batch)] == "fits"

    batch = largest(fits, limit)
    if not batch:
        raise UserError(f"--batch largest: the {side} cannot train with a single episode ({tried}).")
    return {"batch": batch, "limit": limit, "tried": tried}


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest batch that fits, to an eighth of itself, at most ``limit``; 0 where not even one episode does.

    Doubles until it does not fit, then halves the interval in between. ``fits`` is asked about a batch at most once, and
    about few that do not fit: those take longest.
    """
    most, batch = 0, 1
    while fits(batch):
        most, batch = batch, min(2 * batch, limit)
        if most == limit:
            return limit
    least = batch  # the smallest that does not fit
    while most and least - most > max(1, most // 8):
        middle = (most + least) // 2
        most, least = (middle, least) if fits(middle) else (most, middle)
    return most


def shown(record: dict[str, Any], console: Console) -> None:
    report.show(record, "training step", console)
    if "evaluation" in record:
        evaluate.shown(record["evaluation"], console)


if __name__ == "__main__":
    sys.exit(report.run("step", arguments(), measured, shown))
