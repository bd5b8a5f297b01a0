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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import memory
from benchmarks.memory import GpuWatch
from benchmarks.workload import Workload
from cpanet import runtime
from cpanet.doctor.machine import cuda_facts
from cpanet.errors import UserError
from cpanet.files import write_atomically
from cpanet.runtime.precision import offered

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


@dataclass(frozen=True)
class Summary:
    """Repeated timings in seconds: median, minimum and spread (the middle half's width)."""

    median: float
    minimum: float
    spread: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Summary:
        low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (0.0, 0.0, 0.0)
        return cls(statistics.median(seconds), min(seconds), high - low, len(seconds))


@dataclass
class Side:
    """Measurements of one side's rounds.

    ``seconds``: of repetitions that were waited for one by one; ``row_seconds``: means over several in a row, waited for
    once at their end.
    """

    seconds: list[float] = field(default_factory=list)
    row_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    gpu_bytes: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, result: dict[str, Any]) -> None:
        self.seconds += result["seconds"]
        self.row_seconds += result.get("row_seconds", [])
        self.peak_bytes.append(result["peak_bytes"])
        if result.get("gpu_bytes"):
            self.gpu_bytes.append(result["gpu_bytes"])
        self.versions = result["versions"]

    @property
    def summary(self) -> Summary:
        return Summary.of(self.seconds)

    @property
    def row(self) -> Summary | None:
        """Steps in a row, as training takes them; None where they were not measured."""
        return Summary.of(self.row_seconds) if self.row_seconds else None

    def asdict(self) -> dict[str, Any]:
        row = {} if self.row is None else {"summary_row_seconds": vars(self.row)}
        return {**vars(self), "summary_seconds": vars(self.summary), **row}


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


def compared(record: dict[str, Any], sides: dict[str, Side]) -> dict[str, Any]:
    """``record`` with every side's numbers; time as reference ÷ project, memory as project ÷ reference."""
    project, reference = sides["project"], sides["reference"]
    record["sides"] = {name: side.asdict() for name, side in sides.items()}
    record["speed_ratio"] = reference.summary.median / project.summary.median
    if project.row and reference.row:
        record["row_speed_ratio"] = reference.row.median / project.row.median
    if AUTOCAST in sides:
        record["autocast_speed_ratio"] = sides[AUTOCAST].summary.median / project.summary.median
    record["memory_ratio"] = max(project.peak_bytes) / max(reference.peak_bytes)
    if project.gpu_bytes and reference.gpu_bytes:
        record["gpu_memory_ratio"] = max(project.gpu_bytes) / max(reference.gpu_bytes)
    return record


def throughput(side: Side, images: int) -> float:
    """Images per second, queries and supports alike, of repetitions with so many: in a row where that was measured."""
    return images / (side.row or side.summary).median


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
        request.write_text(
            json.dumps({"side": side, "job": job, "workload": workload.asdict(), "options": options})
        )
        command = [sys.executable, "-m", "benchmarks.worker", str(request), str(result)]
        with GpuWatch(watch=workload.device == "cuda") as gpu:
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=environ,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=timeout,
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
    """The hardware that the numbers belong to."""
    cpuinfo = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return {
        "cpu": model.group(1) if model else platform.processor() or "unknown",
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        **gpu_facts(device),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],  # more than about 0.5 means that others were at work
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def gpu_facts(device: str) -> dict[str, str | None]:
    """GPU, driver, toolkit and cuDNN that the project works with; None where there is none, or it does not say."""
    found = cuda_facts(runtime.probe_cuda()) if device == "cuda" else {}
    return {name: found.get(name) for name in ("gpu", "driver", "toolkit", "cudnn")}


def write(name: str, record: dict[str, Any], out: str | None) -> Path:
    """Write ``record`` as JSON to ``out``, by default below benchmarks/results, and return the path."""
    path = Path(out) if out else RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def header(name: str, device: str) -> dict[str, Any]:
    """The head of every record: the measurement, the command, the date, the machine."""
    return {
        "benchmark": name,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *_without_out(sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(device),
    }


def _without_out(words: Sequence[str]) -> list[str]:
    """A command's words but where its record goes, a folder of this machine."""
    kept = list(words)
    if "--out" in kept:
        at = kept.index("--out")
        del kept[at : at + 2]
    return kept
