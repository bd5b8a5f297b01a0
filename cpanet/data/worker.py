"""The loop of a data worker: read a task, fill a slot of shared memory, answer; end when the input ends."""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import traceback
from typing import Any

import cv2
import numpy as np

from cpanet import targets
from cpanet.data.loader import batch_shapes, batch_views, fill_episode
from cpanet.recipe.episodes import EpisodeTransform


def _images(fd: int, sizes: list[list[int]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Views of the shared images and masks; see ``loader._share_images``."""
    memory = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    offset = 0
    for height, width in sizes:
        images.append(np.ndarray((height, width, 3), np.uint8, memory, offset))
        masks.append(np.ndarray((height, width), np.uint8, memory, offset + 3 * height * width))
        offset += 4 * height * width
    return images, masks


def main() -> None:
    """Serve tasks from standard input until it ends: the parent closed it, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)  # the cores belong to the training step
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    setup: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    images, masks = _images(setup["fds"][0], setup["sizes"])
    slots = mmap.mmap(setup["fds"][1], 0)
    shapes = batch_shapes(setup["batch_size"], setup["shot"], setup["size"])
    targets.allow(targets.targets_of(setup["transform"]))  # which the process that asks has checked
    transform, labels = EpisodeTransform.model_validate(setup["transform"]), setup["labels"]

    for line in sys.stdin.buffer:
        task = json.loads(line)
        answer = {"slot": task["slot"]}
        try:
            arrays = batch_views(slots, task["slot"] * setup["slot_bytes"], shapes)
            for row, indices in enumerate(task["episodes"]):
                rng = np.random.default_rng(task["seeds"][row])
                fill_episode(
                    arrays, row, images, masks, indices, rng, setup["size"], transform, labels, setup["pool"]
                )
        except Exception:
            answer["error"] = traceback.format_exc()
        try:
            answers.write(json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:
            return
