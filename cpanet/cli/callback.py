"""Steps between composing a configuration and running it: check, announce, make the run's directory.

For a sweep see ``cpanet.sweep.callback``.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, TypeVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from cpanet import tasks
from cpanet.cli.auto import announce
from cpanet.cli.check_config import check
from cpanet.cli.launch import report
from cpanet.cli.locks import FILE, lock_directory, unlock_directory
from cpanet.cli.naming import create_run_dir, make_run_dir
from cpanet.errors import UserError
from cpanet.records import result_file

CHECKED: dict[Path, Any] = {}  # the configuration of the run that is about to start in a directory
RESULTS = (result_file.FILE, "checkpoints", "predictions.csv")  # left by a run that has begun
SWEEP = "jobs.json"  # and a sweep
Hook = TypeVar("Hook", bound=Callable[..., None])


def or_exit(hook: Hook) -> Hook:
    """Hydra turns a callback's exceptions into warnings; a bad configuration has to end the command."""

    @functools.wraps(hook)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            hook(*args, **kwargs)
        except Exception as error:
            sys.exit(report(error))

    return wrapped  # type: ignore[return-value]


class PrepareRun(Callback):
    """Checks a configuration before anything is written, and gives each run a directory of its own."""

    def __init__(self) -> None:
        self.made: list[Path] = []  # folders of a run, innermost first

    @or_exit
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        checked = check(config)
        tasks.preflight(checked)
        announce(config)
        if checked.task == "explore":  # a page leaves nothing behind
            directory = Path(tempfile.mkdtemp(prefix="cpanet-explore-"))
        elif not config.resume and not is_typed(config, "hydra.run.dir"):
            wanted = Path(config.hydra.run.dir).absolute()
            self.made = [] if wanted.parent.exists() else [wanted.parent]
            directory = create_run_dir(wanted)
            self.made.insert(0, directory)
            lock_directory(directory)
        else:
            directory = Path(config.hydra.run.dir).absolute()
            make_run_dir(directory)
            lock_directory(directory)
            if not config.resume:
                refuse_used(directory)
        with read_write(config), open_dict(config):
            config.hydra.run.dir = str(directory)
        CHECKED[directory] = checked

    @or_exit
    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        unlock_directory(Path(config.hydra.run.dir))
        if config.task == "explore":
            shutil.rmtree(config.hydra.run.dir, ignore_errors=True)
        job_return: JobReturn = kwargs["job_return"]
        if job_return.status is JobStatus.FAILED:  # before Hydra adds its own words to the error
            error = job_return._return_value
            if isinstance(error, UserError) and self.made:
                remove_unused(*self.made)
            raise error


def refuse_used(directory: Path) -> None:
    """Raises UserError where ``directory`` holds the results of a run or of a sweep: those are never overwritten."""
    used = [name for name in (*RESULTS, SWEEP) if (directory / name).exists()]
    if used:
        unlock_directory(directory)
        kind, go_on = ("sweep", "-m hydra.sweep.dir") if used == [SWEEP] else ("run", "resume")
        raise UserError(
            f"hydra.run.dir={directory}: holds a {kind} already ({', '.join(used)}). "
            f"To go on with it: {go_on}={directory}; to start anew: another directory, or none."
        )


def remove_unused(directory: Path, *parents: Path) -> None:
    """Remove what a run that was refused leaves behind: its folder, with nothing but the configuration and an empty log.

    ``parents`` that were made for it go too, unless another run has one of its own there by now.
    """
    found = [path for path in directory.rglob("*") if path.is_file()]
    if any(path.parent.name != ".hydra" and path.name not in ("run.log", FILE) for path in found):
        return
    with contextlib.suppress(OSError):
        for path in found:
            path.unlink()
        for folder in (directory / ".hydra", directory, *parents):
            if folder.is_dir():
                folder.rmdir()


def is_typed(config: DictConfig, key: str) -> bool:
    """Whether ``key`` was given on the command line."""
    return any(text.lstrip("+").split("=")[0] == key for text in config.hydra.overrides.hydra)
