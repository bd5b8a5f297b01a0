"""Exact resumption, trained for real: whatever stops a run, it ends as if nothing had."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpanet.errors import UserError
from cpanet.runtime import jt
from tests.whole_runs import OFTEN, Experiment, assert_same_end, train


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


def test_a_signal_in_an_evaluation_is_obeyed_there(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, evaluations = Experiment.engine.evaluate, 0

    def signalled(*arguments: Any, **options: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        if evaluations == 3:  # untrained, floor, first epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(Experiment.engine, "evaluate", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert not (tmp_path / "metrics.csv").exists()
    monkeypatch.undo()
    train(tmp_path, resume=True)
    assert_same_end(undisturbed, tmp_path)


def test_no_random_state_of_the_process_has_a_say(
    killed_after: Any, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every random number comes from a generator made of seed, epoch and position: there is no other state to keep."""
    killed_after(2, False)
    with pytest.raises(Stop):
        train(tmp_path, OFTEN)
    monkeypatch.undo()
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    jt.set_global_seed(99)
    train(tmp_path, resume=True)
    assert_same_end(undisturbed, tmp_path)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_nothing(workers: int, undisturbed: Path, tmp_path: Path) -> None:
    train(tmp_path, f"data.workers={workers}")
    assert_same_end(undisturbed, tmp_path)


@pytest.mark.parametrize(
    ("setting", "saves"), [("every_iterations=2", 4), ("every_minutes=1e-9", 6), ("every_minutes=9", 2)]
)
def test_checkpoints_come_by_iterations_and_by_minutes(
    setting: str, saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Experiment.write_checkpoint, []

    def counting(path: Path, *content: Any) -> None:
        written.append(path.name)
        write(path, *content)

    monkeypatch.setattr(Experiment, "write_checkpoint", counting)
    train(tmp_path, f"checkpoint.{setting}")
    assert written.count("last.safetensors") == saves
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"last.safetensors", "previous.safetensors", "best.safetensors"}
