"""A benchmark's record as a table for the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Callable

from rich.console import Console
from rich.table import Table

from benchmarks import measure
from benchmarks.workload import Workload, workload, workloads
from cpanet.errors import UserError

GIB = 2**30


def run(
    benchmark: str,
    options: argparse.Namespace,
    measured: Callable[[Any, argparse.Namespace, Console], dict[str, Any]],
    shown: Callable[[dict[str, Any], Console], None],
) -> int:
    """Measure what ``options`` ask for, show each record and write it; the exit status.

    ``measured`` is given a :class:`Workload`, or None where the options describe none (they have ``overrides``).
    What fails at one precision does not keep the others from being measured.
    """
    console = Console()
    status = 0
    try:
        asked: list[Workload | None]
        if hasattr(options, "precision"):
            asked = [*workloads(options)]
        else:
            asked = [None if hasattr(options, "overrides") else workload(options)]
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
        shown(record, console)
        name, out = one.stem(benchmark, options.batch) if one else benchmark, options.out
        if out and len(asked) > 1:
            out = str(Path(out, f"{name}.json"))
        console.print(f"Written to {measure.write(name, record, out)}")
    return status


def show(record: dict[str, Any], what: str, console: Console) -> None:
    """Print the table of a record that compares both sides, and the lines needed to read it."""
    sizes = "{backbone}, {size}×{size}, batch {batch}, {shot}-shot, {device}, {precision}, {threads} threads"
    console.print(f"{what}: {sizes.format(**record['workload'])}", highlight=False)
    console.print(table(record))
    for line in notes(record):
        console.print(line, highlight=False)


def table(record: dict[str, Any]) -> Table:
    """A column for each side, and one for its ratio to the project."""
    sides = record["sides"]
    made = Table()
    others = [name for name in sides if name != "project"]
    for heading in ("", *sides, *("ratio" if len(others) == 1 else f"against {name}" for name in others)):
        made.add_column(heading, justify="left" if heading == "" else "right")
    times = {name: side["summary_seconds"] for name, side in sides.items()}
    same = "speed_ratio" in record  # both sides did the same work
    if not same:
        made.add_row("batch", *(str(found["batch"]) for found in record["largest"].values()), "")
    made.add_row("median", *_each(times, "median"), *_faster(times, "median", same))
    made.add_row("minimum", *_each(times, "minimum"), *_faster(times, "minimum", same))
    made.add_row("spread (middle half)", *_each(times, "spread"), "")
    rows = {n: side["summary_row_seconds"] for n, side in sides.items() if "summary_row_seconds" in side}
    if len(rows) == len(sides):
        made.add_row("in a row", *_each(rows, "median"), *_faster(rows, "median", same))
    if "images_per_second" in record:
        images = record["images_per_second"]
        quotients = [f"{images['project'] / images[name]:.2f} × as many" for name in others]
        made.add_row("images per second", *(f"{rate:.1f}" for rate in images.values()), *quotients)
    made.add_row("peak memory", *_memory(sides, "peak_bytes"), _share(record, "memory_ratio"))
    if all(side["gpu_bytes"] for side in sides.values()):
        made.add_row("peak GPU memory", *_memory(sides, "gpu_bytes"), _share(record, "gpu_memory_ratio"))
    if "first_pass_seconds" in record:
        first = record["first_pass_seconds"]
        quotients = [f"{first[name] / first['project']:.2f} × as fast" for name in others]
        made.add_row("first pass", *(f"{seconds:.3f} s" for seconds in first.values()), *quotients)
    if "textbook_flop" in record:
        rates = [record["textbook_flop"] / t["median"] for t in times.values()]
        made.add_row("GFLOP/s, textbook count", *(f"{rate / 1e9:.1f}" for rate in rates), "")
        shares = [rate / record["machine_peak_flops"] for rate in rates]
        made.add_row("share of measured peak", *(f"{share:.0%}" for share in shares), "")
    return made


def _faster(times: dict[str, dict[str, float]], key: str, same: bool) -> list[str]:
    """How many times as fast as each other side the project is; nothing where they did other work."""
    others = [name for name in times if name != "project"] if same else []
    return [f"{times[name][key] / times['project'][key]:.2f} × as fast" for name in others]


def _each(times: dict[str, dict[str, float]], key: str) -> list[str]:
    """A time of every side, in milliseconds where all are below a second."""
    if max(t[key] for t in times.values()) < 1:
        return [f"{1000 * t[key]:.2f} ms" for t in times.values()]
    return [f"{t[key]:.3f} s" for t in times.values()]


def _share(record: dict[str, Any], key: str) -> str:
    return f"{record[key]:.2f} of it" if key in record else ""


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
    for key, who in (("agreement", "Project"), ("reference_agreement", "Reference at this precision")):
        if key in record:
            found = record[key]
            lines.append(
                f"{who} against the reference in float64: logits {found['logits']:.1e} of the largest, "
                f"losses {found['losses']:.1e}, gradients {found['gradients']:.1e} ({found['worst_gradient']})."
            )
    if record.get("agrees") is False:
        lines.append(
            "The two sides differ by more than the tolerance: these timings compare different results."
        )
    where = machine["gpu"] or f"{machine['cpu']} ({machine['cpus']} CPUs)"
    versions = {k: v for side in record["sides"].values() for k, v in side["versions"].items()}
    lines.append(f"Machine: {where}. jittor {versions.get('jittor')}, torch {versions.get('torch')}.")
    return lines
