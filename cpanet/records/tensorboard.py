"""TensorBoard events: few tags in three groups, pictures with captions, a row of the HParams tab."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.proto.api_pb2 import DATA_TYPE_FLOAT64, DATA_TYPE_STRING, Experiment, Status
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

from cpanet.records.events import Events

# columns of the HParams tab: what every run has, so that no cell is empty
METRICS = ("test/mIoU", "test/FB-IoU", "test/mIoU_best", "test/FB-IoU_best")


class TensorBoard:
    """Events in the run directory itself, so that TensorBoard shows the run under the directory's name."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._writer = Events(folder, purge_step)

    def hyperparameters(self, values: Mapping[str, Any], began: float) -> None:
        """This run's row of the HParams tab, from its start (``began``, seconds since 1970) on.

        With a list of columns, which is the same in all runs, as TensorBoard takes that of any of them. Left to itself
        it makes a column of every curve, most of them empty: other folds test other classes.
        """
        columns = Experiment(time_created_secs=began)
        for name, value in values.items():
            kind = DATA_TYPE_STRING if isinstance(value, str) else DATA_TYPE_FLOAT64
            columns.hparam_infos.add(name=name, type=kind)
        for tag in METRICS:
            columns.metric_infos.add().name.tag = tag
        self._add_hparams("experiment", experiment=columns)
        start = SessionStartInfo(start_time_secs=began)
        for name, value in values.items():
            setattr(start.hparams[name], "string_value" if isinstance(value, str) else "number_value", value)
        self._add_hparams("session_start_info", session_start_info=start)

    def step(self, step: Any) -> None:
        """Losses, learning rate and step time of a training step."""
        self._writer.add_scalar("train/loss", step.total, step.iteration)
        self._writer.add_scalar("train/loss_main", step.main, step.iteration)
        if step.auxiliary is not None:
            self._writer.add_scalar("train/loss_auxiliary", step.auxiliary, step.iteration)
        self._writer.add_scalar("train/learning_rate", step.lr, step.iteration)
        self._writer.add_scalar("train/step_seconds", step.seconds, step.iteration)

    def evaluation(self, iteration: int, scores: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Scores of an evaluation, and those of the best one so far, as ``result.json`` holds them; fractions."""
        for key, name in (("miou", "mIoU"), ("fb_iou", "FB-IoU")):
            self._writer.add_scalar(f"test/{name}", scores[key], iteration)
            self._writer.add_scalar(f"test/{name}_best", best[key], iteration)
        for name, value in scores["class_iou"].items():
            self._writer.add_scalar(f"test_class/{name}", value, iteration)

    def baseline(self, iteration: int, scores: Mapping[str, Any]) -> None:
        """Scores of the training-free baseline, again with every evaluation: level lines that runs have to rise above."""
        self._writer.add_scalar("test/mIoU_baseline", scores["miou"], iteration)
        self._writer.add_scalar("test/FB-IoU_baseline", scores["fb_iou"], iteration)

    def picture(self, tag: str, picture: np.ndarray, iteration: int) -> None:
        """An RGB picture, uint8 (H, W, 3)."""
        self._writer.add_image(tag, picture, iteration)

    def close(self, completed: bool, ended: float) -> None:
        """Say how the run ended and when (seconds since 1970), flush and close."""
        status = Status.Value("STATUS_SUCCESS" if completed else "STATUS_FAILURE")
        self._add_hparams(
            "session_end_info", session_end_info=SessionEndInfo(status=status, end_time_secs=ended)
        )
        self._writer.close()

    def _add_hparams(self, tag: str, **content: Any) -> None:
        data = HParamsPluginData(version=0, **content).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data)
        value = Summary.Value(tag=f"_hparams_/{tag}", metadata=SummaryMetadata(plugin_data=plugin))
        self._writer.add_summary(Summary(value=[value]))
