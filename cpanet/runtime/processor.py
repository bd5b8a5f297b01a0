"""The processor of this machine: what it is, how many threads the CPU kernels use, and subnormal numbers."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import os
import platform
from functools import lru_cache
from pathlib import Path

LINES = ("model", "flags", "Features", "cpu family")
CGROUP_FILES = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
FLUSH_RESULTS, FLUSH_INPUTS = 0x8000, 0x0040  # of the control and status register MXCSR
MXCSR = 7  # its place in the C library's fenv_t, in words of 4 bytes


@lru_cache(maxsize=1)
def processor() -> str:
    """Model and instruction sets of the first processor, as Linux names them; empty where it does not."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in first.splitlines() if line.startswith(LINES))


def available_cpus(cgroup: tuple[Path, ...] = CGROUP_FILES) -> int:
    """CPUs that this process may really use: its affinity, bounded by the container's quota.

    OpenMP sees the affinity alone and starts 64 threads in a container that was given two CPUs of 64.
    """
    granted = [max(1, math.ceil(quota)) for quota in map(_quota, cgroup) if quota is not None]
    return min([len(os.sched_getaffinity(0)), *granted])


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


def flush_subnormals() -> bool:
    """Switch this thread, and those it starts, to zero for numbers below 1.2e-38; whether that could be done.

    Jittor compiles operators with -Ofast, and loading one may switch the processor to taking such numbers for zero: those
    loaded early in a process computed without, those after with. A resumed run loads them at other moments, and the second
    moments of AdamW then differed in their last bits.
    """
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return False
    library = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
    environment = (ctypes.c_uint32 * 16)()
    if library.fegetenv(environment) != 0:
        return False
    environment[MXCSR] |= FLUSH_RESULTS | FLUSH_INPUTS
    return bool(library.fesetenv(environment) == 0)
