"""Train, evaluate, sweep and use CPANet. See ``python run.py --help``."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from cpanet import config, runtime, sweep, tasks

config.register()


@hydra.main(
    version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="config"
)
def main(cfg: DictConfig) -> float:
    """Run one task, or one job of a sweep; returns its best mIoU, for Hydra's sweepers."""
    return sweep.run_job(cfg, experiment)


def experiment(cfg: DictConfig, directory: Path, resume: bool) -> float:
    """Check, start Jittor, and do what the task says."""
    checked = config.validate(cfg)
    runtime.prepare(checked.device, checked.log.verbose, sweep.threads(), checked.precision)
    return tasks.run(checked, directory, resume, shared=sweep.of_several())


if __name__ == "__main__":
    config.launch(main, at_loss=sweep.end_with_lost_jobs)
