"""What happens between composing a configuration and running it: check, say, make the run's directory."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, TypeVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from cpanet.config.against_data import check_folder
from cpanet.config.check import validate
from cpanet.config.choices import announce
from cpanet.config.launch import report
from cpanet.config.naming import claim
from cpanet.errors import UserError

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
        check_folder(validate(config))
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
        overrides = _sweep_overrides(config)
        _check_some_job_can_run(config, overrides)
        announce(config, Console())
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
                passed_on.append(f"hydra.sweep.dir={_quoted(str(directory))}")


def _sweep_overrides(config: DictConfig) -> list[Override]:
    """What Hydra's sweepers sweep over: their own ``params``, then the command line."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    texts = [f"{key}={values}" for key, values in params.items()] + list(config.hydra.overrides.task)
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(loader).parse_overrides(texts)


def _check_some_job_can_run(config: DictConfig, overrides: list[Override]) -> None:
    """Stop before anything is written where a value is no option at all, or where every job would be refused.

    Every swept value is tried once, beside the first of the others: the sum of the axes, not their product.
    A job that is refused for its values fails alone, later, and the others run.
    """
    loader = GlobalHydra.instance().config_loader()
    refusal, runnable = None, False
    for job in _probes(overrides):
        job_config = loader.load_configuration("config", [*config.hydra.overrides.hydra, *job], RunMode.RUN)
        try:
            check_folder(validate(job_config))
            runnable = True
        except UserError as error:
            refusal = refusal or error
    if refusal is not None and not runnable:
        raise refusal


def _probes(overrides: list[Override]) -> Iterator[list[str]]:
    """Jobs, as lists of overrides, in which every value of every discrete axis occurs."""
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_discrete_sweep():
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not axes[key]:
                raise UserError(f"{override.input_line}: nothing to sweep over.")
        elif not override.is_sweep_override():
            axes[key] = [override.input_line or ""]
    first = {key: texts[0] for key, texts in axes.items()}
    yield list(first.values())
    for key, texts in axes.items():
        for text in texts[1:]:
            yield list({**first, key: text}.values())


def _typed(config: DictConfig, key: str) -> bool:
    """Whether ``key`` was given on the command line."""
    return any(text.lstrip("+").split("=")[0] == key for text in config.hydra.overrides.hydra)


def _quoted(text: str) -> str:
    """``text`` as a quoted string in Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
