"""Warnings about numbers that look as if the machine were at fault."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.metrics import count
from cpanet.training_warnings import not_moving, one_class

LABEL = np.zeros((4, 4), np.uint8)
LABEL[:2] = 1
NOTHING, EVERYTHING = np.zeros((4, 4), bool), np.ones((4, 4), bool)


def warning(*predictions: np.ndarray) -> str | None:
    return one_class([count(p, LABEL) for p in predictions], 8 * len(predictions))


def test_one_class_for_a_whole_evaluation() -> None:
    for prediction, name in ((NOTHING, "background"), (EVERYTHING, "defect")):
        said = warning(prediction, prediction)
        assert said is not None
        assert f"2 test episodes is predicted as {name}" in said
        assert "python -m cpanet.doctor" in said
        assert "paper's recipe begins so" in said


@pytest.mark.parametrize("where", [(0, 0), (3, 3)])
def test_one_pixel_is_enough(where: tuple[int, int]) -> None:
    for start in (NOTHING, EVERYTHING):
        odd = start.copy()
        odd[where] = not odd[where]
        assert warning(start, odd) is None


def test_both_classes_over_several_episodes() -> None:
    assert warning(NOTHING, EVERYTHING) is None


def test_a_loss_that_never_changes() -> None:
    assert not_moving([0.7] * 9) is None
    said = not_moving([0.7] * 10)
    assert said is not None
    assert "0.7 for all 10 iterations" in said
    assert "python -m cpanet.doctor" in said


def test_a_loss_that_does_not_fall() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(400)
    assert not_moving(list(0.7 + noise[:99])) is None
    said = not_moving(list(0.7 + noise))
    assert said is not None
    assert "has not fallen in 400 iterations" in said
    assert not_moving(list(0.7 + noise + np.linspace(0, 0.2, 400))) is not None


def test_a_network_that_starts_at_the_baseline_need_not_lower_its_loss() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(400)
    assert not_moving(list(0.3 + noise), starts_low=True) is None
    assert not_moving([0.3] * 400, starts_low=True) is not None


def test_a_loss_that_falls_or_has_fallen() -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(400)
    assert not_moving(list(0.7 + noise - np.linspace(0, 0.1, 400))) is None
    assert not_moving(list(0.2 + noise + 0.5 * np.exp(-np.arange(400) / 30))) is None
