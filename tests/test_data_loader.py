"""Batches: the same for any number of workers, from any start; workers that die are replaced."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cpanet.data import EpisodeLoader, loader
from cpanet.data.dataset import DefectDataset
from cpanet.errors import UserError
from tests.datasets import tiny_dataset
from tests.processes import data_workers
from tests.shared import REPO


def digest(batch: loader.Batch) -> tuple:
    arrays = (batch.query, batch.query_mask, batch.support, batch.support_mask)
    return (*(a.tobytes() for a in arrays), batch.episodes)


def epoch(dataset: DefectDataset, workers: int, number: int = 0, start: int = 0) -> list[tuple]:
    with EpisodeLoader(dataset, 0, 2, 7, 2, 32, workers) as batches:
        return [digest(b) for b in batches.epoch(number, start)]


@pytest.fixture(scope="module")
def dataset() -> DefectDataset:
    return tiny_dataset(classes=4, per_class=5)


def test_batches_have_the_promised_shapes_and_leave_out_the_odd_episode(dataset):
    batches = list(EpisodeLoader(dataset, 0, 2, 7, 4, 32, 0).epoch(0))
    assert len(batches) == 2  # 10 training images, 4 a batch
    batch = batches[0]
    assert batch.query.shape == (4, 3, 32, 32)
    assert batch.query.dtype == np.float32
    assert batch.query_mask.shape == (4, 32, 32)
    assert batch.support.shape == (4, 2, 3, 32, 32)
    assert batch.support_mask.shape == (4, 2, 32, 32)
    assert set(np.unique(batch.support_mask)) <= {0, 1, 255}
    assert len(batch.episodes) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(dataset, workers):
    assert epoch(dataset, workers) == epoch(dataset, 0)


def test_epochs_differ(dataset):
    assert epoch(dataset, 0, 0) != epoch(dataset, 0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_in_the_middle_as_if_it_had_not_stopped(dataset, workers):
    assert epoch(dataset, workers, 3, start=2) == epoch(dataset, 0, 3)[2:]


def test_workers_serve_several_epochs_also_after_one_left_early(dataset):
    with EpisodeLoader(dataset, 0, 2, 7, 2, 32, workers=2) as batches:
        unfinished = batches.epoch(0)
        next(unfinished)
        del unfinished
        assert [digest(b) for b in batches.epoch(1)] == epoch(dataset, 0, 1)
        assert [digest(b) for b in batches.epoch(2)] == epoch(dataset, 0, 2)


def test_a_killed_worker_is_replaced_and_no_batch_changes(dataset):
    with EpisodeLoader(dataset, 0, 2, 7, 2, 32, workers=2) as batches:
        got, spared = [], None
        for batch in batches.epoch(0):
            got.append(digest(batch))
            spared = spared or data_workers()[-1]
            for worker in data_workers():
                if worker != spared:
                    os.kill(worker, signal.SIGKILL)
        assert got == epoch(dataset, 0)


def test_a_silent_worker_is_replaced(dataset, monkeypatch):
    with EpisodeLoader(dataset, 0, 2, 7, 2, 32, workers=1) as batches:
        iterator = batches.epoch(0)
        got = [digest(next(iterator))]
        monkeypatch.setattr(loader, "WAIT_SECONDS", 3.0)
        os.kill(data_workers()[0], signal.SIGSTOP)
        got += [digest(b) for b in iterator]
        assert got == epoch(dataset, 0)


def test_workers_that_cannot_start_stop_the_run_with_a_remedy(dataset, monkeypatch):
    monkeypatch.setattr(loader.sys, "executable", "/bin/false")
    with EpisodeLoader(dataset, 0, 2, 7, 2, 32, workers=1) as batches:
        iterator = batches.epoch(0)
        with pytest.raises(UserError, match=r"data\.workers=0"):
            next(iterator)


def test_workers_that_find_no_memory_stop_the_run_with_a_remedy(dataset, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loader.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"No space left on device.*data\.workers=0"):
        EpisodeLoader(dataset, 0, 1, 0, 2, 32, workers=2)


def test_workers_end_with_their_parent(dataset):
    code = (
        "import os; from tests.datasets import tiny_dataset; from tests.processes import data_workers;"
        "from cpanet.data import EpisodeLoader;"
        "batches = EpisodeLoader(tiny_dataset(), 0, 1, 0, 2, 32, workers=2); next(batches.epoch(0));"
        "print(*data_workers(), flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, timeout=60)
    workers = [int(pid) for pid in ended.stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_batch_larger_than_the_training_set_is_refused(dataset):
    with pytest.raises(UserError, match="batch_size=11"):
        EpisodeLoader(dataset, 0, 1, 0, 11, 32)
