"""Everything around Hydra's entry point: what is registered before it, and how it ends."""

from __future__ import annotations

import errno
import re
import signal
import sys
import traceback
from typing import Any, Callable, NoReturn

import hydra
from hydra._internal import hydra as hydra_app
from hydra._internal import utils as hydra_utils

from cpanet.config.loader import ConfigLoader
from cpanet.errors import UserError
from cpanet.signals import of_this_process

PATHS = (
    "resume",
    "checkpoint",
    "support",
    "query",
    "hydra.run.dir",
    "hydra.sweep.dir",
)  # of directories that this program names, commas and all, and of pictures, named by anybody
PLAIN = re.compile(r"(?=.*[A-Za-z])[\w/.+@%*?-]*", re.ASCII)  # what Hydra reads as a text without quotes

CANNOT_WRITE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)
PROCESS_LOST = ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError")  # joblib's, submitit's


def register() -> None:
    """Teach Hydra this project's loader and error reports. Call before ``@hydra.main``.

    Hydra has no public place for a loader or for error reports, so two of its internal names are replaced,
    here and nowhere else. A Hydra that no longer has them is refused rather than half supported.
    """
    internals = [
        (hydra_app, "ConfigLoaderImpl"),
        (hydra_app, "run_and_report"),
        (hydra_utils, "run_and_report"),
    ]
    if not all(hasattr(module, name) for module, name in internals) or not ConfigLoader.supported():
        raise UserError(
            f"hydra-core {hydra.__version__} is not supported. Run: pip install 'hydra-core>=1.3.2,<1.4'"
        )
    setattr(hydra_app, "ConfigLoaderImpl", ConfigLoader)  # noqa: B010
    for module in (hydra_app, hydra_utils):
        setattr(module, "run_and_report", _call)  # noqa: B010


def launch(main: Callable[[], Any], at_loss: Callable[[], None]) -> NoReturn:
    """Run Hydra's ``main`` and exit: 0 done, 2 a UserError, 1 another failure, 130 interrupted.

    ``at_loss``: what is still to be done where the processes of jobs are gone.
    """
    sys.argv[1:] = [quote_path(argument) for argument in sys.argv[1:]]
    signal.signal(signal.SIGTERM, of_this_process(_interrupt))  # as Ctrl-C
    try:
        main()
    except KeyboardInterrupt as error:
        sys.exit(report(error))
    except Exception as error:
        if type(error).__name__ in PROCESS_LOST:
            at_loss()
        sys.exit(report(error))
    sys.exit(0)


def quote_path(argument: str) -> str:
    """``resume=outputs/fold=0,seed=1`` in quotes for Hydra, for which a comma separates the values of a sweep."""
    key, _, value = argument.partition("=")
    if key not in PATHS or PLAIN.fullmatch(value) or set(value) & set("'\"$"):
        return argument
    return f"{key}='{value}'"


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def report(error: BaseException) -> int:
    """Say on stderr what ended the run, and return the exit status that goes with it."""
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
        return 2
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        print(
            f"error: {error.filename or 'a file'} cannot be written ({error.strerror}). Free space, or start elsewhere.",
            file=sys.stderr,
        )
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    if type(error).__name__ in PROCESS_LOST:
        print(
            "error: the processes of jobs ended without a word (killed, or out of memory). "
            "The same command with resume=true runs what is missing.",
            file=sys.stderr,
        )
        return 1
    traceback.print_exception(type(error), error, error.__traceback__)
    return 1


def _call(function: Callable[[], Any]) -> Any:
    """In place of Hydra's ``run_and_report``: let errors reach :func:`launch`."""
    return function()
