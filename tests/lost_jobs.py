"""``python tests/lost_jobs.py <arguments of run.py>``: jobs that leave a record without training; those of seed 1 kill
themselves, after the others have ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cpanet import sweep
from cpanet.cli.check_config import check
from cpanet.cli.launch import launch, register
from tests.shared import REPO
from tests.sweep_runs import pretend

register()


@hydra.main(version_base="1.3", config_path=str(REPO / "conf"), config_name="config")
def main(cfg: DictConfig) -> float:
    return sweep.run_job(cfg, experiment)


def experiment(cfg: DictConfig, directory: Path, resume: bool) -> float:
    if cfg.seed == 1:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(list(directory.parent.glob("*/result.json"))) < 2:
            time.sleep(0.1)
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return pretend(check(cfg), directory)


if __name__ == "__main__":
    launch(main, at_loss=sweep.end_with_lost_jobs)
