"""The kernels of this folder, and whether they can be used now."""

from __future__ import annotations

from pathlib import Path

from cpanet.runtime import jt
from cpanet.runtime.native import load_kernels

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted(FOLDER.glob("*.cc")))
HEADERS = tuple(sorted(FOLDER.glob("*.h")))


def usable() -> bool:
    """True on the CPU, once the kernels are compiled and loaded; on CUDA Jittor's own operators are used."""
    return not jt.flags.use_cuda and load_kernels(SOURCES, HEADERS)
