"""Exact resumption, trained for real: whatever stops a run, it ends as if nothing had."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpanet.checkpoint.files import read_checkpoint
from cpanet.errors import UserError
from tests.hydra_app import compose
from tests.sweep_runs import TINY

# two epochs of three iterations, evaluated after each; a checkpoint after every iteration
RUN = (
    *TINY,
    "train.epochs=2",
    "train.iterations_per_epoch=3",
    "recipe.average.ema=0.9",
    "recipe.dropout=true",
)
OFTEN = "checkpoint.every_minutes=1e-9"
SAME = ("metrics.csv", "episodes.csv")
Experiment: Any = pytest.importorskip("cpanet.experiment")


def train(directory: Path, *overrides: str, resume: bool = False) -> float:
    return Experiment.run(compose(*RUN, *overrides), directory, resume)


def assert_same_end(a: Path, b: Path) -> None:
    for name in SAME:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    for name in ("last", "best"):
        one, _ = read_checkpoint(a / "checkpoints" / f"{name}.safetensors")
        other, _ = read_checkpoint(b / "checkpoints" / f"{name}.safetensors")
        assert one.keys() == other.keys()
        assert [key for key in one if not np.array_equal(one[key], other[key])] == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    train(directory)
    return directory


class Stop(BaseException):
    """The process is gone: nothing is written after this."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lets a run die in its ``n``-th checkpoint, before or after it is written, without any clean-up."""
    write, finish, count, dead = Experiment.write_checkpoint, Experiment.Experiment._finish, 0, False

    def arm(n: int, before: bool) -> None:
        def dying(path: Path, *content: Any) -> None:
            nonlocal count, dead
            count += path.name == "last.safetensors"
            dead = count >= n
            if dead and before:
                raise Stop
            write(path, *content)
            if dead:
                raise Stop

        def finishing(*arguments: Any) -> None:
            if not dead:
                finish(*arguments)

        monkeypatch.setattr(Experiment, "write_checkpoint", dying)
        monkeypatch.setattr(Experiment.Experiment, "_finish", finishing)

    return arm


@pytest.mark.parametrize(("n", "before"), [(1, True), (2, False), (3, True), (4, False)])
def test_a_run_that_died_ends_as_if_it_had_not(
    n: int,
    before: bool,
    killed_after: Any,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed_after(n, before)
    with pytest.raises(Stop):
        train(tmp_path, OFTEN)
    monkeypatch.undo()
    train(tmp_path, resume=True)
    assert_same_end(undisturbed, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on_from_there(
    number: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpanet.records import TensorBoard

    step = TensorBoard.step

    def signalled(self: Any, taken: Any) -> None:
        step(self, taken)
        if taken.iteration == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TensorBoard, "step", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert threading.current_thread() is threading.main_thread()
    assert '"status": "interrupted"' in (tmp_path / "result.json").read_text()
    monkeypatch.undo()
    train(tmp_path, resume=True)
    assert_same_end(undisturbed, tmp_path)
    assert '"status": "completed"' in (tmp_path / "result.json").read_text()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    killed_after: Any,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    killed_after(4, False)
    with pytest.raises(Stop):
        train(tmp_path, OFTEN)
    monkeypatch.undo()
    last = tmp_path / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    train(tmp_path, resume=True)
    assert "going on from previous.safetensors" in capfd.readouterr().out
    assert_same_end(undisturbed, tmp_path)


def test_a_checkpoint_of_another_configuration_is_refused(undisturbed: Path) -> None:
    before = (undisturbed / "result.json").read_bytes()
    with pytest.raises(UserError, match="seed = 1"):
        train(undisturbed, "seed=1", resume=True)
    assert (undisturbed / "result.json").read_bytes() == before
