"""Jobs whose process ended without a word: killed, out of memory, a fault in compiled code.

A job records its own end (``cpanet.sweep.job``), unless nobody is left in its process to do that. Then whoever started the
sweep does it here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from cpanet.sweep import results

LINES = 3  # of a log that are shown
WITHOUT_A_WORD = "its process ended without a word (killed, or out of memory)"
Compose = Callable[[Sequence[str]], DictConfig]  # a job's configuration, from its overrides


def waiting_for_all(
    results: Callable[[Any], Any], lost: type[Exception], compose: Compose
) -> Callable[[Any], Any]:
    """``results`` of submitit's jobs, which raises ``lost``, as one that records a lost job and goes on with the next.

    Hydra's launcher asks one job after the other and would leave at the first that is lost, with the others running.
    """

    @functools.wraps(results)
    def results_and_losses(job: Any) -> Any:
        try:
            return results(job)
        except lost:
            overrides = job.submission().args[0]
            config = compose(overrides)
            logs = (job.paths.stderr, job.paths.stdout)
            directory = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
            record(directory, config, next((log for log in logs if log.is_file()), None))
            return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=float("nan"))]

    return results_and_losses


def record_begun(sweep: Path, directories: Sequence[str]) -> None:
    """Record the jobs of ``directories`` that have begun and not ended, when all processes of a sweep are gone."""
    for name in directories:
        log = sweep / name / "run.log"
        if log.is_file() and results.read(sweep / name) is None:
            written = sweep / name / ".hydra" / "config.yaml"
            record(sweep / name, OmegaConf.load(written) if written.is_file() else DictConfig({}), log)


def record(directory: Path, config: Any, log: Path | None) -> None:
    """The end that a lost job could not write itself, with where its log is and the last that it says."""
    if results.read(directory) is not None:  # it was lost after its end
        return
    reason = WITHOUT_A_WORD
    if log is not None:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-LINES:]
        reason += f"; {log}" + (" ends with: " + " | ".join(said) if said else " is empty")
    results.write(directory, {"status": "failed", "reason": reason, "config": results.plain(config)})
