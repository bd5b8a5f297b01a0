"""Tables that keep up with a sweep: rewritten after every job and at its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

log = logging.getLogger(__name__)


@contextmanager
def outlived() -> Iterator[None]:
    """Turns a failure of the tables inside into a warning: a sweep outlives it."""
    try:
        yield
    except Exception as error:
        log.warning("the tables could not be written: %s: %s", type(error).__name__, error)


@outlived()
def write_tables(sweep: Path) -> None:
    """The report of a sweep, into its directory."""
    from cpanet.report.write import write_report  # pandas: not at the start of every command

    write_report([sweep], sweep)


class SweepTables(Callback):
    """Writes the report of a multirun into its directory."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """After a job of a multirun; a single run has no table."""
        if "MULTIRUN" in str(config.get("hydra", {}).get("mode")):
            self.on_multirun_end(config)

    @outlived()
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Once all jobs are done."""
        write_tables(Path(str(config.hydra.sweep.dir)).absolute())
