"""TensorBoard events that a run can do without: tags in three groups, pictures with captions, a row of the HParams tab."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.proto.api_pb2 import DATA_TYPE_FLOAT64, DATA_TYPE_STRING, Experiment, Status
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import image, scalar

FLUSH_SECONDS = 10.0
PREFIX = "events.out.tfevents."
NAMES = {"miou": "mIoU", "fb_iou": "FB-IoU"}
# columns of the HParams tab: what every run has, so that no cell is empty
METRICS = ("test/mIoU", "test/FB-IoU", "test/mIoU_best", "test/FB-IoU_best")


class TensorBoard:
    """Events in the run directory itself, so that TensorBoard shows the run under the directory's name.

    In place of tensorboardX's SummaryWriter, which hands events to a thread: once that has met a full disk, whoever
    writes waits for it without end. Here the caller writes; where that fails, one warning says so and nothing more is
    written.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """``purge_step``: what an interrupted run wrote from this step on does not count."""
        self._writer: Any = None
        with self._or_without():
            self._writer = RecordWriter(str(folder / next_name(folder)))
        self._flushed = time.monotonic()
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        self._flushed = 0.0  # the next event is written at once, and these with it

    def hyperparameters(self, values: Mapping[str, Any]) -> None:
        """This run's row of the HParams tab, from its start on.

        With a list of columns, which is the same in all runs, as TensorBoard takes that of any of them. Left to itself
        it makes a column of every curve, most of them empty: other folds test other classes.
        """
        columns = Experiment(time_created_secs=time.time())
        start = SessionStartInfo(start_time_secs=columns.time_created_secs)
        for name, value in values.items():
            text = isinstance(value, str)
            columns.hparam_infos.add(name=name, type=DATA_TYPE_STRING if text else DATA_TYPE_FLOAT64)
            setattr(start.hparams[name], "string_value" if text else "number_value", value)
        for tag in METRICS:
            columns.metric_infos.add().name.tag = tag
        self._add_hparams("experiment", experiment=columns)
        self._add_hparams("session_start_info", session_start_info=start)

    def step(self, step: Any) -> None:
        """Losses, learning rate and step time of a training step."""
        self._curve("train/loss", step.total, step.iteration)
        self._curve("train/loss_main", step.main, step.iteration)
        if step.auxiliary is not None:
            self._curve("train/loss_auxiliary", step.auxiliary, step.iteration)
        self._curve("train/learning_rate", step.lr, step.iteration)
        self._curve("train/step_seconds", step.seconds, step.iteration)

    def evaluation(self, iteration: int, scores: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Scores of an evaluation, and those of the best one so far, as ``result.json`` holds them; fractions."""
        for key, name in NAMES.items():
            self._curve(f"test/{name}", scores[key], iteration)
            self._curve(f"test/{name}_best", best[key], iteration)
        for name, value in scores["class_iou"].items():
            self._curve(f"test_class/{name}", value, iteration)

    def baseline(self, iteration: int, scores: Mapping[str, Any]) -> None:
        """Scores of the training-free baseline, again with every evaluation: level lines that runs have to rise above."""
        for key, name in NAMES.items():
            self._curve(f"test/{name}_baseline", scores[key], iteration)

    def picture(self, tag: str, picture: np.ndarray, iteration: int) -> None:
        """An RGB picture, uint8 (H, W, 3)."""
        self._write(Event(summary=image(tag, picture, dataformats="HWC"), step=iteration))

    def close(self, completed: bool) -> None:
        """Say how the run ended and when, flush and close."""
        status = Status.Value("STATUS_SUCCESS" if completed else "STATUS_FAILURE")
        ended = SessionEndInfo(status=status, end_time_secs=time.time())
        self._add_hparams("session_end_info", session_end_info=ended)
        with self._or_without():
            if self._writer is not None:
                self._writer.flush()
        self._drop()

    def _curve(self, tag: str, value: float, iteration: int) -> None:
        self._write(Event(summary=scalar(tag, value), step=iteration))

    def _add_hparams(self, tag: str, **content: Any) -> None:
        data = HParamsPluginData(version=0, **content).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data)
        value = Summary.Value(tag=f"_hparams_/{tag}", metadata=SummaryMetadata(plugin_data=plugin))
        self._write(Event(summary=Summary(value=[value])))

    def _write(self, event: Any) -> None:
        if self._writer is None:
            return
        event.wall_time = time.time()
        with self._or_without():
            self._writer.write(event.SerializeToString())
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()

    @contextlib.contextmanager
    def _or_without(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            print(
                f"Warning: TensorBoard's events cannot be written ({error.strerror or error}); going on without them.",
                file=sys.stderr,
            )
            self._drop()

    def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):  # of what is still in its buffer
                writer.close()


def next_name(folder: Path) -> str:
    """A name after all that are there: TensorBoard reads in the order of the names, whatever the clock says."""
    stamps = [path.name[len(PREFIX) :].split(".")[0] for path in folder.glob(f"{PREFIX}*")]
    newest = max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0)
    return f"{PREFIX}{max(int(time.time()), newest + 1):010d}.{socket.gethostname()}"
