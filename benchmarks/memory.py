"""Memory of a process as the kernel counts it (Linux), and of a GPU as its driver does."""

from __future__ import annotations

import re
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 0.1  # s between two questions to the driver
NO_ANSWER = (OSError, ValueError, subprocess.SubprocessError)


def peak() -> int:
    """The most bytes of RAM that this process has held since :func:`reset_peak`, or since its start."""
    with suppress(OSError):
        match = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if match:
            return int(match.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Let :func:`peak` begin anew; where the kernel refuses, it goes on counting from the process's start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@dataclass
class GpuUse:
    """What was seen of a GPU.

    ``bytes`` is the highest rise of its memory, ``samples`` are (seconds since 1970, share of the time before in which a
    kernel ran); None and empty where no ``nvidia-smi`` answers.
    """

    bytes: int | None = None
    samples: list[tuple[float, float]] = field(default_factory=list)


@contextmanager
def watched_gpu(watch: bool) -> Iterator[GpuUse]:
    """Watch the GPU, whoever uses it, by asking its driver ten times a second.

    Asked of the driver and not of either framework, so that both are measured alike. The GPU must be idle before.
    """
    use, stop = GpuUse(), threading.Event()

    def look(before: int) -> None:
        while not stop.wait(INTERVAL):
            with suppress(*NO_ANSWER):
                used, share = _ask()
                use.bytes = max(use.bytes or 0, used - before)
                if share is not None:
                    use.samples.append((time.time(), share))

    thread = None
    if watch:
        with suppress(*NO_ANSWER):
            thread = threading.Thread(target=look, args=(_ask()[0],), daemon=True)
            thread.start()
    try:
        yield use
    finally:
        stop.set()
        if thread is not None:
            thread.join()


def _ask() -> tuple[int, float | None]:
    """Bytes of memory in use and, where the driver tells, the share of time in which a kernel ran."""
    query = "--query-gpu=memory.used,utilization.gpu"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    used, share = (cell.strip() for cell in done.stdout.strip().split(","))
    return int(used) * 1024**2, float(share) / 100 if share.isdecimal() else None


def utilisation(samples: list[tuple[float, float]], begin: float, end: float) -> float | None:
    """Mean share of the time between two moments in which a kernel ran; None where nobody looked."""
    seen = [share for moment, share in samples if begin <= moment <= end]
    return sum(seen) / len(seen) if seen else None
