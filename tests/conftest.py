"""Shared by the whole suite: its processes, and the runs that many tests look at and none changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

WORKERS = 4  # at most: each holds a network and its compiled operators
CPUS = len(os.sched_getaffinity(0))

# one suite for every processor; tests of bfloat16 ask for it themselves
os.environ.setdefault("CPANET_BF16", "off")

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side share the processor
    side_by_side = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, CPUS // side_by_side)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for each CPU where folders are tested, this one alone for single files and tests."""
    single = all(".py" in argument for argument in config.args)
    return 0 if single else min(CPUS, WORKERS)


@pytest.fixture(scope="session")
def undisturbed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of ``tests.whole_runs.RUN`` that nothing disturbed."""
    from tests.whole_runs import train

    directory = tmp_path_factory.mktemp("undisturbed")
    train(directory)
    return directory
