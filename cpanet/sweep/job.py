"""One job of a sweep, in whatever process: skipped where it is done, recorded where it fails, the rest goes on."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Callable

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cpanet.cli.locks import DirectoryInUse, locked
from cpanet.errors import in_one_line
from cpanet.records.result_file import FILE
from cpanet.report.callback import write_tables
from cpanet.sweep import plan, progress, results

Experiment = Callable[[DictConfig, Path, bool], float]
log = logging.getLogger(__name__)


def run_job(config: DictConfig, experiment: Experiment) -> float:
    """``experiment(config, directory, resume)`` in its run directory; returns its best mIoU.

    A single run raises what goes wrong. A job of a sweep records it and returns not-a-number, so that the other
    jobs run, whoever launches them.
    """
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    if hydra.mode != RunMode.MULTIRUN:
        return experiment(config, directory, bool(config.get("resume")))
    return _Job(config, directory, Path(hydra.sweep.dir).absolute(), int(hydra.job.num)).run(experiment)


def of_several() -> bool:
    """Whether this run is one of a sweep's."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def threads() -> int | None:
    """CPU threads that the launcher grants a job (``cpus_per_task``); None where it does not say."""
    return HydraConfig.get().launcher.get("cpus_per_task") if HydraConfig.initialized() else None


class _Job:
    def __init__(self, config: DictConfig, directory: Path, sweep: Path, number: int) -> None:
        self.config, self.directory, self.sweep = config, directory, sweep
        self.name = os.path.relpath(directory, sweep)
        self.plan = plan.read(sweep) or plan.Plan((), number + 1)
        self.progress = progress.Progress(sweep, self.plan, number, self.name)

    def run(self, experiment: Experiment) -> float:
        planned = self.plan.job(self.name)
        if planned is not None and planned.duplicate_of is not None:
            return self._refer(planned.duplicate_of)
        try:
            with locked(self.directory):
                return self._run(experiment)
        except DirectoryInUse as error:  # whoever writes there records its end
            self.progress.failed(str(error))
            return float("nan")

    def _run(self, experiment: Experiment) -> float:
        done = results.read(self.directory)
        if done is not None and done.get("status") == "completed":
            self.progress.skipped(results.score(done))
            return results.score(done)
        self.progress.started()
        try:
            (self.directory / FILE).unlink(missing_ok=True)  # until it ends again, it is unfinished
            score = experiment(self.config, self.directory, True)
        except KeyboardInterrupt:
            write_tables(self.sweep)  # Hydra tells nobody of this end
            raise
        except Exception as error:
            log.exception("this run failed")
            self._record(error)
            return float("nan")
        self.progress.completed(score)
        return score

    def _refer(self, original: str) -> float:
        """Leave a pointer to the job that computes the same."""
        results.write(
            self.directory,
            {
                "status": "duplicate",
                "duplicate_of": os.path.relpath(self.sweep / original, self.directory),
                "config": results.plain(self.config),
            },
        )
        self.progress.duplicate(original)
        return results.score(results.read(self.sweep / original))

    def _record(self, error: Exception) -> None:
        result = results.read(self.directory) or {"status": "failed", "config": results.plain(self.config)}
        reason = result.get("reason") or in_one_line(error)
        results.write(self.directory, {**result, "reason": reason})
        self.progress.failed(str(reason))
