"""Description of this machine: rows for the table, and facts for a record that leaves the machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpanet.runtime import CudaReport, Runtime
from cpanet.runtime.cuda.probe import GIB, dotted

DRIVER_FILE = Path("/proc/driver/nvidia/version")


def driver_release(file: Path = DRIVER_FILE) -> str | None:
    """The driver's own number (580.65.06), by what its kernel module says of itself."""
    try:
        found = re.search(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s", file.read_text(errors="replace"))
    except OSError:
        return None
    return found.group(1) if found else None


def cuda_facts(report: CudaReport) -> dict[str, Any]:
    """CUDA's parts as they were found, None for a missing one; no folders."""
    driver, toolkit = report.driver, report.toolkit
    gpu = driver.gpus[0] if driver is not None else None
    return {
        "usable": report.usable,
        "reason": without_folders(report.reason),
        "gpu": gpu.name if gpu else None,
        "gpus": len(driver.gpus) if driver is not None else 0,
        "compute_capability": gpu.compute_capability if gpu else None,
        "memory_gib": round(gpu.memory / GIB, 1) if gpu else None,
        "driver": driver_release() if driver is not None else None,
        "driver_cuda": dotted(driver.version) if driver is not None else None,
        "toolkit": dotted(toolkit.version) if toolkit is not None else None,
        "cudnn": dotted(toolkit.cudnn_version) or None if toolkit is not None else None,
    }


def rows(
    device: str, precisions: tuple[str, ...], versions: Mapping[str, str], report: CudaReport
) -> dict[str, str]:
    """The findings by name, in the order of the table."""
    found = {"Python": versions["python"], "Jittor": versions["jittor"], "numpy": versions["numpy"]}
    found["compiler"] = versions["compiler"]
    found["device"] = device
    facts = cuda_facts(report)
    if facts["gpu"]:
        found["GPU"] = (
            f"{facts['gpu']}, {facts['memory_gib']} GiB, compute capability {facts['compute_capability']}"
        )
        own = f"{facts['driver']}, " if facts["driver"] else ""
        found["driver"] = f"{own}serves CUDA up to {facts['driver_cuda']}"
    toolkit = report.toolkit
    if toolkit is not None:
        found["CUDA toolkit"] = f"{facts['toolkit']} ({toolkit.nvcc})"
        found["cuDNN"] = f"{facts['cudnn'] or 'no headers'} ({toolkit.cudnn})" if toolkit.cudnn else "none"
    found["precision"] = ", ".join(precisions)
    return found


def runtime_rows(runtime: Runtime, seconds: float) -> dict[str, str]:
    """The rows that only a running Jittor can fill."""
    found = {"started in": f"{seconds:.1f} s"}
    if runtime.why_not_cuda:
        found["why not CUDA"] = runtime.why_not_cuda
    wheel = runtime.versions["onednn-cpu-gomp"]
    found["oneDNN"] = (
        f"{runtime.onednn} (wheel {wheel})" if runtime.onednn else "none, so convolutions on the CPU are slow"
    )
    found["cache"] = str(runtime.cache_home)
    return found


def without_folders(text: str) -> str:
    """``text`` with every absolute path cut to its last name: a record may be shown to others."""
    return re.sub(r"(?<![\w.…])/(?:[^\s/():;,'\"]+/)+([^\s/():;,'\"]*)", r"…/\1", text)
