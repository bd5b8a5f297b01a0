"""Train, evaluate and sweep CPANet. See ``python run.py --help``."""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cpanet import config, runtime

config.register()


@hydra.main(
    version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="config"
)
def main(cfg: DictConfig) -> float:
    """Run one experiment; returns its best mIoU, for Hydra's sweepers."""
    checked = config.validate(cfg)
    runtime.prepare(checked.device, verbose=checked.log.verbose)
    from cpanet.experiment import run  # here, so that --help and --cfg do not start Jittor

    return run(checked, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    config.launch(main)
