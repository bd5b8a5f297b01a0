"""``python -m cpanet.doctor``: what was found on this machine, and whether it computes and learns."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cpanet.doctor import learning, operators
from cpanet.doctor.checks import Check, Result, run_checks
from cpanet.errors import UserError
from cpanet.runtime import Runtime, prepare, probe_cuda


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 when everything is as it should be, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m cpanet.doctor", description=__doc__)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--verbose", action="store_true", help="let Jittor's own log through, show every number"
    )
    options = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    start = time.perf_counter()
    try:
        runtime = prepare(options.device, verbose=options.verbose)
    except UserError as error:
        console.print(f"[red]✗[/] {escape(str(error))}")
        return 1
    console.print(found(runtime, time.perf_counter() - start))
    results = []
    with console.status("") as status:
        pending = all_checks(runtime)
        for position, result in enumerate(run_checks(pending)):
            results.append(result)
            show(console, result, options.verbose)
            if position + 1 < len(pending):
                status.update(f"{position + 1}/{len(pending)} {pending[position + 1].name}")
    console.print(summary(results, runtime.device, time.perf_counter() - start))
    return 0 if all(result.ok for result in results) else 1


def all_checks(runtime: Runtime) -> list[Check]:
    """Everything that is tested on this runtime, with the remedies that fit it."""
    return [*operators.checks(remedy(runtime)), *learning.checks(remedy(runtime))]


def remedy(runtime: Runtime) -> str:
    """What to do about a wrong number on this device."""
    if runtime.device == "cuda":
        return "Do not train with this. Match driver, CUDA and cuDNN versions, or use device=cpu."
    if runtime.onednn is not None:
        return (
            f"Remove {runtime.cache_home} and try again; if it stays, set use_mkl=0 (slower, without oneDNN)."
        )
    return f"Remove {runtime.cache_home} and try again; if it stays, try another version of g++."


def found(runtime: Runtime, seconds: float) -> Table:
    """Two columns: what, and what it is."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = {
        "Python": runtime.versions["python"],
        "Jittor": f"{runtime.versions['jittor']} (started in {seconds:.1f} s)",
    }
    rows["numpy"] = runtime.versions["numpy"]
    rows["compiler"] = runtime.versions["compiler"]
    rows["device"] = runtime.device + (f" ({runtime.gpu})" if runtime.gpu else "")
    if runtime.why_not_cuda:
        rows["why not CUDA"] = runtime.why_not_cuda
    wheel = runtime.versions["onednn-cpu-gomp"]
    rows["oneDNN"] = (
        f"{runtime.onednn} (wheel {wheel})" if runtime.onednn else "none, so convolutions are slow"
    )
    toolkit = probe_cuda().toolkit
    if toolkit is not None:
        rows["CUDA"] = f"{'.'.join(map(str, toolkit.version))} ({toolkit.nvcc})"
        version = ".".join(map(str, toolkit.cudnn_version or ())) or "none"
        rows["cuDNN"] = f"{version} ({toolkit.cudnn})" if toolkit.cudnn else "none"
    else:
        rows["cuDNN"] = "none"
    rows["cache"] = str(runtime.cache_home)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    return table


def show(console: Console, result: Result, verbose: bool) -> None:
    """One line for a check; failures always, passes in brief unless ``verbose``."""
    if not result.ok:
        console.print(f"[red]✗ {escape(result.name)}[/]: {escape(result.error)}. {escape(result.remedy)}")
    elif verbose:
        console.print(f"[green]✓[/] {escape(result.name)}: {result.detail} ({result.seconds:.1f} s)")
    else:
        console.print(f"[green]✓[/] {escape(result.name)} [dim]{result.detail}[/]")


def summary(results: Sequence[Result], device: str, seconds: float) -> str:
    failed = [result for result in results if not result.ok]
    if failed:
        return f"[red]{len(failed)} of {len(results)} checks failed[/] on {device} in {seconds:.0f} s."
    return f"[green]All {len(results)} checks passed[/] on {device} in {seconds:.0f} s."


if __name__ == "__main__":
    sys.exit(main())
