"""The processor of this machine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

LINES = ("model", "flags", "Features", "cpu family")


@lru_cache(maxsize=1)
def processor() -> str:
    """Model and instruction sets of the first processor, as Linux names them; empty where it does not."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in first.splitlines() if line.startswith(LINES))
