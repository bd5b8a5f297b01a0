"""Everything around Hydra's entry point: what is registered before it, and how it ends."""

from __future__ import annotations

import argparse
import errno
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Callable, NoReturn

import hydra
from hydra._internal import hydra as hydra_app
from hydra._internal import utils as hydra_utils

from cpanet.cli.loader import ConfigLoader
from cpanet.cli.naming import quoted
from cpanet.console import console, program, replace_unencodable, until_closed
from cpanet.errors import UserError
from cpanet.signals import of_this_process

PATHS = (
    "resume",
    "checkpoint",
    "support",
    "query",
    "clean",
    "hydra.run.dir",
    "hydra.sweep.dir",
)  # of directories that this program names, commas and all, and of pictures, named by anybody
SWEPT_PATHS = ("data.root", "backbone.weights", "predict.category")  # of which a sweep may have several
PLAIN = re.compile(r"(?=.*[A-Za-z])[\w/.+@%*?-]*", re.ASCII)  # read by Hydra as a text without quotes
NUMBER = re.compile(r"[-+]?[\d._]*")  # left as one, and refused as a value of a wrong type
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
INTERPOLATED = re.compile(r".*\$\{.*")
PARTS = re.compile(rf"(?:{QUOTED.pattern}|[^,])+")  # between commas that are not in quotes
FUNCTION = re.compile(r"(choice|glob|sort|shuffle|tag)\(.*\)")  # of Hydra's grammar

hydra_main = sys.modules["hydra.main"]  # the module: hydra.main itself is the decorator
CANNOT_WRITE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)
PROCESS_LOST = ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError")  # joblib's, submitit's


def register() -> None:
    """Teach Hydra this project's loader and error reports. Call before ``@hydra.main``.

    Hydra has no public place for a loader or for error reports, so three of its internal names are replaced,
    here and nowhere else. A Hydra that no longer has them is refused rather than half supported.
    """
    internals = [
        (hydra_app, "ConfigLoaderImpl"),
        (hydra_app, "run_and_report"),
        (hydra_utils, "run_and_report"),
        (hydra_main, "get_args_parser"),
    ]
    if not all(hasattr(module, name) for module, name in internals) or not ConfigLoader.supported():
        raise UserError(
            f"hydra-core {hydra.__version__} is not supported. Run: pip install 'hydra-core>=1.3.2,<1.4'"
        )
    setattr(hydra_app, "ConfigLoaderImpl", ConfigLoader)  # noqa: B010
    for module in (hydra_app, hydra_utils):
        setattr(module, "run_and_report", _call)  # noqa: B010
    setattr(hydra_main, "get_args_parser", _parser)  # noqa: B010


def launch(main: Callable[[], Any], at_loss: Callable[[], None]) -> NoReturn:
    """Run Hydra's ``main`` and exit: 0 done, 2 a UserError, 1 another failure, 130 interrupted.

    ``at_loss``: what is still to be done where the processes of jobs are gone.
    """
    replace_unencodable()
    console.forget()
    typed = sys.argv[1:]
    sweep = any(a in ("-m", "--multirun") or a.startswith("sweep=") for a in typed)
    sys.argv[1:] = [quote_path(argument, sweep) for argument in sys.argv[1:]]
    signal.signal(signal.SIGTERM, of_this_process(_interrupt))  # as Ctrl-C
    try:
        refuse_undecoded(typed)
        with until_closed():
            main()
    except KeyboardInterrupt as error:
        sys.exit(report(KeyboardInterrupt(again(typed)) if sweep else error))
    except Exception as error:
        if type(error).__name__ in PROCESS_LOST:
            at_loss()
        sys.exit(report(error))
    sys.exit(0)


def refuse_undecoded(typed: Sequence[str]) -> None:
    """UserError for an argument that the locale cannot decode: no file of that name could be opened or recorded."""
    for argument in typed:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = argument.encode("utf-8", "replace").decode()
            raise UserError(
                f"{shown}: the locale ({sys.getfilesystemencoding()}) cannot read this argument. "
                "Set LC_ALL=C.UTF-8, or start Python with PYTHONUTF8=1."
            ) from error


def again(typed: Sequence[str]) -> str:
    """How to go on with the sweep that ``typed`` began."""
    kept = [argument for argument in typed if not argument.startswith("resume=")]
    return f"To go on: {program()} {shlex.join([*kept, 'resume=true'])}"


def quote_path(argument: str, sweep: bool = False) -> str:
    """``resume=outputs/fold=0,seed=1`` in quotes for Hydra, for which a comma separates the values of a sweep.

    In a ``sweep`` commas separate paths of data and weights, each of which is quoted. What is in quotes already, and
    what OmegaConf is to fill in (``${oc.env:HOME}``), stays as it is.
    """
    key, _, value = argument.partition("=")
    name = key.lstrip("+")
    if name not in PATHS + SWEPT_PATHS or (sweep and FUNCTION.fullmatch(value)):
        return argument
    parts = PARTS.findall(value) if sweep and name in SWEPT_PATHS else [value]
    left = (PLAIN, QUOTED, INTERPOLATED, *([NUMBER] if name in SWEPT_PATHS else []))
    return f"{key}=" + ",".join(p if any(kind.fullmatch(p) for kind in left) else quoted(p) for p in parts)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def report(error: BaseException) -> int:
    """Say on stderr, and in the run's log, what ended the run, and return the exit status that goes with it."""
    status, text = ended(error)
    print(text, file=sys.stderr)
    console.keep(text)
    return status


def ended(error: BaseException) -> tuple[int, str]:
    """Exit status and words of what ended a run."""
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        file = error.filename or "a file"
        return 2, f"error: {file} cannot be written ({error.strerror}). Free space, or start elsewhere."
    if isinstance(error, KeyboardInterrupt):
        return 130, f"interrupted. {error}" if str(error) else "interrupted"
    if isinstance(error, ValueError) and str(error).startswith("Only one of --run"):  # Hydra's own check
        return (
            2,
            "error: -m, --cfg, --info and --run exclude each other. To see a job's configuration: --cfg without -m.",
        )
    if type(error).__name__ in PROCESS_LOST:
        return 1, (
            "error: the processes of jobs ended without a word (killed, or out of memory). "
            "The same command with resume=true runs what is missing."
        )
    return 1, "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()


def _parser() -> argparse.ArgumentParser:
    """Hydra's, which says what it does not know as every other mistake is said."""
    parser: argparse.ArgumentParser = hydra_utils.get_args_parser()
    setattr(parser, "error", _refuse)  # noqa: B010
    return parser


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}. See all flags, groups and keys: {program()} --help")


def _call(function: Callable[[], Any]) -> Any:
    """In place of Hydra's ``run_and_report``: let errors reach :func:`launch`."""
    return function()
