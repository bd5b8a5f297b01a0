"""What happens between composing a configuration and running it: check, say, make the run's directory."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, Callable, TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from rich.console import Console

from cpanet.config.choices import announce
from cpanet.config.launch import report
from cpanet.config.naming import claim
from cpanet.config.schema import validate

Hook = TypeVar("Hook", bound=Callable[..., None])


def _or_exit(hook: Hook) -> Hook:
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

    @_or_exit
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        validate(config)
        announce(config, Console())
        if not _typed(config, "hydra.run.dir"):
            directory = claim(Path(config.hydra.run.dir).absolute())
            with read_write(config), open_dict(config):
                config.hydra.run.dir = str(directory)

    @_or_exit
    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        job_return: JobReturn = kwargs["job_return"]
        if job_return.status is JobStatus.FAILED:  # before Hydra adds its own words to the error
            raise job_return._return_value

    @_or_exit
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        announce(config, Console())
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        varying = {override.key_or_group for override in overrides if override.is_sweep_override()}
        constant = {override.key_or_group for override in overrides} - varying
        with read_write(config), open_dict(config):
            # jobs are composed anew from these overrides, wherever they run
            passed_on = config.hydra.overrides.hydra
            unnamed = set(config.hydra.job.config.override_dirname.exclude_keys) - varying | constant
            passed_on.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(sorted(unnamed))}]")
            if not _typed(config, "hydra.sweep.dir"):
                directory = claim(Path(config.hydra.sweep.dir).absolute())
                config.hydra.sweep.dir = str(directory)
                passed_on.append(f"hydra.sweep.dir='{directory}'")


def _typed(config: DictConfig, key: str) -> bool:
    """Whether ``key`` was given on the command line."""
    return any(text.lstrip("+").split("=")[0] == key for text in config.hydra.overrides.hydra)
