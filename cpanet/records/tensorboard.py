"""TensorBoard events: few tags, grouped, and an HParams entry that makes runs comparable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.summary import hparams

from cpanet.records.events import Events


class TensorBoard:
    """Events in the run directory itself, so that TensorBoard shows the run under the directory's name."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._writer = Events(folder, purge_step)

    def step(self, step: Any) -> None:
        """Losses, learning rate and step time of a training step."""
        self._writer.add_scalar("train/loss", step.total, step.iteration)
        self._writer.add_scalar("train/loss_main", step.main, step.iteration)
        if step.auxiliary is not None:
            self._writer.add_scalar("train/loss_auxiliary", step.auxiliary, step.iteration)
        self._writer.add_scalar("train/learning_rate", step.lr, step.iteration)
        self._writer.add_scalar("train/step_seconds", step.seconds, step.iteration)

    def evaluation(self, iteration: int, miou: float, fb_iou: float, class_iou: Mapping[str, float]) -> None:
        """Scores of an evaluation, fractions."""
        self._writer.add_scalar("test/mIoU", miou, iteration)
        self._writer.add_scalar("test/FB-IoU", fb_iou, iteration)
        for name, value in class_iou.items():
            self._writer.add_scalar(f"test_class/{name}", value, iteration)

    def picture(self, tag: str, picture: np.ndarray, iteration: int) -> None:
        """An RGB picture, uint8 (H, W, 3)."""
        self._writer.add_image(tag, picture, iteration)

    def hyperparameters(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """One row of the HParams tab, written into the run itself."""
        for summary in hparams(dict(values), dict(metrics)):
            self._writer.add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, 0)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()
