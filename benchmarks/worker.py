"""One measurement of one side, in a process of its own: ``python -m benchmarks.worker REQUEST RESULT``.

REQUEST is a JSON file {side, job, workload, options}; RESULT is the JSON file to write. Neither side's
framework is ever imported in the other's process.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import memory, profiler
from benchmarks.gpuless import read_counts
from benchmarks.measure import MODULES, NO_MEMORY, lacked_memory
from benchmarks.workload import Workload
from cpanet.data import load_dataset, test_episodes
from cpanet.errors import UserError
from cpanet.metrics import summarise


def check(side: ModuleType, workload: Workload, to: str, exact: bool = True) -> dict[str, Any]:
    """Write logits, losses and gradients to the file ``to``; the reference's in float64 where ``exact``."""
    np.savez(to, **side.outputs(workload, exact))
    return {}


def steps(
    side: ModuleType,
    workload: Workload,
    warmup: int,
    repeats: int,
    in_a_row: int = 0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Seconds of training steps after ``warmup`` others, and the memory they took.

    ``repeats`` steps are waited for one by one; ``in_a_row`` more are launched one after the other, as training does, and
    waited for at their end alone: their mean is one number. ``workers``: on episodes that this many processes augment
    meanwhile; None: on the same batch for ever.
    """
    take = side.training(workload) if workers is None else side.loaded_training(workload, workers)
    loss = take(max(warmup, 1))
    memory.reset_peak()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        loss = take(1)
        seconds.append(time.perf_counter() - begin)
    row = []
    if in_a_row:
        begin = time.perf_counter()
        loss = take(in_a_row)
        row.append((time.perf_counter() - begin) / in_a_row)
    if not math.isfinite(loss):
        raise UserError(f"The loss of {side.__name__} is {loss}: its timings would mean nothing.")
    return {"seconds": seconds, "row_seconds": row, "peak_bytes": memory.peak()}


def profile(
    side: ModuleType, workload: Workload, warmup: int, steps: int, tool: str, as_on_cuda: bool = False
) -> dict[str, Any]:
    """Where the time of a training step goes, by one of the tools of :mod:`benchmarks.profiler`.

    ``as_on_cuda``: with the operators that the project uses on CUDA, also on a CPU.
    """
    if as_on_cuda:
        side.without_kernels()
    return profiler.profile(side.training(workload), workload.device, warmup, steps, tool)


def losses(side: ModuleType, workload: Workload, steps: int, precision: str) -> dict[str, Any]:
    """Main losses of the first ``steps`` steps of a training that learns, at a precision."""
    return {"losses": side.learning_losses(workload, steps, precision)}


def evaluation(side: ModuleType, workload: Workload, episodes: int, passes: int) -> dict[str, Any]:
    """Seconds of the first and of ``passes`` more passes over test episodes, their memory and pixel counts."""
    dataset = load_dataset("embedded")
    chosen = test_episodes(dataset, fold=0, shot=workload.shot, seed=workload.seed, limit=episodes)
    side.evaluation(workload, dataset, chosen[: 2 * workload.batch])()  # operators compiled, threads started
    one_pass = side.evaluation(workload, dataset, chosen)
    memory.reset_peak()
    seconds = []
    for _ in range(1 + passes):
        begin = time.perf_counter()
        counts = one_pass()
        seconds.append(time.perf_counter() - begin)
    return {
        "first_pass_seconds": seconds[0],
        "seconds": seconds[1:] or seconds,
        "peak_bytes": memory.peak(),
        "counts": counts,
        "scores": summarise(counts, [episode.class_index for episode in chosen])[:2],
    }


def limits(side: ModuleType, workload: Workload) -> dict[str, Any]:
    """Cost of the textbook network and the machine's best rate; the reference's side knows both."""
    return {"flop": side.textbook_flop(workload), "peak_flops": side.measured_peak(workload)}


def calls(side: ModuleType, workload: Workload, counter: str, warmup: int, steps: int) -> dict[str, Any]:
    """Calls of CUDA's libraries in ``steps`` training steps in a row; ``counter``: the library that counts (gpuless)."""
    library = ctypes.CDLL(counter)
    take = side.training(workload)
    take(warmup)
    library.stand_in_reset()
    take(steps)
    with tempfile.NamedTemporaryFile() as file:
        library.stand_in_write(file.name.encode())
        return {"calls": read_counts(Path(file.name))}


JOBS = {job.__name__: job for job in (check, steps, profile, losses, calls, evaluation, limits)}


def main(request_file: str, result_file: str) -> int:
    request = json.loads(Path(request_file).read_text())
    try:
        workload = Workload(**request["workload"])
        if request["options"].get("tool") == profiler.TRACE:
            importlib.import_module("torch")  # before Jittor, where both are in one process
        side = importlib.import_module(f"benchmarks.{MODULES[request['side']]}")
        side.start(workload)
        result = JOBS[request["job"]](side, workload, **request["options"])
        result["versions"] = side.versions()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print("The reference needs PyTorch. Install it with: pip install '.[benchmark]'", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not lacked_memory(0, str(error)):
            raise
        print(str(error)[-1000:], file=sys.stderr, flush=True)
        os._exit(NO_MEMORY)  # a framework that has no memory left may not be able to end in order
    Path(result_file).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
