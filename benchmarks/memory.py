"""Memory of a process as the kernel counts it (Linux), and of a GPU as its driver does."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes."""
    with suppress(OSError):
        match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(match.group(1)) * 1024 if match else None
    return None


def resident() -> int | None:
    """Bytes of RAM that this process holds now."""
    return _status("VmRSS")


def peak() -> int:
    """The most bytes of RAM that this process has held since :func:`reset_peak`, or since its start."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Let :func:`peak` begin anew; where the kernel refuses, it goes on counting from the process's start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class GpuWatch:
    """Context that watches the GPU, whoever uses it, by asking its driver ten times a second.

    ``bytes`` is the highest rise of its memory seen, ``samples`` are (seconds since 1970, share of the time before in
    which a kernel ran); None and empty where no ``nvidia-smi`` answers. Asked of the driver and not of
    either framework, so that both are measured alike. The GPU must be idle before.
    """

    INTERVAL = 0.1  # s

    def __init__(self, watch: bool) -> None:
        self._tool = shutil.which("nvidia-smi") if watch else None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.bytes: int | None = None
        self.samples: list[tuple[float, float]] = []

    def _read(self) -> tuple[int, float | None]:
        """Bytes of memory in use and, where the driver tells, the share of time in which a kernel ran."""
        query = "--query-gpu=memory.used,utilization.gpu"
        command = [str(self._tool), query, "--format=csv,noheader,nounits", "--id=0"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        memory, utilisation = (field.strip() for field in done.stdout.strip().split(","))
        return int(memory) * 1024**2, float(utilisation) / 100 if utilisation.isdecimal() else None

    def _watch(self, before: int) -> None:
        while not self._stop.wait(self.INTERVAL):
            with suppress(OSError, ValueError, subprocess.SubprocessError):
                used, utilisation = self._read()
                self.bytes = max(self.bytes or 0, used - before)
                if utilisation is not None:
                    self.samples.append((time.time(), utilisation))

    def __enter__(self) -> GpuWatch:
        if self._tool is not None:
            with suppress(OSError, ValueError, subprocess.SubprocessError):
                self._thread = threading.Thread(target=self._watch, args=(self._read()[0],), daemon=True)
                self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


def utilisation(samples: list[tuple[float, float]], begin: float, end: float) -> float | None:
    """Mean share of the time between two moments in which a kernel ran; None where nobody looked."""
    seen = [share for moment, share in samples if begin <= moment <= end]
    return sum(seen) / len(seen) if seen else None
