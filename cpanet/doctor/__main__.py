"""``python -m cpanet.doctor``: what was found on this machine, and whether it computes and learns.

On CUDA every precision is examined by a process of its own, float32 first.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cpanet.console import replace_unencodable
from cpanet.doctor import learning, machine, operators, precision, processes, speed
from cpanet.doctor.checks import CheckResult, Checks, run_check
from cpanet.doctor.record import DoctorRecord
from cpanet.errors import UserError
from cpanet.files import CannotWrite
from cpanet.runtime import Runtime, prepare, probe_cuda, versions
from cpanet.runtime.precision import LEVELS, PRECISIONS, offered, remember_doctor, resolve


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 when everything is as it should be, 1 otherwise."""
    replace_unencodable()
    options = parse(argv)
    console = Console(highlight=False, soft_wrap=True)
    start = time.perf_counter()
    record = DoctorRecord(options.json, options.part)
    try:
        device = choose_device(options.device)
        precisions = choose_precisions(options.precision, device)
        report = probe_cuda()
        if device == "cuda" and not report.usable:
            precisions = precisions[:1]  # why it cannot be had need be said once
        plain = {name: machine.without_folders(text) for name, text in versions().items()}
        record.tell(device=device, versions=plain, cuda=machine.cuda_facts(report))
        if not options.part:
            console.print(table(machine.rows(device, precisions, versions(), report)))
        if len(precisions) > 1:
            in_processes(console, record, device, precisions, options)
        else:
            here(console, record, device, precisions[0], options)
    except UserError as error:
        if not options.part:
            console.print(f"[red]✗[/] {escape(str(error))}")
        with contextlib.suppress(CannotWrite):  # which was the error
            record.finish(time.perf_counter() - start, str(error))
        return 1
    ok = record.finish(time.perf_counter() - start)
    if not options.part:
        console.print(summary(record.data))
    return 0 if ok else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cpanet.doctor", description=__doc__)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--precision",
        action="append",
        metavar="NAME[,NAME…]",
        help=f"{', '.join(PRECISIONS)}, or all that the device offers (the default)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave the findings there, as they come")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="only checks with TEXT in their name"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="let Jittor's own log through, show every number"
    )
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)  # one of several processes
    return parser.parse_args(argv)


def choose_device(asked: str) -> str:
    """``cuda`` or ``cpu``, without starting Jittor; whether CUDA can be had where it was asked for is told later."""
    return asked if asked != "auto" else "cuda" if probe_cuda().usable else "cpu"


def choose_precisions(asked: Sequence[str] | None, device: str) -> tuple[str, ...]:
    """Those to examine, float32 first. UserError for one that ``device`` does not have."""
    names = [name.strip() for text in asked or ["all"] for name in text.split(",")]
    chosen = {p for name in names for p in (offered(device) if name == "all" else (resolve(name, device),))}
    return tuple(p for p in LEVELS if p in chosen)


def in_processes(
    console: Console,
    record: DoctorRecord,
    device: str,
    precisions: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """Every precision by a process of its own, which prints what it finds; one that is lost is a failure."""
    asked = record.path
    with tempfile.TemporaryDirectory(prefix="cpanet-doctor-") as folder:
        record.path = asked or Path(folder) / "record.json"  # they go on with it
        try:
            for name in precisions:
                console.print(f"\n[bold]{name}[/]")
                words = processes.command(device, name, options.only, options.verbose)
                lost = processes.examine(name, words, record)
                if lost is not None:
                    show(console, lost, options.verbose)
        finally:
            record.path = asked


def here(console: Console, record: DoctorRecord, device: str, name: str, options: argparse.Namespace) -> None:
    """One precision in this process."""
    start = time.perf_counter()
    record.start("start", name)
    runtime = prepare(device, verbose=options.verbose, precision=name)
    rows = machine.runtime_rows(runtime, time.perf_counter() - start)
    console.print(table({"started in": rows["started in"]} if options.part else rows))
    record.tell(device=runtime.device)
    checks, ratios = all_checks(runtime), list[float]()
    if (runtime.device, name) == ("cpu", "bf16"):
        checks["speed of a training convolution at bf16"] = partial(speed.compare, ratios.append)
    chosen = [n for n in checks if not options.only or any(text in n for text in options.only)]
    if not chosen:
        raise UserError(f"No check has {' or '.join(map(repr, options.only))} in its name.")
    with console.status("") as status:
        for position, check in enumerate(chosen):
            status.update(f"{position + 1}/{len(chosen)} {check}")
            record.start(check, name)
            result = run_check(check, checks[check], remedy(runtime))
            record.add(result, name)
            show(console, result, options.verbose)
    record.end(name)
    if ratios and not options.only:
        remember_doctor(record.data["precisions"][name]["ok"], ratios[0])


def all_checks(runtime: Runtime) -> Checks:
    """Everything that is tested on this runtime at its precision."""
    name = runtime.precision
    learns = {f"learning: {learning.STEPS} steps on two episodes": learning.overfit}
    return {**precision.checks(name), **operators.checks(name), **learns}


def remedy(runtime: Runtime) -> str:
    """Advice for a wrong number on this device."""
    if runtime.device == "cuda":
        other = "" if runtime.precision == "fp32" else "precision=fp32 where that passes, or "
        return f"Do not train with this. Match driver, CUDA and cuDNN versions, or use {other}device=cpu."
    if runtime.onednn is not None:
        return (
            f"Remove {runtime.cache_home} and try again; if it stays, set use_mkl=0 (slower, without oneDNN)."
        )
    return f"Remove {runtime.cache_home} and try again; if it stays, try another version of g++."


def table(rows: Mapping[str, str]) -> Table:
    """Two columns: what, and what it is."""
    made = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    made.add_column(min_width=12)  # of several tables below each other
    made.add_column()
    for name, value in rows.items():
        made.add_row(f"[bold]{name}[/]", escape(value))
    return made


def show(console: Console, result: CheckResult, verbose: bool) -> None:
    """One line for a check; failures always, passes in brief unless ``verbose``; notes always."""
    name, note = escape(result.name), f" [yellow]{escape(result.note)}[/]" if result.note else ""
    if not result.ok:
        console.print(f"[red]✗ {name}[/]: {escape(result.error.rstrip('.'))}. {escape(result.remedy)}")
    elif verbose:
        console.print(f"[green]✓[/] {name}: {escape(result.detail)} ({result.seconds:.1f} s){note}")
    else:
        console.print(f"[green]✓[/] {name} [dim]{escape(result.detail)}[/]{note}")


def summary(data: Mapping[str, Any]) -> str:
    """A line for every precision: how many checks, and how many of them failed; of several a last one on all."""
    lines = []
    for name, found in data["precisions"].items():
        where = f"on {data['device']} at {name} in {found['seconds']:.0f} s"
        if found["failed"]:
            lines.append(f"[red]{found['failed']} of {found['checks']} checks failed[/] {where}.")
        else:
            lines.append(f"[green]All {found['checks']} checks passed[/] {where}.")
    failed = [name for name, found in data["precisions"].items() if found["failed"]]
    if len(lines) > 1:
        lines.append(
            f"[red]Failed: {', '.join(failed)}.[/]" if failed else "[green]Every precision passed.[/]"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
