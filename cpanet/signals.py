"""Signal handlers that stay in the process that set them, and stopping a run by one."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Callable

Handler = Callable[[int, Any], Any]
SA_RESETHAND = 0x80000000


def of_this_process(handler: Handler) -> Handler:
    """``handler``, and the default action in processes forked from this one.

    Jittor forks compilers and ends them with SIGTERM; one that handled it as this program does would be waited for
    without end.
    """
    owner = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() == owner:
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return handle


@contextmanager
def stop_signals(log: Callable[[str], None] = print) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag that the loop asks for; a second Ctrl-C ends the process at once.

    At once, also in the middle of a kernel that takes seconds, during which no handler of Python's runs: the first
    signal makes the system itself take the second one.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not asked:
            asked = True
            log("stopping after this step; Ctrl-C to stop at once")

    kept = {}
    with suppress(ValueError):  # not in the main thread: signals stay as they are
        for number in (signal.SIGINT, signal.SIGTERM):
            kept[number] = signal.signal(number, of_this_process(ask))
            # Jittor takes an interrupted system call, as it waits for its lock, for a failure.
            signal.siginterrupt(number, False)
        _once_only(signal.SIGINT)
    try:
        yield lambda: asked
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


class _SigAction(ctypes.Structure):
    """``struct sigaction`` of Linux's C libraries."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * (1024 // (8 * ctypes.sizeof(ctypes.c_ulong)))),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def _once_only(number: int) -> None:
    """Let the handler of ``number`` take the next signal only."""
    library, action = ctypes.CDLL(None), _SigAction()
    if library.sigaction(number, None, ctypes.byref(action)) == 0:
        action.flags = ctypes.c_int(action.flags | SA_RESETHAND).value
        library.sigaction(number, ctypes.byref(action), None)
