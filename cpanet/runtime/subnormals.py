"""Numbers too small for full precision, below 1.2e-38: zero from the first operation on, or results depend on the order.

Jittor compiles operators with -Ofast, and loading one may switch the processor to taking such numbers for zero: those
loaded early in a process computed without, those after with. A resumed run loads them at other moments, and the second
moments of AdamW then differed in their last bits.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform

FLUSH_RESULTS, FLUSH_INPUTS = 0x8000, 0x0040  # of the control and status register MXCSR
MXCSR = 7  # its place in the C library's fenv_t, in words of 4 bytes


def flush_subnormals() -> bool:
    """Switch this thread, and those it starts, to zero for subnormal numbers; whether that could be done."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return False
    library = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
    environment = (ctypes.c_uint32 * 16)()
    if library.fegetenv(environment) != 0:
        return False
    environment[MXCSR] |= FLUSH_RESULTS | FLUSH_INPUTS
    return bool(library.fesetenv(environment) == 0)
