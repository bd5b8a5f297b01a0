"""Metrics against brute force, and the geometry of the test canvas."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.bilinear import interpolation_matrix
from cpanet.data.transforms import canvas_shape
from cpanet.metrics import Counts, count, episode_counts, predicted, summarise


def brute_force(prediction: np.ndarray, label: np.ndarray) -> tuple[int, ...]:
    sums = [0, 0, 0, 0]
    for p, t in zip(prediction.ravel(), label.ravel()):
        if t == 255:
            continue
        for offset, wanted in ((0, 1), (2, 0)):
            sums[offset] += int(p) == wanted and t == wanted
            sums[offset + 1] += int(p) == wanted or t == wanted
    return tuple(sums)


def test_counts_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        label = rng.choice(np.array([0, 1, 255], np.uint8), (9, 7))
        prediction = rng.random((9, 7)) > 0.5
        assert count(prediction, label) == brute_force(prediction, label)


def test_resizing_is_bilinear_with_aligned_corners():
    assert np.allclose(interpolation_matrix(5, 3) @ [0, 1, 4], [0, 0.5, 1, 2.5, 4])
    assert np.array_equal(interpolation_matrix(4, 4), np.eye(4))
    assert np.allclose(interpolation_matrix(7, 12).sum(axis=1), 1)
    assert interpolation_matrix(1, 5).tolist() == [[1, 0, 0, 0, 0]]
    assert interpolation_matrix(3, 1).tolist() == [[1], [1], [1]]


def test_resizing_agrees_with_the_definition_in_both_directions():
    rng = np.random.default_rng(1)
    field = rng.standard_normal((6, 6))
    for size in (3, 6, 11):
        matrix = interpolation_matrix(size, 6)
        resized = matrix @ field @ matrix.T
        for i in range(size):
            for j in range(size):
                y, x = i * 5 / (size - 1), j * 5 / (size - 1)
                y0, x0 = min(int(y), 4), min(int(x), 4)
                dy, dx = y - y0, x - x0
                corners = field[y0 : y0 + 2, x0 : x0 + 2]
                value = np.array([1 - dy, dy]) @ corners @ np.array([1 - dx, dx])
                assert resized[i, j] == pytest.approx(value)


def test_a_tie_is_background():
    assert not predicted(np.zeros((8, 8), np.float32), 8, 8).any()


def test_a_difference_that_is_not_finite_is_background():
    assert not predicted(np.full((8, 8), np.nan, np.float32), 8, 8).any()


def test_the_perfect_logits_of_the_test_canvas_give_the_original_mask_back():
    mask = np.zeros((100, 200), np.uint8)
    mask[20:70, 30:110] = 1
    assert canvas_shape(100, 200, 200) == (96, 200)
    logits = np.where(np.pad(mask, ((0, 100), (0, 0))) == 1, 5.0, -5.0).astype(np.float32)
    assert episode_counts(logits, mask) == (4000, 4000, 16000, 16000)


def test_what_is_beyond_the_image_does_not_count():
    mask = np.zeros((40, 80), np.uint8)
    mask[:10] = 1
    logits = np.full((80, 80), -1, np.float32)
    logits[40:] = 1  # wrong, but outside
    counts = episode_counts(logits, mask)
    assert counts.union_bg == 40 * 80
    assert counts.inter_fg == 0


def test_a_smaller_canvas_is_enlarged_to_the_square_of_the_longer_side():
    difference = np.array([[1, -1], [-3, -3]], np.float32)
    # Rows of the 4×4 square go from (1 … -1) to (-3 … -3); positive where 1 - 2x - 4y + 2xy > 0.
    grid = np.arange(4) / 3
    expected = 1 - 2 * grid[None] - 4 * grid[:, None] + 2 * grid[None] * grid[:, None] > 0
    assert np.array_equal(predicted(difference, 3, 4), expected[:3])


def test_scores_follow_the_papers_definitions():
    counts = [Counts(10, 20, 50, 60), Counts(0, 10, 30, 40), Counts(5, 5, 95, 95)]
    scores = summarise(counts, [4, 4, 7])
    assert scores.class_iou == {4: pytest.approx(10 / 30), 7: pytest.approx(1.0)}
    assert scores.miou == pytest.approx((10 / 30 + 1) / 2)
    assert scores.fb_iou == pytest.approx((15 / 35 + 175 / 195) / 2)


def test_scores_do_not_depend_on_the_order_of_episodes():
    rng = np.random.default_rng(2)
    counts = [Counts(*(int(n) for n in row)) for row in np.sort(rng.integers(1, 500, (30, 4)))]
    classes = rng.integers(0, 3, 30).tolist()
    order = rng.permutation(30)
    assert summarise(counts, classes) == summarise([counts[i] for i in order], [classes[i] for i in order])


def test_nothing_at_all_scores_zero():
    assert summarise([Counts(0, 0, 0, 0)], [0]) == (0.0, 0.0, {0: 0.0})


def test_no_episodes_is_an_error():
    with pytest.raises(ValueError, match="no episodes"):
        summarise([], [])
