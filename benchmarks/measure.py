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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.memory import GpuMemory
from benchmarks.workload import Workload
from cpanet.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SIDES = ("project", "reference")


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
    """What the rounds of one side gave."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    gpu_bytes: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, result: dict[str, Any]) -> None:
        self.seconds += result["seconds"]
        self.peak_bytes.append(result["peak_bytes"])
        if result.get("gpu_bytes"):
            self.gpu_bytes.append(result["gpu_bytes"])
        self.versions = result["versions"]

    @property
    def summary(self) -> Summary:
        return Summary.of(self.seconds)

    def asdict(self) -> dict[str, Any]:
        return {**vars(self), "summary_seconds": vars(self.summary)}


def compared(record: dict[str, Any], sides: dict[str, Side]) -> dict[str, Any]:
    """``record`` with both sides' numbers; time as reference ÷ project, memory as project ÷ reference."""
    project, reference = sides["project"], sides["reference"]
    record["sides"] = {name: side.asdict() for name, side in sides.items()}
    record["speed_ratio"] = reference.summary.median / project.summary.median
    record["memory_ratio"] = max(project.peak_bytes) / max(reference.peak_bytes)
    if project.gpu_bytes and reference.gpu_bytes:
        record["gpu_memory_ratio"] = max(project.gpu_bytes) / max(reference.gpu_bytes)
    return record


def run(side: str, job: str, workload: Workload, **options: Any) -> dict[str, Any]:
    """One job of one side in a new process; its result. UserError where it fails, with what it said last."""
    with tempfile.TemporaryDirectory(prefix="cpanet-benchmark-") as folder:
        request, result = Path(folder, "request.json"), Path(folder, "result.json")
        request.write_text(
            json.dumps({"side": side, "job": job, "workload": workload.asdict(), "options": options})
        )
        command = [sys.executable, "-m", "benchmarks.worker", str(request), str(result)]
        with GpuMemory(watch=workload.device == "cuda") as gpu:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not result.exists():
            raise UserError(f"The {side} failed ({job}). {done.stderr[-3000:].strip()}")
        return {**json.loads(result.read_text()), "gpu_bytes": gpu.bytes}


def machine(device: str) -> dict[str, Any]:
    """The hardware that the numbers belong to."""
    cpuinfo = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return {
        "cpu": model.group(1) if model else platform.processor() or "unknown",
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "gpu": _gpu_name() if device == "cuda" else None,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],  # more than about 0.5 means that others were at work
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _gpu_name() -> str | None:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write(name: str, record: dict[str, Any], out: str | None) -> Path:
    """Write ``record`` as JSON to ``out``, by default below benchmarks/results, and return the path."""
    path = Path(out) if out else RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return path


def header(name: str, device: str) -> dict[str, Any]:
    """What every record starts with: the measurement, the command, the date, the machine."""
    return {
        "benchmark": name,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(device),
    }
