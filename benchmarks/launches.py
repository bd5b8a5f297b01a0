"""Count what a training step asks of a GPU, without one: kernels launched, library calls, copies, waits.

    python -m benchmarks.launches --backbone vgg16

Jittor is built for CUDA with NVIDIA's compiler and headers (``pip install '.[cuda]'``), and run with stand-ins for CUDA's
libraries that count every call and compute nothing (``benchmarks/gpuless``). The counts are those of a real GPU, as long as
they do not depend on numbers; times are not. The first start compiles for some minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import gpuless, measure, report
from benchmarks.workload import Workload, parser
from cpanet.errors import UserError
from cpanet.runtime import user_cache
from cpanet.runtime.cuda.toolkit import Toolkit, find_toolkit

ROWS = {
    "kernels launched": ("kernel launch",),
    "convolutions (cuDNN)": (
        "cudnnConvolutionForward",
        "cudnnConvolutionBackwardData",
        "cudnnConvolutionBackwardFilter",
    ),
    "matrix products (cuBLAS)": ("cublasGemmEx", "cublasGemmStridedBatchedEx"),
    "copies to the device": ("copy to device",),
    "copies to the host": ("copy to host",),
    "waits for the device": ("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize"),
    "allocations": ("cudaMalloc", "cudaMallocHost", "cudaMallocManaged"),
}


def arguments() -> argparse.Namespace:
    options = parser("launches", __doc__)
    options.add_argument("--steps", type=int, default=8, help="counted steps, in a row")
    options.add_argument("--warmup", type=int, default=3, help="steps before them")
    options.set_defaults(device="cuda")
    return options.parse_args()


def measured(asked: Workload, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole record; counts are means over the steps."""
    toolkit = find_toolkit(os.environ)
    if not isinstance(toolkit, Toolkit) or not toolkit.assembled or not toolkit.complete:
        raise UserError("This needs CUDA 13's compiler and headers. Install them with: pip install '.[cuda]'")
    folder = user_cache() / "gpuless"
    environ = {**gpuless.build(toolkit, folder), "PYTHONPATH": str(measure.ROOT)}
    steps = {"counter": str(gpuless.counter(folder)), "steps": options.steps, "warmup": options.warmup}
    with console.status("compiling (some minutes the first time), then counting"):
        result = measure.run("project", "calls", asked, environ=environ, **steps)
    calls = {name: count / options.steps for name, count in result["calls"].items()}
    return {
        **measure.header("launches", "cpu", asked),
        "versions": result["versions"],
        "steps": options.steps,
        "per_step": {row: sum(calls.get(name, 0) for name in names) for row, names in ROWS.items()},
        "calls_per_step": dict(sorted(calls.items(), key=lambda item: -item[1])),
    }


def shown(record: dict[str, Any], console: Console) -> None:
    title = f"{record['workload']['backbone']}, counted without a GPU"
    table = Table("in a training step", "count", title=title)
    for name, count in record["per_step"].items():
        table.add_row(name, f"{count:g}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(report.run("launches", arguments(), measured, shown))
