"""From episodes to batches, made in worker processes while the training step runs.

Every episode's augmentation has a generator of its own, ``default_rng([seed, epoch, position])``: batches are
the same for any number of workers, and for a run that starts again in the middle of an epoch.

Workers are processes (Jittor holds the interpreter during a step, threads would starve), started as
``cpanet.data.worker`` and never forked: forking a process in which Jittor's threads run can deadlock. The
decoded images are handed over once, in memory that both sides map; so are the batches.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def batch_shapes(batch: int, shot: int, size: int) -> list[tuple[tuple[int, ...], Any]]:
    """Shape and type of query, query mask, support and support mask."""
    return [
        ((batch, 3, size, size), np.float32),
        ((batch, size, size), np.uint8),
        ((batch, shot, 3, size, size), np.float32),
        ((batch, shot, size, size), np.uint8),
    ]


def fill_episode(
    arrays: Sequence[np.ndarray],
    row: int,
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    indices: Sequence[int],
    rng: np.random.Generator,
    size: int,
    transform: EpisodeTransform,
    labels: Sequence[int],
    pool: Sequence[int],
) -> None:
    """Write one augmented episode, query first, into row ``row`` of a batch's four arrays.

    ``transform`` of it may use the pictures ``pool`` of the training classes; ``labels`` are all pictures' classes.
    """
    query, query_mask, support, support_mask = arrays
    supports = transform.supports(indices, labels, pool, rng)
    query[row], query_mask[row] = transforms.train(images[indices[0]], masks[indices[0]], rng, size)
    for k, index in enumerate(supports):
        support[row, k], support_mask[row, k] = transforms.train(images[index], masks[index], rng, size)
    if any(labels[index] != labels[indices[0]] for index in supports):
        query_mask[row][query_mask[row] == 1] = 0
    transform.change([query[row], *support[row]], [query_mask[row], *support_mask[row]], images, pool, rng)


def make_batch(
    dataset: DefectDataset,
    episodes: Sequence[Episode],
    seed: int,
    epoch: int,
    position: int,
    size: int,
    transform: EpisodeTransform = PLAIN,
    pool: Sequence[int] = (),
) -> Batch:
    """The training batch of ``episodes``, of which the first is episode ``position`` of the epoch.

    ``pool``: the training images, of which ``transform`` may make use.
    """
    labels = dataset.labels.tolist()
    shapes = batch_shapes(len(episodes), len(episodes[0].supports), size)
    arrays = [np.empty(shape, dtype) for shape, dtype in shapes]
    for row, episode in enumerate(episodes):
        rng = np.random.default_rng([seed, epoch, position + row])
        indices = (episode.query, *episode.supports)
        fill_episode(arrays, row, dataset.images, dataset.masks, indices, rng, size, transform, labels, pool)
    return Batch(arrays[0], arrays[1], arrays[2], arrays[3], tuple(episodes))


def test_batch(dataset: DefectDataset, episodes: Sequence[Episode], size: int) -> Batch:
    """The batch of ``episodes`` in the test transform, as the released code evaluates them."""

    def stack(indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        items = [transforms.test(dataset.images[i], dataset.masks[i], size) for i in indices]
        return np.stack([image for image, _ in items]), np.stack([label for _, label in items])

    query, query_mask = stack([e.query for e in episodes])
    supports = [stack(e.supports) for e in episodes]
    support, support_mask = np.stack([s for s, _ in supports]), np.stack([m for _, m in supports])
    return Batch(query, query_mask, support, support_mask, tuple(episodes))


test_batch.__test__ = False  # type: ignore[attr-defined]  # not for pytest


def shared_memory(size: int) -> Any:
    """An open file without a name, in memory where the system can: nothing is left behind, even by a kill."""
    if hasattr(os, "memfd_create"):
        file: Any = os.fdopen(os.memfd_create("cpanet"), "r+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the loader)
    file.truncate(max(size, 1))
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, max(size, 1))  # an error here, not a killed process later
    return file


def batch_views(memory: Any, offset: int, shapes: list[tuple[tuple[int, ...], Any]]) -> list[np.ndarray]:
    """A batch's four arrays, one after the other in ``memory``; float arrays stand at multiples of 64."""
    views: list[np.ndarray] = []
    for shape, dtype in shapes:
        views.append(np.ndarray(shape, dtype, memory, offset))
        offset += -(-views[-1].nbytes // 64) * 64
    return views


def batch_bytes(shapes: list[tuple[tuple[int, ...], Any]]) -> int:
    """Bytes that one batch takes in shared memory."""
    return sum(-(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64 for shape, dtype in shapes)


def _share_images(dataset: DefectDataset) -> tuple[Any, list[tuple[int, ...]]]:
    """All images and masks in one piece of shared memory, in order, with the sizes to find them by."""
    sizes = [mask.shape for mask in dataset.masks]
    file = shared_memory(sum(4 * h * w for h, w in sizes))
    with mmap.mmap(file.fileno(), 0) as memory:
        for image, mask in zip(dataset.images, dataset.masks):
            memory.write(np.ascontiguousarray(image).data)
            memory.write(np.ascontiguousarray(mask).data)
    return file, sizes


class _Worker:
    """One worker process: asked in lines of JSON, answers the slot that is filled."""

    def __init__(self, setup: dict[str, Any], files: Sequence[Any]):
        fds = [file.fileno() for file in files]
        source = str(Path(__file__).resolve().parents[2])
        path = [source, *sys.path]  # where this process finds classes that are not part of cpanet
        code = f"import sys; sys.path = {path!r}; from cpanet.data.worker import main; main()"
        # A session of its own: Ctrl-C is for the training loop, which saves and then closes the workers.
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        self.pending: deque[dict[str, Any]] = deque()  # asked for, not yet answered, in order
        self.restarts = 0
        self._rest = b""
        self._write({**setup, "fds": fds})

    def ask(self, task: dict[str, Any]) -> None:
        self.pending.append(task)
        self._write(task)

    def _write(self, message: dict[str, Any]) -> None:
        """Send ``message``; not to one that is dead or does not read: whoever waits for its answer replaces it."""
        assert self.process.stdin is not None
        fd, deadline = self.process.stdin.fileno(), time.monotonic() + WAIT_SECONDS
        rest = memoryview(json.dumps(message).encode() + b"\n")
        with contextlib.suppress(OSError), selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_WRITE)
            while rest and selector.select(max(0.0, deadline - time.monotonic())):
                rest = rest[os.write(fd, rest) :]

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """The next answer; None where the worker died or stayed silent that long."""
        assert self.process.stdout is not None
        fd, deadline = self.process.stdout.fileno(), time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                piece = os.read(fd, 65536)
                if not piece:
                    return None
                self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        self.pending.popleft()
        return json.loads(line)

    def close(self) -> None:
        """End it, also where it is at work."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.kill()
        with contextlib.suppress(
            subprocess.TimeoutExpired
        ):  # stuck in the system: nothing to be done from here
            self.process.wait(5)


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
        self.sampling, self.transform = sampling, transform
        self._pool = [int(i) for i in dataset.split(fold).train_indices]
        self.dataset, self.fold, self.shot, self.seed = dataset, fold, shot, seed
        self.batch_size, self.size = batch_size, size
        images = len(dataset.split(fold).train_indices)
        if not 1 <= batch_size <= images:
            raise UserError(
                f"train.batch_size={batch_size}: fold {fold} has {images} training images, one episode each. "
                f"Choose 1 to {images}."
            )
        self.batches = images // batch_size  # in an epoch; the last odd episodes are left out
        self._shapes = batch_shapes(batch_size, shot, size)
        self._workers: list[_Worker] = []
        self._files: list[Any] = []
        if workers:
            try:
                self._start(workers)
            except OSError as error:
                self.close()
                raise UserError(
                    f"data.workers={workers}: the data workers cannot be started ({error.strerror or error}). "
                    "data.workers=0 makes the batches in the main process."
                ) from None

    def _start(self, workers: int) -> None:
        self._slot_bytes = batch_bytes(self._shapes)
        images, sizes = _share_images(self.dataset)
        slots = shared_memory(self._slot_bytes * AHEAD * workers)
        self._files = [images, slots]
        self._slots = mmap.mmap(slots.fileno(), 0)
        self._setup = {
            "sizes": sizes,
            "slot_bytes": self._slot_bytes,
            "batch_size": self.batch_size,
            "shot": self.shot,
            "size": self.size,
            "transform": self.transform.model_dump(),
            "labels": [int(label) for label in self.dataset.labels],
            "pool": self._pool,
        }
        self._workers = [_Worker(self._setup, self._files) for _ in range(workers)]

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
            make_batch(
                self.dataset,
                group,
                self.seed,
                epoch,
                (start + b) * self.batch_size,
                self.size,
                self.transform,
                self._pool,
            )
            for b, group in enumerate(groups)
        )

    def _from_workers(self, epoch: int, start: int, groups: list[tuple[Episode, ...]]) -> Iterator[Batch]:
        """Batch b comes from worker b mod n: the order needs no bookkeeping."""
        number, asked = len(self._workers), 0
        ahead = AHEAD * number
        for worker in range(number):
            self._drain(worker)  # an epoch that was left early
        for b, group in enumerate(groups):
            while asked < min(b + ahead, len(groups)):
                first = (start + asked) * self.batch_size
                task = {
                    "slot": asked % ahead,
                    "seeds": [[self.seed, epoch, first + row] for row in range(self.batch_size)],
                    "episodes": [[e.query, *e.supports] for e in groups[asked]],
                }
                self._workers[asked % number].ask(task)
                asked += 1
            self._receive(b % number)
            views = batch_views(self._slots, b % ahead * self._slot_bytes, self._shapes)
            query, query_mask, support, support_mask = (view.copy() for view in views)
            yield Batch(query, query_mask, support, support_mask, group)

    def _drain(self, index: int) -> None:
        while self._workers[index].pending:
            self._receive(index)

    def _receive(self, index: int) -> None:
        """Wait for the oldest task of a worker; a dead or silent one is replaced and asked again."""
        while True:
            worker = self._workers[index]
            answer = worker.answer(WAIT_SECONDS)
            if answer is not None:
                if "error" in answer:
                    raise RuntimeError(f"a data worker failed:\n{answer['error']}")
                worker.restarts = 0
                return
            worker.close()
            if worker.restarts >= RESTARTS:
                raise UserError(
                    f"A data worker ended {RESTARTS + 1} times before it made a batch (out of memory?). "
                    "data.workers=0 makes the batches in the main process."
                )
            fresh = _Worker(self._setup, self._files)
            fresh.restarts = worker.restarts + 1
            self._workers[index] = fresh
            for task in worker.pending:
                fresh.ask(task)
