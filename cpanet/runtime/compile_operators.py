"""Jittor compiles operators in several threads, which change one graph: made safe."""

from __future__ import annotations

import atexit
import os
import shlex
import threading
import time
from pathlib import Path
from typing import Any

from cpanet.runtime.libraries import small_library

EXIT_SECONDS = 5.0  # that a thread may need to come to its first wait
SOURCE = Path(__file__).with_name("compile_operators.cc")


def compile_operators_safely(jittor: Any, folder: Path, compiler: str) -> None:
    """Lets one thread at a time look at the graph; the compilers still run side by side.

    ``compile_operators.cc`` says why. Where it cannot be compiled, operators are compiled one after the other. To be
    called once Jittor is imported and knows whether it compiles for CUDA.
    """
    atexit.register(wait_for_threads)  # runs before Jittor's own, which was registered earlier
    library = small_library(SOURCE, folder, compiler, header_flags(jittor.flags.cc_flags))
    if library is None:
        jittor.flags.use_parallel_op_compiler = 1
    else:
        library.cpanet_compile_operators()


def header_flags(flags: str) -> tuple[str, ...]:
    """Of Jittor's flags for its compiler those by which its headers are read as Jittor itself was compiled."""
    return tuple(flag for flag in shlex.split(flags) if flag.startswith(("-I", "-D", "-std=")))


def wait_for_threads(seconds: float = EXIT_SECONDS) -> None:
    """Returns once no other thread of this process is running, or after ``seconds``.

    At exit Jittor wakes its compiling threads and waits for them to end, without a limit. A thread that has not yet come
    to wait misses that, where the process was short and the machine is busy, and the process would never end.
    """
    end = time.monotonic() + seconds
    while _others_run() and time.monotonic() < end:
        time.sleep(0.01)


def _others_run() -> bool:
    own = str(threading.get_native_id())
    try:
        others = [task for task in os.listdir("/proc/self/task") if task != own]
        return any(_state(task) == "R" for task in others)
    except OSError:  # no /proc
        return False


def _state(task: str) -> str:
    """A letter of ``/proc``: R for a thread that runs or would if it had a processor; nothing for one that has ended."""
    try:
        return Path(f"/proc/self/task/{task}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
