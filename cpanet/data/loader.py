"""From episodes to batches, made in worker processes while the training step runs.

Every episode's augmentation has a generator of its own, ``default_rng([seed, epoch, position])``: batches are
the same for any number of workers, and for a run that starts again in the middle of an epoch.

Workers are processes (Jittor holds the interpreter during a step, threads would starve), started as
:func:`data_worker` and never forked: forking a process in which Jittor's threads run can deadlock. The
decoded images are handed over once, in memory that both sides map; so are the batches.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cpanet.data import transforms
from cpanet.data.dataset import DefectDataset
from cpanet.data.episodes import Episode, train_episodes
from cpanet.data.pseudo import PLAIN
from cpanet.errors import UserError
from cpanet.recipe.episodes import EpisodeTransform

WAIT_SECONDS = 60.0  # for one batch; a worker that is silent for longer is replaced
RESTARTS = 3  # of one worker, until it makes a batch again
AHEAD = 2  # batches that one worker has been asked for


@dataclass(frozen=True, eq=False)
class Batch:
    """B episodes: query (B, 3, S, S) and support (B, K, 3, S, S) float32, normalised; masks uint8
    {0, 1, 255 = ignored} (B, S, S) and (B, K, S, S)."""

    query: np.ndarray
    query_mask: np.ndarray
    support: np.ndarray
    support_mask: np.ndarray
    episodes: tuple[Episode, ...]


Shapes = Sequence[tuple[tuple[int, ...], Any]]  # and types, of arrays that lie in one piece of memory


def batch_shapes(batch: int, shot: int, size: int) -> Shapes:
    """Shape and type of query, query mask, support and support mask."""
    return [
        ((batch, 3, size, size), np.float32),
        ((batch, size, size), np.uint8),
        ((batch, shot, 3, size, size), np.float32),
        ((batch, shot, size, size), np.uint8),
    ]


@dataclass(frozen=True, eq=False)
class EpisodeMaker:
    """Makes augmented episodes of a data set, ``size`` pixels a side.

    ``transform`` of an episode may use the pictures ``pool`` of the training classes.
    """

    dataset: DefectDataset
    size: int
    transform: EpisodeTransform = PLAIN
    pool: Sequence[int] = ()

    @cached_property
    def _labels(self) -> list[int]:
        return self.dataset.labels.tolist()

    def fill(
        self, batch: Sequence[np.ndarray], row: int, indices: Sequence[int], seed: Sequence[int]
    ) -> None:
        """Write the episode ``indices``, query first, into row ``row`` of a batch's four arrays."""
        query, query_mask, support, support_mask = batch
        rng, labels = np.random.default_rng(seed), self._labels
        supports = self.transform.supports(indices, labels, self.pool, rng)
        query[row], query_mask[row] = self._augmented(indices[0], rng)
        for k, index in enumerate(supports):
            support[row, k], support_mask[row, k] = self._augmented(index, rng)
        if any(labels[index] != labels[indices[0]] for index in supports):
            query_mask[row][query_mask[row] == 1] = 0
        images, masks = [query[row], *support[row]], [query_mask[row], *support_mask[row]]
        self.transform.change(images, masks, self.dataset.images, self.pool, rng)

    def _augmented(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return transforms.train(self.dataset.images[index], self.dataset.masks[index], rng, self.size)

    def batch(self, episodes: Sequence[Episode], seed: int, epoch: int, position: int) -> Batch:
        """The batch of ``episodes``, of which the first is episode ``position`` of the epoch."""
        shapes = batch_shapes(len(episodes), len(episodes[0].supports), self.size)
        arrays = [np.empty(shape, dtype) for shape, dtype in shapes]
        for row, episode in enumerate(episodes):
            self.fill(arrays, row, (episode.query, *episode.supports), (seed, epoch, position + row))
        query, query_mask, support, support_mask = arrays
        return Batch(query, query_mask, support, support_mask, tuple(episodes))


def test_batch(dataset: DefectDataset, episodes: Sequence[Episode], size: int) -> Batch:
    """The batch of ``episodes`` in the test transform, as the released code evaluates them."""

    def stack(indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        images, labels = zip(*(transforms.test(dataset.images[i], dataset.masks[i], size) for i in indices))
        return np.stack(images), np.stack(labels)

    query, query_mask = stack([e.query for e in episodes])
    support, support_mask = (np.stack(parts) for parts in zip(*(stack(e.supports) for e in episodes)))
    return Batch(query, query_mask, support, support_mask, tuple(episodes))


test_batch.__test__ = False  # type: ignore[attr-defined]  # not for pytest


def shared_memory(size: int) -> Any:
    """An open file without a name, in memory where the system can: nothing is left behind, even by a kill."""
    if hasattr(os, "memfd_create"):
        file: Any = os.fdopen(os.memfd_create("cpanet"), "r+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the loader)
    os.posix_fallocate(file.fileno(), 0, size)  # an error here, not a killed process later
    return file


def views(memory: Any, shapes: Shapes, offset: int = 0) -> list[np.ndarray]:
    """Arrays that stand one after the other in ``memory``, at multiples of 64."""
    found: list[np.ndarray] = []
    for shape, dtype in shapes:
        found.append(np.ndarray(shape, dtype, memory, offset))
        offset += -(-found[-1].nbytes // 64) * 64
    return found


def bytes_of(shapes: Shapes) -> int:
    """Bytes that :func:`views` needs."""
    return sum(-(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64 for shape, dtype in shapes)


class _Worker:
    """One worker process: asked to fill slots of shared memory, answers for each in turn."""

    def __init__(self, files: Sequence[Any], restarts: int = 0):
        ours, theirs = socket.socketpair()
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # no wait without a limit
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(WAIT_SECONDS), 0))
        self._connection = Connection(ours.detach())
        fds = [theirs.fileno(), *(file.fileno() for file in files)]
        source = str(Path(__file__).resolve().parents[2])
        path = [source, *sys.path]  # where this process finds classes that are not part of cpanet
        code = f"import sys; sys.path = {path!r}; from cpanet.data.loader import data_worker; data_worker(*{fds})"
        # A session of its own: Ctrl-C is for the training loop, which saves and then closes the workers.
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=fds, start_new_session=True
            )
        self.pending: deque[dict[str, Any]] = deque()  # asked for, not yet answered, in order
        self.restarts = restarts

    def ask(self, task: dict[str, Any]) -> None:
        self.pending.append(task)
        # one that is dead or does not read is replaced by whoever waits for its answer
        with contextlib.suppress(OSError):
            self._connection.send(task)

    def answer(self, seconds: float) -> str | None:
        """What went wrong with the oldest task, "" for nothing; None where the worker died or stayed silent that long."""
        with contextlib.suppress(EOFError, OSError):
            if self._connection.poll(seconds):
                answer: str = self._connection.recv()
                self.pending.popleft()
                return answer
        return None

    def close(self) -> None:
        """End it, also where it is at work."""
        self._connection.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the system: out of reach
            self.process.wait(5)


def data_worker(connection_fd: int, setup_fd: int, images_fd: int, slots_fd: int) -> None:
    """A worker's loop: read a task, fill a slot, answer. It ends with the connection, which ends with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)  # the cores belong to the training step
    os.dup2(2, 1)  # a library's prints are no output of the command
    connection, slots = Connection(connection_fd), mmap.mmap(slots_fd, 0)
    maker, image_shapes, shapes, slot_bytes = pickle.loads(mmap.mmap(setup_fd, 0))
    pictures = views(mmap.mmap(images_fd, 0, access=mmap.ACCESS_READ), image_shapes)
    number = len(pictures) // 2
    dataset = replace(maker.dataset, images=pictures[:number], masks=pictures[number:])
    maker = replace(maker, dataset=dataset)
    with contextlib.suppress(EOFError, OSError):
        while True:
            task, error = connection.recv(), ""
            try:
                arrays = views(slots, shapes, task["slot"] * slot_bytes)
                for row, (indices, seed) in enumerate(zip(task["episodes"], task["seeds"])):
                    maker.fill(arrays, row, indices, seed)
            except Exception:
                error = traceback.format_exc()
            connection.send(error)


class EpisodeLoader:
    """Training batches of one (data set, fold, shot, seed), epoch after epoch.

    ``workers=0`` makes batches in this process. The workers start at once, in the background, and serve all
    epochs; ``close()`` (or leaving the ``with`` block) ends them.
    """

    def __init__(
        self,
        dataset: DefectDataset,
        fold: int,
        shot: int,
        seed: int,
        batch_size: int,
        size: int,
        workers: int = 0,
        sampling: str = "image",
        transform: EpisodeTransform = PLAIN,
    ):
        self.dataset, self.fold, self.shot, self.seed = dataset, fold, shot, seed
        self.batch_size, self.sampling = batch_size, sampling
        pool = dataset.split(fold).train_indices.tolist()
        images = len(pool)
        if not 1 <= batch_size <= images:
            raise UserError(
                f"train.batch_size={batch_size}: fold {fold} has {images} training images, one episode each. "
                f"Choose 1 to {images}."
            )
        self.batches = images // batch_size  # in an epoch; the last odd episodes are left out
        self._maker = EpisodeMaker(dataset, size, transform, pool)
        self._shapes = batch_shapes(batch_size, shot, size)
        self._workers: list[_Worker] = []
        self._files: list[Any] = []
        if workers:
            try:
                self._start(workers)
            except (
                OSError,
                pickle.PicklingError,
                AttributeError,
                TypeError,
            ) as error:  # pickle has several words
                self.close()
                reason = getattr(error, "strerror", None) or error
                raise UserError(
                    f"data.workers={workers}: the data workers cannot be started ({reason}). "
                    "data.workers=0 makes the batches in the main process."
                ) from None

    def _start(self, workers: int) -> None:
        arrays = [*self.dataset.images, *self.dataset.masks]
        shapes = [(array.shape, array.dtype) for array in arrays]
        self._slot_bytes = bytes_of(self._shapes)
        maker = replace(self._maker, dataset=replace(self.dataset, images=[], masks=[]))
        setup = pickle.dumps((maker, shapes, self._shapes, self._slot_bytes))
        for size in (len(setup), bytes_of(shapes), self._slot_bytes * AHEAD * workers):
            self._files.append(shared_memory(size))
        for array, view in zip(arrays, views(self._mapped(1), shapes)):
            view[...] = array
        self._files[0].write(setup)
        self._files[0].flush()
        self._slots = self._mapped(2)
        self._workers = [_Worker(self._files) for _ in range(workers)]

    def _mapped(self, number: int) -> mmap.mmap:
        return mmap.mmap(self._files[number].fileno(), 0)

    def __enter__(self) -> EpisodeLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and give the memory back; may be called twice."""
        for worker in self._workers:
            worker.close()
        for file in self._files:
            file.close()
        self._workers, self._files = [], []

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; ``start`` of them are left out, for a run that goes on in the middle."""
        episodes = train_episodes(self.dataset, self.fold, self.shot, self.seed, epoch, self.sampling)
        groups = [
            tuple(episodes[b * self.batch_size : (b + 1) * self.batch_size])
            for b in range(start, self.batches)
        ]
        if self._workers:
            return self._from_workers(epoch, start, groups)
        return (
            self._maker.batch(group, self.seed, epoch, (start + b) * self.batch_size)
            for b, group in enumerate(groups)
        )

    def _from_workers(self, epoch: int, start: int, groups: list[tuple[Episode, ...]]) -> Iterator[Batch]:
        """Batch b comes from worker b mod n: the order needs no bookkeeping."""
        number, asked = len(self._workers), 0
        ahead = AHEAD * number
        for index in range(number):
            while self._workers[index].pending:  # of an epoch that was left early
                self._receive(index)
        for b, group in enumerate(groups):
            while asked < min(b + ahead, len(groups)):
                first = (start + asked) * self.batch_size
                task = {
                    "slot": asked % ahead,
                    "seeds": [(self.seed, epoch, first + row) for row in range(self.batch_size)],
                    "episodes": [(e.query, *e.supports) for e in groups[asked]],
                }
                self._workers[asked % number].ask(task)
                asked += 1
            self._receive(b % number)
            slot = views(self._slots, self._shapes, b % ahead * self._slot_bytes)
            query, query_mask, support, support_mask = (view.copy() for view in slot)
            yield Batch(query, query_mask, support, support_mask, group)

    def _receive(self, index: int) -> None:
        """Wait for the oldest task of a worker; a dead or silent one is replaced and asked again."""
        while True:
            worker = self._workers[index]
            error = worker.answer(WAIT_SECONDS)
            if error:
                raise RuntimeError(f"a data worker failed:\n{error}")
            if error is not None:
                worker.restarts = 0
                return
            worker.close()
            if worker.restarts >= RESTARTS:
                raise UserError(
                    f"A data worker ended {RESTARTS + 1} times before it made a batch (out of memory?). "
                    "data.workers=0 makes the batches in the main process."
                )
            self._workers[index] = _Worker(self._files, worker.restarts + 1)
            for task in worker.pending:
                self._workers[index].ask(task)
