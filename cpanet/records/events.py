"""A file of TensorBoard events that a run can do without."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import image, scalar

FLUSH_SECONDS = 10.0
PREFIX = "events.out.tfevents."


class Events:
    """In place of tensorboardX's SummaryWriter, which hands events to a thread: once that has met a full disk, whoever
    writes waits for it without end. Here the caller writes; where that fails, one warning says so and nothing more is
    written.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        """``purge_step``: what an interrupted run wrote from this step on does not count."""
        self._writer: Any = None
        self._flushed = time.monotonic()
        with self._or_without():
            self._writer = RecordWriter(str(folder / next_name(folder)))
            self._write(Event(file_version="brain.Event:2"))
            if purge_step is not None:
                self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
            self._writer.flush()

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """One point of a curve."""
        self.add_summary(scalar(tag, value), step)

    def add_image(self, tag: str, picture: np.ndarray, step: int) -> None:
        """An RGB picture, uint8 (H, W, 3)."""
        self.add_summary(image(tag, picture, dataformats="HWC"), step)

    def add_summary(self, summary: Any, step: int = 0) -> None:
        """Anything else that TensorBoard shows."""
        with self._or_without():
            self._write(Event(summary=summary, step=step))
            if time.monotonic() - self._flushed > FLUSH_SECONDS and self._writer is not None:
                self._writer.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        with self._or_without():
            if self._writer is not None:
                self._writer.flush()
        self._drop()

    def _write(self, event: Any) -> None:
        if self._writer is not None:
            event.wall_time = time.time()
            self._writer.write(event.SerializeToString())

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
