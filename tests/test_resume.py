"""Exact resumption, trained for real: whatever stops a run, it ends as if nothing had."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from cpanet import engine
from cpanet.errors import UserError
from cpanet.runtime import jt
from tests.whole_runs import OFTEN, assert_same_end, train


class Stop(BaseException):
    """The process is gone: nothing is written after this."""


@contextmanager
def killed_after(n: int, before: bool) -> Iterator[None]:
    """What runs in the block dies in its ``n``-th checkpoint, before or after it is written, without any clean-up."""
    replace, count, dead = os.replace, 0, False

    def dying(source: Any, target: Any) -> None:
        nonlocal count, dead
        count += not dead and Path(target).name == "last.safetensors"
        due, dead = count == n and not dead, count >= n
        if not dead or (due and not before):
            replace(source, target)
        if dead:
            raise Stop

    with mock.patch.object(os, "replace", dying), pytest.raises(Stop):
        yield


AFTER = [pytest.param(n, False, marks=pytest.mark.slow) for n in (2, 4)]  # as in two tests below


@pytest.mark.parametrize(("n", "before"), [(1, True), (3, True), *AFTER])
def test_a_run_that_died_ends_as_if_it_had_not(
    n: int, before: bool, undisturbed_run: Path, tmp_path: Path
) -> None:
    with killed_after(n, before):
        train(tmp_path, OFTEN)
    train(tmp_path, resume=True)
    assert_same_end(undisturbed_run, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_run_goes_on_from_there(
    number: int, undisturbed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpanet.records.tensorboard import TensorBoard

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
    assert_same_end(undisturbed_run, tmp_path)
    assert '"status": "completed"' in (tmp_path / "result.json").read_text()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    undisturbed_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with killed_after(4, False):
        train(tmp_path, OFTEN)
    last = tmp_path / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    train(tmp_path, resume=True)
    assert "going on from previous.safetensors" in capfd.readouterr().out
    assert_same_end(undisturbed_run, tmp_path)


def test_a_checkpoint_of_another_configuration_is_refused(undisturbed_run: Path) -> None:
    before = (undisturbed_run / "result.json").read_bytes()
    with pytest.raises(UserError, match="seed = 1"):
        train(undisturbed_run, "seed=1", resume=True)
    assert (undisturbed_run / "result.json").read_bytes() == before


def test_a_signal_in_an_evaluation_is_obeyed_there(
    undisturbed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, evaluations = engine.evaluate, 0

    def signalled(*arguments: Any, **options: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        if evaluations == 3:  # untrained, baseline, first epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(engine, "evaluate", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert not (tmp_path / "metrics.csv").exists()
    monkeypatch.undo()
    train(tmp_path, resume=True)
    assert_same_end(undisturbed_run, tmp_path)


def test_no_random_state_of_the_process_has_a_say(undisturbed_run: Path, tmp_path: Path) -> None:
    """Every random number comes from a generator made of seed, epoch and position: there is no other state to keep."""
    with killed_after(2, False):
        train(tmp_path, OFTEN)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    jt.set_global_seed(99)
    train(tmp_path, resume=True)
    assert_same_end(undisturbed_run, tmp_path)


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))])
def test_the_number_of_workers_changes_nothing(workers: int, undisturbed_run: Path, tmp_path: Path) -> None:
    train(tmp_path, f"data.workers={workers}")
    assert_same_end(undisturbed_run, tmp_path)


@pytest.mark.parametrize(
    ("setting", "saves"), [("every_iterations=2", 4), ("every_minutes=1e-9", 6), ("every_minutes=9", 2)]
)
def test_checkpoints_come_by_iterations_and_by_minutes(
    setting: str, saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, written = os.replace, []

    def counting(source: Any, target: Any) -> None:
        written.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", counting)
    train(tmp_path, f"checkpoint.{setting}")
    assert written.count("last.safetensors") == saves
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"last.safetensors", "previous.safetensors", "best.safetensors"}
