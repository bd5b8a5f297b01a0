"""Locks between processes, our own and Jittor's: nobody waits for one in silence, or for ever."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, TextIO

from cpanet.errors import UserError
from cpanet.runtime.home import own_folder
from cpanet.runtime.libraries import small_library

COMPILING = "compiling"
WATCH_SOURCE = Path(__file__).with_name("watch_lock.cc")
REPORT_SECONDS = 60.0
# The system frees the lock of a process that has ended: this is for one that hangs, or was stopped
LOCK_SECONDS = 3600.0
KERNEL_LIST = Path("/proc/locks")


@contextmanager
def import_lock(home: Path) -> Iterator[Callable[[], None]]:
    """One process at a time prepares and compiles; the others wait and find it done.

    Jittor has a lock of its own, but makes folders and reads half-written files outside of it. The holder gets
    a function to call when it starts to compile: those who wait then say why at once, and else after a minute.
    """
    folder = own_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "import.lock", "a+") as handle:
        wait_for(handle)
        try:
            handle.truncate(0)
            yield lambda: print(COMPILING, end="", file=handle, flush=True)
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was started meanwhile holds the file, too


def wait_for(handle: TextIO, take: Callable[[TextIO, int], None] = fcntl.flock) -> None:
    """Takes the lock of a file; says on standard error what it waits for. UserError after ``LOCK_SECONDS``."""
    start, compiling, named = time.monotonic(), False, False
    while (waited := time.monotonic() - start) < LOCK_SECONDS:
        try:
            return take(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not compiling and _is_announced(handle):
                print("Waiting for another process that is compiling Jittor…", file=sys.stderr, flush=True)
                compiling = True
            if not named and waited >= REPORT_SECONDS:
                print(f"Waiting for {handle.name}, held by {holder(handle)}…", file=sys.stderr, flush=True)
                named = True
            time.sleep(0.05)
    raise UserError(
        f"{handle.name} has been held by {holder(handle)} for {LOCK_SECONDS / 60:.0f} minutes. "
        "End that process, or set JITTOR_HOME to another folder."
    )


def _is_announced(handle: TextIO) -> bool:
    if not handle.readable():  # Jittor opens its own lock to write
        return False
    handle.seek(0)
    return handle.read() == COMPILING


def holder(handle: TextIO) -> str:
    """Who has locked a file, as far as the kernel tells: "process 123"."""
    status = os.fstat(handle.fileno())
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:  # lines like "1: POSIX ADVISORY WRITE 123 fe:00:3138697 0 EOF"; those who wait have an arrow
        locks = [line.split() for line in KERNEL_LIST.read_text().splitlines() if "->" not in line]
    except OSError:
        locks = []
    found = [words[4] for words in locks if len(words) > 5 and words[5] == file]
    return f"process {found[0]}" if found else "another process"


def limit_waits(module: Any) -> None:
    """Gives the lock of ``jittor_utils.lock`` a limit: the one under which Python's part of Jittor compiles."""

    def lock() -> None:
        if not module.disable_lock:
            wait_for(module.jittor_lock.handle)
            module.jittor_lock.is_locked = True

    module.jittor_lock.lock = lock


def watch_operators_lock(folder: Path, compiler: str) -> None:
    """The same for the lock under which operators are compiled: Jittor waits for it in C++.

    Python stands still meanwhile, so that a thread in C++ has to look, and to end the process. Where it cannot be
    compiled, that wait has no limit.
    """
    library = small_library(WATCH_SOURCE, folder, compiler)
    if library is not None:
        library.cpanet_watch_lock(ctypes.c_double(REPORT_SECONDS), ctypes.c_double(LOCK_SECONDS))
