"""Memory of a process as the kernel counts it (Linux), and of a GPU as its driver does."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import threading
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


class GpuMemory:
    """Context that watches the GPU's memory, whoever uses it: ``bytes`` is the highest rise seen, or None.

    Asked of the driver and not of either framework, so that both are measured alike. The GPU must be idle
    before.
    """

    INTERVAL = 0.1  # s

    def __init__(self, watch: bool) -> None:
        self._tool = shutil.which("nvidia-smi") if watch else None
        self._stop = threading.Event()
        self.bytes: int | None = None

    def _used(self) -> int:
        command = [str(self._tool), "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 1024**2

    def _watch(self, before: int) -> None:
        while not self._stop.wait(self.INTERVAL):
            with suppress(OSError, ValueError, subprocess.CalledProcessError):
                self.bytes = max(self.bytes or 0, self._used() - before)

    def __enter__(self) -> GpuMemory:
        if self._tool is not None:
            self._thread = threading.Thread(target=self._watch, args=(self._used(),), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._tool is not None:
            self._stop.set()
            self._thread.join()
