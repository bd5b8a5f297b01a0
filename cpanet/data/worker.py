"""The loop of a data worker: read a task, fill a slot of shared memory, answer; end when the connection ends."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection

import cv2

from cpanet.data.loader import views


def serve(connection_fd: int, setup_fd: int, images_fd: int, slots_fd: int) -> None:
    """Serve tasks from the connection until it ends: the parent closed it, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)  # the cores belong to the training step
    os.dup2(2, 1)  # a library's prints are no output of the command
    connection = Connection(connection_fd)
    maker, image_shapes, batch_shapes, slot_bytes = pickle.loads(mmap.mmap(setup_fd, 0))
    pictures = views(mmap.mmap(images_fd, 0, access=mmap.ACCESS_READ), image_shapes)
    number = len(pictures) // 2
    dataset = replace(maker.dataset, images=pictures[:number], masks=pictures[number:])
    maker = replace(maker, dataset=dataset)
    slots = mmap.mmap(slots_fd, 0)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        error = ""
        try:
            arrays = views(slots, batch_shapes, task["slot"] * slot_bytes)
            for row, (indices, seed) in enumerate(zip(task["episodes"], task["seeds"])):
                maker.fill(arrays, row, indices, seed)
        except Exception:
            error = traceback.format_exc()
        try:
            connection.send(error)
        except OSError:
            return
