"""How many threads Jittor's CPU kernels use."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import os
from pathlib import Path

CGROUP_FILES = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))


def available_cpus(cgroup: tuple[Path, ...] = CGROUP_FILES) -> int:
    """CPUs that this process may really use: its affinity, bounded by the container's quota.

    OpenMP sees the affinity alone and starts 64 threads in a container that was given two CPUs of 64.
    """
    cpus = len(os.sched_getaffinity(0))
    for path in cgroup:
        quota = _quota(path)
        if quota is not None:
            cpus = min(cpus, max(1, math.ceil(quota)))
    return cpus


def _quota(path: Path) -> float | None:
    """CPUs granted by a cgroup file (version 2: "quota period"; version 1: two files), None: no bound."""
    try:
        words = path.read_text().split()
        if path.name == "cpu.cfs_quota_us":
            words.append(path.with_name("cpu.cfs_period_us").read_text().strip())
        quota, period = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def set_threads(count: int) -> None:
    """Sets OpenMP's thread count in the running process (the calling thread's kernels)."""
    library = _openmp()
    if library is not None:
        library.omp_set_num_threads(int(count))


def current_threads() -> int:
    """OpenMP's thread count in the running process: what the calling thread's kernels use."""
    library = _openmp()
    return available_cpus() if library is None else int(library.omp_get_max_threads())


def _openmp() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("gomp")
    return None if name is None else ctypes.CDLL(name)
