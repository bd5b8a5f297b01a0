"""What happens between composing a configuration and running it: check, say, make the run's directory.

For a sweep see ``cpanet.sweep.callback``.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, TypeVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from rich.console import Console

from cpanet.config.against_data import check_folder, read_images
from cpanet.config.check import validate
from cpanet.config.choices import announce
from cpanet.config.inputs import check_inputs
from cpanet.config.launch import report
from cpanet.config.naming import claim
from cpanet.errors import UserError

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


class RunDirectory(Callback):
    """Checks a configuration before anything is written, and gives each run a directory of its own."""

    def __init__(self) -> None:
        self.made: list[Path] = []  # folders of a run, innermost first

    @or_exit
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        checked = validate(config)
        check_folder(checked)
        check_inputs(checked)
        read_images(checked)
        announce(config, Console())
        if checked.task == "explore":  # a page leaves nothing behind
            directory = Path(tempfile.mkdtemp(prefix="cpanet-explore-"))
        elif not config.resume and not is_typed(config, "hydra.run.dir"):
            wanted = Path(config.hydra.run.dir).absolute()
            self.made = [] if wanted.parent.exists() else [wanted.parent]
            directory = claim(wanted)
            self.made.insert(0, directory)
        else:
            return
        with read_write(config), open_dict(config):
            config.hydra.run.dir = str(directory)

    @or_exit
    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        if config.task == "explore":
            shutil.rmtree(config.hydra.run.dir, ignore_errors=True)
        job_return: JobReturn = kwargs["job_return"]
        if job_return.status is JobStatus.FAILED:  # before Hydra adds its own words to the error
            error = job_return._return_value
            if isinstance(error, UserError):
                remove_unused(self.made)
            raise error


def remove_unused(folders: Sequence[Path]) -> None:
    """Remove what a run that was refused leaves behind: folders with nothing but the configuration and an empty log."""
    for folder in folders:
        found = [path for path in folder.rglob("*") if path.is_file()]
        if any(path.parent.name != ".hydra" and path.name != "run.log" for path in found):
            return
        with contextlib.suppress(OSError):
            for path in found:
                path.unlink()
            for inner in (folder / ".hydra", folder):
                if inner.is_dir():
                    inner.rmdir()


def is_typed(config: DictConfig, key: str) -> bool:
    """Whether ``key`` was given on the command line."""
    return any(text.lstrip("+").split("=")[0] == key for text in config.hydra.overrides.hydra)


def quoted(text: str) -> str:
    """``text`` as a quoted string in Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
