"""Signal handlers that stay in the process that set them."""

from __future__ import annotations

import os
import signal
from typing import Any, Callable

Handler = Callable[[int, Any], Any]


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
