"""``python run.py …``, ``python -m cpanet …``, and ``cpanet …`` where the package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import hydra
from omegaconf import DictConfig

from cpanet import options, sweep, tasks
from cpanet.cli.callback import CHECKED
from cpanet.cli.check_config import check
from cpanet.cli.launch import launch, register

register()


@hydra.main(version_base="1.3", config_path=str(options.folder()), config_name="config")
def run(config: DictConfig) -> float:
    """Run one task, or one job of a sweep; returns its best mIoU, for Hydra's sweepers."""
    return sweep.run_job(config, experiment)


def experiment(config: DictConfig, directory: Path, resume: bool) -> float:
    """Do what the task says. A single run has been checked before its directory was made; a job is checked here."""
    checked = CHECKED.pop(directory, None) or check(config)
    return tasks.run(checked, directory, resume, shared=sweep.of_several(), threads=sweep.threads())


def main() -> NoReturn:
    """The command line's entry point; exits with 0, 2 for what the user can mend, 130 for Ctrl-C, else 1."""
    launch(run, at_loss=sweep.end_with_lost_jobs)


if __name__ == "__main__":
    main()
