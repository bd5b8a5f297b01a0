"""A benchmark's record as a table for the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable

from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.workload import Workload, workload
from cpanet.errors import UserError

GIB = 2**30


def run(
    benchmark: str,
    options: argparse.Namespace,
    measured: Callable[[Workload, argparse.Namespace, Console], dict[str, Any]],
    shown: Callable[[dict[str, Any], Console], None],
) -> int:
    """Measure what ``options`` ask for, show the record and write it; the exit status."""
    console = Console()
    try:
        asked = workload(options)
        record = measured(asked, options, console)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    shown(record, console)
    console.print(f"Written to {measure.write(asked.stem(benchmark), record, options.out)}")
    return 0


def show(record: dict[str, Any], what: str, console: Console) -> None:
    """Print the table of a record that compares both sides, and the lines needed to read it."""
    sizes = "{backbone}, {size}×{size}, batch {batch}, {shot}-shot, {device}, {threads} threads"
    console.print(f"{what}: {sizes.format(**record['workload'])}", highlight=False)
    console.print(table(record))
    for line in notes(record):
        console.print(line, highlight=False)


def table(record: dict[str, Any]) -> Table:
    """A column for each side and one for their ratio."""
    sides = record["sides"]
    made = Table()
    for heading in ("", *sides, "ratio"):
        made.add_column(heading, justify="left" if heading == "" else "right")
    times = {name: side["summary_seconds"] for name, side in sides.items()}
    ratio = f"{record['speed_ratio']:.2f} × as fast"
    made.add_row("median", *(f"{t['median']:.3f} s" for t in times.values()), ratio)
    made.add_row("minimum", *(f"{t['minimum']:.3f} s" for t in times.values()), _quotient(times, "minimum"))
    made.add_row("spread (middle half)", *(f"{t['spread']:.3f} s" for t in times.values()), "")
    made.add_row("peak memory", *_memory(sides, "peak_bytes"), f"{record['memory_ratio']:.2f} of it")
    if "gpu_memory_ratio" in record:
        made.add_row(
            "peak GPU memory", *_memory(sides, "gpu_bytes"), f"{record['gpu_memory_ratio']:.2f} of it"
        )
    if "first_pass_seconds" in record:
        first = record["first_pass_seconds"]
        quotient = f"{first['reference'] / first['project']:.2f} × as fast"
        made.add_row("first pass", *(f"{seconds:.3f} s" for seconds in first.values()), quotient)
    if "textbook_flop" in record:
        rates = [record["textbook_flop"] / t["median"] for t in times.values()]
        made.add_row("GFLOP/s, textbook count", *(f"{rate / 1e9:.1f}" for rate in rates), "")
        shares = [rate / record["machine_peak_flops"] for rate in rates]
        made.add_row("share of measured peak", *(f"{share:.0%}" for share in shares), "")
    return made


def _quotient(times: dict[str, dict[str, float]], key: str) -> str:
    return f"{times['reference'][key] / times['project'][key]:.2f} × as fast"


def _memory(sides: dict[str, Any], key: str) -> list[str]:
    return [f"{max(side[key]) / GIB:.2f} GiB" for side in sides.values()]


def notes(record: dict[str, Any]) -> list[str]:
    """How many timings there are, what was counted, how well both sides agree, and on which machine."""
    machine = record["machine"]
    counts = ", ".join(
        f"{side['summary_seconds']['count']} of {name}" for name, side in record["sides"].items()
    )
    lines = [f"Timings: {counts}. Load of the machine before: {machine['load_before']:.2f}."]
    if "textbook_flop" in record:
        lines.append(
            f"FLOP: {record['textbook_flop'] / 1e9:.0f} G, convolutions and matrix products of the textbook "
            f"network, for both sides. Peak: {record['machine_peak_flops'] / 1e9:.0f} GFLOP/s in a large "
            "matrix product."
        )
    if "agreement" in record:
        found = record["agreement"]
        lines.append(
            f"Project against the reference in float64: logits {found['logits']:.1e} of the largest, "
            f"losses {found['losses']:.1e}, gradients {found['gradients']:.1e} ({found['worst_gradient']})."
        )
    where = machine["gpu"] or f"{machine['cpu']} ({machine['cpus']} CPUs)"
    versions = {k: v for side in record["sides"].values() for k, v in side["versions"].items()}
    lines.append(f"Machine: {where}. jittor {versions.get('jittor')}, torch {versions.get('torch')}.")
    return lines
