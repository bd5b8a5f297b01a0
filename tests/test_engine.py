"""The training loop by itself: when it looks at losses, and that looking later changes nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cpanet import engine
from cpanet.runtime import jt


def loop(
    monkeypatch: pytest.MonkeyPatch, ahead: int, losses: list[float], pause: Any = lambda: False
) -> tuple[Any, list[float]]:
    """The loop's steps on a model that only has losses, and what has been launched so far."""
    launched: list[float] = []

    def train_step(model: Any, optimizer: Any, batch: float, objective: Any) -> engine.Losses:
        launched.append(batch)
        value = jt.array([batch])
        return engine.Losses(value, None, value * 2.0, value * 0.0)

    monkeypatch.setattr(engine, "train_step", train_step)
    monkeypatch.setattr(engine, "steps_ahead", lambda: ahead)
    model = SimpleNamespace(train=lambda: None, dropout_source=SimpleNamespace(reseed=lambda *_: None))
    optimizer = SimpleNamespace(param_groups=[])
    steps = engine.train_epoch(
        model, optimizer, iter(losses), engine.Objective(), lambda i: 0.1, 10, 0, pause=pause
    )
    return steps, launched


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_losses_that_are_looked_at_later_are_the_same(monkeypatch, ahead: int) -> None:
    steps, launched = loop(monkeypatch, ahead, [1.0, 2.0, 3.0, 4.0, 5.0])
    first = next(steps)
    assert len(launched) == min(1 + ahead, 5)
    found = [(step.iteration, step.main, step.total) for step in (first, *steps)]
    assert found == [(10 + n, n + 1.0, 2 * n + 2.0) for n in range(5)]


def test_a_pause_hands_over_every_step_that_was_taken(monkeypatch) -> None:
    calls = iter([False, False, False, True])
    steps, launched = loop(monkeypatch, 8, [1.0, 2.0, 3.0, 4.0, 5.0], pause=lambda: next(calls))
    assert [step.iteration for step in steps] == [10, 11, 12]
    assert launched == [1.0, 2.0, 3.0]


def test_steps_before_one_that_diverged_are_handed_over(monkeypatch) -> None:
    steps, _ = loop(monkeypatch, 8, [1.0, 2.0, float("nan"), 4.0])
    assert [next(steps).iteration, next(steps).iteration] == [10, 11]
    with pytest.raises(engine.Diverged, match="iteration 12"):
        next(steps)
