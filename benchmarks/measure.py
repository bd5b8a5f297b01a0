"""Starting measurements one process after another, and what their numbers come to."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

from rich.console import Console

from benchmarks import memory
from benchmarks.workload import Workload
from cpanet import runtime
from cpanet.doctor.machine import cuda_facts
from cpanet.errors import UserError
from cpanet.files import write_atomically
from cpanet.runtime.precision import offered
from cpanet.runtime.processor import processor

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SIDES = ("project", "reference")
AUTOCAST = "PyTorch, bf16 autocast, channels_last"
MODULES = {"project": "side_project", "reference": "side_reference", AUTOCAST: "side_reference"}
NO_MEMORY = 3  # exit status of a worker whose device or machine had no memory left
NO_MEMORY_MESSAGES = (  # PyTorch, CUDA, Jittor's allocator, cuDNN, cuBLAS, C++, PyTorch on a CPU
    "out of memory",
    "Unable to alloc",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "bad_alloc",
    "can't allocate memory",
)


class OutOfMemory(UserError):
    """A measurement needed more memory than there is."""


class TookTooLong(UserError):
    """A measurement was stopped at its limit."""


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Repeated timings in seconds: median, minimum and spread (the middle half's width)."""
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (0.0, 0.0, 0.0)
    return {
        "median": statistics.median(seconds),
        "minimum": min(seconds),
        "spread": high - low,
        "count": len(seconds),
    }


def side(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What one side's processes measured, as it stands in a record.

    ``seconds``: of repetitions that were waited for one by one; ``row_seconds``: means over several in a row, as training
    takes them, waited for once at their end; summed up where they were measured.
    """
    seconds = [time for result in results for time in result["seconds"]]
    in_a_row = [time for result in results for time in result.get("row_seconds", ())]
    return {
        "seconds": seconds,
        "row_seconds": in_a_row,
        "peak_bytes": [result["peak_bytes"] for result in results],
        "gpu_bytes": [result["gpu_bytes"] for result in results if result.get("gpu_bytes")],
        "versions": results[-1]["versions"],
        "summary_seconds": summary(seconds),
        **({"summary_row_seconds": summary(in_a_row)} if in_a_row else {}),
    }


def sides_of(asked: Workload) -> dict[str, Workload]:
    """The workload of each side.

    On a CPU the reference stays at float32; where the processor offers bfloat16, PyTorch's autocast stands beside it.
    """
    if asked.device != "cpu":
        return dict.fromkeys(SIDES, asked)
    found = {"project": asked, "reference": replace(asked, precision="fp32")}
    if "bf16" in offered("cpu"):
        found[AUTOCAST] = replace(asked, precision="bf16")
    return found


def compared(sides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every side's numbers; time as reference ÷ project, memory as project ÷ reference."""
    project, reference = sides["project"], sides["reference"]

    def times_as_fast(other: dict[str, Any], key: str = "summary_seconds") -> float:
        return float(other[key]["median"] / project[key]["median"])

    found = {"sides": sides, "speed_ratio": times_as_fast(reference)}
    if project["row_seconds"] and reference["row_seconds"]:
        found["row_speed_ratio"] = times_as_fast(reference, "summary_row_seconds")
    if AUTOCAST in sides:
        found["autocast_speed_ratio"] = times_as_fast(sides[AUTOCAST])
    found["memory_ratio"] = max(project["peak_bytes"]) / max(reference["peak_bytes"])
    if project["gpu_bytes"] and reference["gpu_bytes"]:
        found["gpu_memory_ratio"] = max(project["gpu_bytes"]) / max(reference["gpu_bytes"])
    return found


def throughput(side: dict[str, Any], images: int) -> float:
    """Images per second, queries and supports alike, of repetitions with so many: in a row where that was measured."""
    return float(images / side.get("summary_row_seconds", side["summary_seconds"])["median"])


def in_turns(
    jobs: Mapping[str, Callable[[], dict[str, Any]]], rounds: int, console: Console
) -> dict[str, list[dict[str, Any]]]:
    """The results of each of ``jobs``, which take turns."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    with console.status("") as status:
        for number in range(rounds):
            for name, job in jobs.items():
                status.update(f"round {number + 1} of {rounds}: {name}")
                found[name].append(job())
    return found


def run(
    side: str,
    job: str,
    workload: Workload,
    timeout: float | None = None,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """One job of one side in a new process, in the environment ``environ`` (None: this one's); its result.

    UserError where it fails, with what it said last: :class:`OutOfMemory` where memory was what it lacked,
    :class:`TookTooLong` after ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
        request, result = Path(folder, "request.json"), Path(folder, "result.json")
        asked = {"side": side, "job": job, "workload": vars(workload), "options": options}
        request.write_text(json.dumps(asked))
        command = [sys.executable, "-m", "benchmarks.worker", str(request), str(result)]
        with memory.watched_gpu(workload.device == "cuda") as gpu:
            try:
                done = subprocess.run(
                    command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=timeout
                )
            except subprocess.TimeoutExpired:
                raise TookTooLong(f"The {side} was stopped after {timeout:.0f} s ({job}).") from None
        if done.returncode != 0 or not result.exists():
            said = done.stderr[-3000:].strip()
            if lacked_memory(done.returncode, said):
                raise OutOfMemory(
                    f"The {side} ran out of memory ({job}, --batch {workload.batch}): take less."
                )
            raise UserError(f"The {side} failed ({job}). {said}")
        found = json.loads(result.read_text())
        if "window" in found:
            found["utilisation"] = memory.utilisation(gpu.samples, *found["window"])
        return {**found, "gpu_bytes": gpu.bytes}


def lacked_memory(status: int, message: str) -> bool:
    """Whether a process that ended so was out of memory; Linux kills with SIGKILL where the machine's is used up."""
    return status in (NO_MEMORY, -9) or any(words in message for words in NO_MEMORY_MESSAGES)


def machine(device: str) -> dict[str, Any]:
    """The hardware that the numbers belong to; of the GPU None where there is none, or it does not say."""
    model = re.search(r"^model name\s*:\s*(.+)$", processor(), re.MULTILINE)
    found = cuda_facts(runtime.probe_cuda()) if device == "cuda" else {}
    return {
        "cpu": model.group(1) if model else platform.processor() or "unknown",
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        **{name: found.get(name) for name in ("gpu", "driver", "toolkit", "cudnn")},
        "system": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],  # more than about 0.5 means that others were at work
    }


def header(name: str, device: str, workload: Workload | None = None) -> dict[str, Any]:
    """The head of every record: the measurement, the command, the date, the machine, and the workload where there is one.

    Of the command without its ``--out`` and without the folders of data and weights: those are this machine's.
    """
    words = [without_path(word) for word in sys.argv[1:]]
    if "--out" in words:
        at = words.index("--out")
        del words[at : at + 2]
    return {
        "benchmark": name,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *words]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(device),
        **({} if workload is None else {"workload": dict(vars(workload))}),
    }


def without_path(override: str) -> str:
    """Folders and files belong to one machine; their names may stay."""
    key, _, value = override.partition("=")
    local = "/" in value and key.split(".")[-1] in ("root", "weights")
    return f"{key}={Path(value).name}" if local else override


def write(name: str, record: dict[str, Any], out: str | None) -> Path:
    """Write ``record`` as JSON to ``out``, by default below benchmarks/results, and return the path."""
    path = Path(out) if out else RESULTS / f"{name}.json"
    write_json(path, record)
    return path


def write_json(path: Path, content: Any) -> None:
    """``content``, whole; the folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def scalars(run: Path, tag: str) -> list[Any]:
    """The points (wall_time, step, value) of a curve in a run's TensorBoard events, none where there is no such curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return list(events.Scalars(tag)) if tag in events.Tags()["scalars"] else []
