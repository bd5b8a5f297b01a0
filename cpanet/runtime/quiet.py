"""Keeping Jittor's chatter off the terminal, and its hands off the process it is imported into."""

from __future__ import annotations

import atexit
import signal
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

from cpanet.runtime.libraries import small_library

CALM_LINE = "Compiling Jittor for this machine, once (about two minutes)…"
FILTER_SOURCE = Path(__file__).with_name("quiet_cerr.cc")
# Jittor's handlers end the process at once: on Ctrl-C, unseen by Python, and whenever a child is killed.
POOL_SECONDS = 30.0  # for compilers that have nothing left to do
SIGNALS = (signal.SIGINT, signal.SIGCHLD, signal.SIGQUIT)


@contextmanager
def side_effects_undone() -> Iterator[None]:
    """Restores what importing Jittor changes in the process: signal handlers, checking of certificates."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    https = getattr(ssl, "_create_default_https_context", None)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if https is not None:
            ssl._create_default_https_context = https  # Jittor turns verification off for every urlopen


@contextmanager
def calm_compilation(jittor_utils: Any, verbose: bool, announce: Callable[[], None]) -> Iterator[None]:
    """One line instead of hundreds while Jittor compiles itself, and none when there is nothing to compile.

    ``jittor_utils`` is the imported module; its progress class and log level are replaced in memory.
    ``announce`` tells the processes that wait.
    """

    @cache
    def report() -> None:
        print(CALM_LINE, file=sys.stderr, flush=True)
        announce()

    def progress(message: str, count: int) -> SimpleNamespace:
        """In the place of ``jittor_utils.DelayProgress``: after two seconds, as there, says the one line."""
        start = time.monotonic()
        return SimpleNamespace(update=lambda index: report() if time.monotonic() - start > 2 else None)

    if not verbose:
        jittor_utils.LOG.log_silent = 1
        original, jittor_utils.DelayProgress = jittor_utils.DelayProgress, progress
    if not any(Path(jittor_utils.cache_path).glob("**/jittor_core*.so")):
        report()
    try:
        yield
    finally:
        if not verbose:
            jittor_utils.DelayProgress = original
        stop_compile_pool(jittor_utils)


def stop_compile_pool(jittor_utils: Any) -> None:
    """Ends the compiler processes that Jittor otherwise keeps, up to 16 copies of this one, until exit."""
    if getattr(jittor_utils, "pool_size", 0) and hasattr(jittor_utils, "p"):
        # not terminate(): the workers have inherited this program's handler of SIGTERM, and one that waits for its
        # turn at the queue may take the signal and stay, which would be waited for without end
        pool = jittor_utils.p
        pool.close()
        ended = threading.Thread(target=pool.join, daemon=True)
        ended.start()
        ended.join(POOL_SECONDS)
        if ended.is_alive():
            for worker in pool._pool:
                worker.kill()
            ended.join(POOL_SECONDS)
        jittor_utils.pool_size = 0  # run_cmds makes a new pool when it needs one
        atexit.unregister(jittor_utils.pool_cleanup)
        del jittor_utils.p


def silence_operator_progress(folder: Path, compiler: str) -> None:
    """Takes "Compiling Operators(5/6)…" out of C++'s standard error; every other message passes.

    Jittor writes it straight to ``std::cerr``, past every log level, so a small filter is compiled (once, a
    second) and put in front. Without it only the noise remains, so a failure here is nobody's concern.
    """
    library = small_library(FILTER_SOURCE, folder, compiler)
    if library is not None:
        library.cpanet_quiet_cerr()
