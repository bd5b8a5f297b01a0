"""A run small enough to be trained many times, and what it means that two of them ended the same."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from cpanet.checkpoint.files import read_checkpoint
from cpanet.tasks.train import run
from tests.hydra_app import compose
from tests.sweep_runs import TINY

# two epochs of three iterations, evaluated after each; dropout and an average with the untrained weights on
RUN = (
    *TINY,
    "train.epochs=2",
    "train.iterations_per_epoch=3",
    "recipe.average.ema=0.9",
    "recipe.average.untrained=0.25",
    "recipe.dropout=true",
)
OFTEN = "checkpoint.every_iterations=1"
SAME = ("metrics.csv", "episodes.csv")


configuration = functools.cache(compose)  # composed once a process; a run changes nothing of it


def train(directory: Path, *overrides: str, resume: bool = False) -> float:
    return float(run(configuration(*RUN, *overrides), directory, resume))


def assert_same_end(a: Path, b: Path) -> None:
    for name in SAME:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    for name in ("last", "best"):
        one, _ = read_checkpoint(a / "checkpoints" / f"{name}.safetensors")
        other, _ = read_checkpoint(b / "checkpoints" / f"{name}.safetensors")
        assert one.keys() == other.keys()
        assert [key for key in one if not np.array_equal(one[key], other[key])] == []
