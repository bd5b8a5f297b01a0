"""How a benchmark runs: its record measured, shown as a table and written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable

from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.workload import workloads
from cpanet.errors import UserError

GIB = 2**30


def run(
    benchmark: str,
    options: argparse.Namespace,
    measured: Callable[[Any, argparse.Namespace, Console], dict[str, Any]],
    shown: Callable[[dict[str, Any], Console], Any],
) -> int:
    """Measure what ``options`` ask for, show each record and write it; the exit status.

    ``measured`` is given a workload, or None where the options describe none. Where ``shown`` returns False the status is 1.
    What fails at one precision does not keep the others from being measured.
    """
    console, status = Console(highlight=False), 0
    try:
        asked = workloads(options) if hasattr(options, "backbone") else [None]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for one in asked:
        try:
            record = measured(one, options, console)
        except UserError as error:
            print(f"{one.precision}: {error}" if one and len(asked) > 1 else error, file=sys.stderr)
            status = 2
            continue
        if shown(record, console) is False:
            status = 1
        name, out = one.stem(benchmark, options.batch) if one else benchmark, options.out
        if out and len(asked) > 1:
            out = str(Path(out, f"{name}.json"))
        console.print(f"Written to {measure.write(name, record, out)}")
    return status


def numbers(*headings: str, **options: Any) -> Table:
    """A table for the terminal whose columns but the first are numbers."""
    made = Table(*headings, **options)
    for column in made.columns[1:]:
        column.justify = "right"
    return made


def markdown(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table for a page."""
    lines = (headings, ["---"] * len(headings), *rows)
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines)


def show(record: dict[str, Any], what: str, console: Console) -> None:
    """Print the table of a record that compares both sides, and the lines needed to read it."""
    sizes = "{backbone}, {size}×{size}, batch {batch}, {shot}-shot, {device}, {precision}, {threads} threads"
    console.print(f"{what}: {sizes.format(**record['workload'])}")
    console.print(table(record))
    for line in notes(record):
        console.print(line)


def table(record: dict[str, Any]) -> Table:
    """A column for each side, and one for its ratio to the project."""
    sides = record["sides"]
    others = [name for name in sides if name != "project"]
    same = "speed_ratio" in record  # both sides did the same work
    made = numbers("", *sides, *("ratio" if len(others) == 1 else f"against {name}" for name in others))

    def times(label: str, seconds: dict[str, float], ratios: bool = same) -> None:
        """In milliseconds where all are below a second."""
        short = max(seconds.values()) < 1
        cells = [f"{1000 * t:.2f} ms" if short else f"{t:.3f} s" for t in seconds.values()]
        faster = [f"{seconds[name] / seconds['project']:.2f} × as fast" for name in others if ratios]
        made.add_row(label, *cells, *faster)

    def memory(label: str, key: str, ratio: str) -> None:
        cells = [f"{max(found[key]) / GIB:.2f} GiB" for found in sides.values()]
        made.add_row(label, *cells, f"{record[ratio]:.2f} of it" if ratio in record else "")

    if not same:
        made.add_row("batch", *(str(found["batch"]) for found in record["largest"].values()))
    for label, key in (("median", "median"), ("minimum", "minimum"), ("spread (middle half)", "spread")):
        ratios = same and key != "spread"
        times(label, {name: found["summary_seconds"][key] for name, found in sides.items()}, ratios)
    if all("summary_row_seconds" in found for found in sides.values()):
        times("in a row", {name: found["summary_row_seconds"]["median"] for name, found in sides.items()})
    if "images_per_second" in record:
        images = record["images_per_second"]
        quotients = [f"{images['project'] / images[name]:.2f} × as many" for name in others]
        made.add_row("images per second", *(f"{rate:.1f}" for rate in images.values()), *quotients)
    memory("peak memory", "peak_bytes", "memory_ratio")
    if all(found["gpu_bytes"] for found in sides.values()):
        memory("peak GPU memory", "gpu_bytes", "gpu_memory_ratio")
    if "first_pass_seconds" in record:
        times("first pass", record["first_pass_seconds"])
    if "textbook_flop" in record:
        rates = [record["textbook_flop"] / found["summary_seconds"]["median"] for found in sides.values()]
        made.add_row("GFLOP/s, textbook count", *(f"{rate / 1e9:.1f}" for rate in rates))
        peak = record["machine_peak_flops"]
        made.add_row("share of measured peak", *(f"{rate / peak:.0%}" for rate in rates))
    return made


def notes(record: dict[str, Any]) -> list[str]:
    """How many timings there are, what was counted, how well both sides agree, and on which machine."""
    machine, sides = record["machine"], record["sides"]
    counts = ", ".join(f"{side['summary_seconds']['count']} of {name}" for name, side in sides.items())
    lines = [f"Timings: {counts}. Load of the machine before: {machine['load_before']:.2f}."]
    if "textbook_flop" in record:
        lines.append(
            f"FLOP: {record['textbook_flop'] / 1e9:.0f} G, convolutions and matrix products of the textbook "
            f"network, for both sides. Peak: {record['machine_peak_flops'] / 1e9:.0f} GFLOP/s in a large "
            "matrix product."
        )
    for key, who in (("agreement", "Project"), ("reference_agreement", "Reference at this precision")):
        if key in record:
            found = record[key]
            lines.append(
                f"{who} against the reference in float64: logits {found['logits']:.1e} of the largest, "
                f"losses {found['losses']:.1e}, gradients {found['gradients']:.1e} ({found['worst_gradient']})."
            )
    if record.get("agrees") is False:
        lines.append(
            "The two sides differ by more than the tolerance: the timings compare different results."
        )
    where = machine["gpu"] or f"{machine['cpu']} ({machine['cpus']} CPUs)"
    versions = {name: version for side in sides.values() for name, version in side["versions"].items()}
    lines.append(f"Machine: {where}. jittor {versions.get('jittor')}, torch {versions.get('torch')}.")
    return lines
