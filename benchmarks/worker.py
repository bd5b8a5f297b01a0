"""One measurement of one side, in a process of its own: ``python -m benchmarks.worker REQUEST RESULT``.

REQUEST is a JSON file {side, job, workload, options}; RESULT is the JSON file to write. Neither side's
framework is ever imported in the other's process.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import memory
from benchmarks.workload import Workload
from cpanet.data import load_dataset, test_episodes
from cpanet.errors import UserError
from cpanet.metrics import summarise


def check(side: ModuleType, workload: Workload, to: str) -> dict[str, Any]:
    """Write logits, losses and gradients to the file ``to``."""
    np.savez(to, **side.outputs(workload))
    return {}


def steps(
    side: ModuleType, workload: Workload, warmup: int, repeats: int, workers: int | None = None
) -> dict[str, Any]:
    """Seconds of each of ``repeats`` training steps after ``warmup`` others, and the memory they took.

    ``workers``: on episodes that this many processes augment meanwhile; None: on the same batch for ever.
    """
    idle = memory.resident()
    step = side.training_step(workload) if workers is None else side.loaded_training_step(workload, workers)
    for _ in range(warmup):
        step()
    memory.reset_peak()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - begin)
    if not math.isfinite(loss):
        raise UserError(f"The loss of {side.__name__} is {loss}: its timings would mean nothing.")
    return {"seconds": seconds, "peak_bytes": memory.peak(), "idle_bytes": idle}


def losses(side: ModuleType, workload: Workload, steps: int, precision: str) -> dict[str, Any]:
    """Main losses of the first ``steps`` steps of a training that learns, at a precision."""
    return {"losses": side.learning_losses(workload, steps, precision)}


def evaluation(side: ModuleType, workload: Workload, episodes: int, passes: int) -> dict[str, Any]:
    """Seconds of the first and of ``passes`` more passes over test episodes, their memory and pixel counts."""
    dataset = load_dataset("embedded")
    chosen = test_episodes(dataset, fold=0, shot=workload.shot, seed=workload.seed, limit=episodes)
    side.evaluation(workload, dataset, chosen[: 2 * workload.batch])()  # operators compiled, threads started
    idle = memory.resident()
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
        "idle_bytes": idle,
        "counts": counts,
        "scores": summarise(counts, [episode.class_index for episode in chosen])[:2],
    }


def limits(side: ModuleType, workload: Workload) -> dict[str, Any]:
    """What the textbook network costs and what the machine gives at best; the reference's side knows both."""
    return {"flop": side.textbook_flop(workload), "peak_flops": side.measured_peak(workload)}


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "check": check,
    "steps": steps,
    "losses": losses,
    "evaluation": evaluation,
    "limits": limits,
}


def main(request_file: str, result_file: str) -> int:
    request = json.loads(Path(request_file).read_text())
    workload = Workload(**request["workload"])
    try:
        side = importlib.import_module(f"benchmarks.side_{request['side']}")
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
    Path(result_file).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
