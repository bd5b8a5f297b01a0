"""Intervals: against hand computation, against known truth, and where they must refuse."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.metrics import Counts, summarise
from cpanet.report.statistics import Episodes, Unpaired, compare, mean_iou, spread_over_seeds, t_quantile


def episodes(*rows, classes=None, supports="s"):
    """Episodes of (inter_fg, union_fg) pairs, backgrounds perfect."""
    classes = classes or ["a"] * len(rows)
    keys = tuple((name, f"q{i:03d}", supports) for i, name in enumerate(classes))
    return Episodes(keys, np.array([[inter, union, 50, 50] for inter, union in rows], dtype=np.int64))


def test_mean_iou_is_the_metric_of_the_evaluation():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 100, (30, 4))
    counts[:, 1] += counts[:, 0]
    names = [f"c{i % 3}" for i in range(30)]
    found = Episodes(tuple((name, f"{i:02d}", "s") for i, name in enumerate(names)), counts)
    expected = summarise([Counts(*row) for row in counts.tolist()], [i % 3 for i in range(30)]).miou
    assert mean_iou(found) == pytest.approx(expected)


def test_two_episodes_by_hand():
    # Row: IoU 1 and 0 on equal unions; reference: 0 and 0. A resample is (first, first), (first, second) twice, or
    # (second, second): differences 1, ½, ½, 0. With so few episodes the 95 % interval is all of it.
    found = compare([{0: episodes((10, 10), (0, 10))}], [{0: episodes((0, 10), (0, 10))}]).miou
    assert found.difference == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.0, 1.0))
    assert not found.excludes_zero


def test_seeds_by_hand():
    # One episode a class: nothing to resample. Differences of two seeds: 0.5 and 0.3 → mean 0.4, sd of the mean
    # |0.5 − 0.3| / 2 = 0.1, one degree of freedom: t = 12.706, so 0.4 ± 1.27, and no IoU differs by more than 1.
    found = compare([of_seeds(s1=50, s2=30)], [of_seeds(s1=0, s2=0)], resamples=20_000).miou
    assert found.difference == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - 1.2706, abs=0.02)
    assert found.high == 1.0
    assert found.seeds == 2


def test_equal_runs_differ_by_nothing():
    block = {0: episodes((3, 10), (7, 10)), 1: episodes((4, 10), (5, 10))}
    found = compare([block], [dict(block)]).miou
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert not found.excludes_zero


def of_seeds(**scores):
    """A block of one episode a seed: ``s0=50`` is seed 0 at 50 of 100 pixels."""
    return {int(seed[1:]): episodes((score, 100)) for seed, score in scores.items()}


BY_HAND = {
    # foreground 60/100 against 20/100, background perfect on both sides: (0.6 + 1)/2 − (0.2 + 1)/2
    "FB-IoU": ([of_seeds(s0=60)], [of_seeds(s0=20)], "fb_iou", 0.2, 1),
    "only common seeds": ([of_seeds(s0=50, s1=90)], [of_seeds(s0=40, s7=0)], "miou", 0.1, 1),
    "means without common seeds": ([of_seeds(s0=50, s1=70)], [of_seeds(s7=20, s8=40)], "miou", 0.3, 0),
    "folds averaged": ([of_seeds(s0=50), of_seeds(s0=70)], [of_seeds(s0=40)] * 2, "miou", 0.2, 1),
}


@pytest.mark.parametrize(("row", "reference", "metric", "difference", "seeds"), BY_HAND.values(), ids=BY_HAND)
def test_differences_by_hand(row, reference, metric, difference, seeds):
    found = getattr(compare(row, reference), metric)
    assert found.difference == pytest.approx(difference)
    assert found.seeds == seeds


def test_pairing_removes_what_episodes_have_in_common():
    rng = np.random.default_rng(0)
    hard = rng.integers(10, 90, 60)
    low = [(int(h), 100) for h in hard]
    high = [(int(h) + 5, 100) for h in hard]
    found = compare([{0: episodes(*high)}], [{0: episodes(*low)}]).miou
    assert found.difference == pytest.approx(0.05)
    assert found.high - found.low < 0.001  # unpaired it would be about ±0.08


@pytest.mark.parametrize(
    "other",
    [episodes((1, 2), (1, 2), supports="t"), episodes((1, 2), (1, 2), classes=["a", "b"]), episodes((1, 2))],
    ids=["supports", "class", "number"],
)
def test_other_test_episodes_are_refused(other):
    with pytest.raises(Unpaired, match="other test episodes"):
        compare([{0: episodes((1, 2), (1, 2))}], [{0: other}])


def test_no_runs_are_refused():
    with pytest.raises(Unpaired):
        compare([{}], [{0: episodes((1, 2))}])


def test_the_same_data_give_the_same_digits():
    row, reference = world(np.random.default_rng(0), 3, 0.02, 20, 0.03)
    assert compare([row], [reference]) == compare([row], [reference])


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (2, 4.303), (5, 2.571), (30, 2.042), (1000, 1.962)]
)
def test_student_t(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, abs=0.002)


def test_spread_over_seeds_by_hand():
    # squares about their means: 2 · 1² and 2 · 2², degrees of freedom 1 + 1
    assert spread_over_seeds([[1.0, 3.0], [0.0, 4.0], [9.0]]) == (pytest.approx(((2 + 8) / 2) ** 0.5), 2)
    assert spread_over_seeds([[1.0], [2.0]]) is None


def world(rng, seeds, noise, per_class, effect, classes=4):
    """Two rows over the same episodes, ``effect`` apart in IoU; every training moves a row by ``noise``."""
    number = classes * per_class
    keys = tuple((f"c{c}", f"q{i:02d}", "s") for c in range(classes) for i in range(per_class))
    level = np.repeat([0.4, 0.5, 0.55, 0.45], per_class) + 0.15 * rng.standard_normal(number)
    defect = rng.integers(800, 6000, number)

    def run(shift):
        iou = np.clip(level + shift + 0.08 * rng.standard_normal(number), 0.01, 0.99)
        inter = np.round(defect * 2 * iou / (1 + iou))
        wrong = 2 * (defect - inter)
        background = 40_000 - defect
        counts = [inter, inter + wrong, background - wrong // 2, background + wrong // 2]
        return Episodes(keys, np.stack(counts, axis=1).astype(np.int64))

    row = {seed: run(effect + noise * rng.standard_normal()) for seed in range(seeds)}
    return row, {seed: run(noise * rng.standard_normal()) for seed in range(seeds)}


@pytest.mark.parametrize(
    ("seeds", "noise", "per_class"), [(1, 0.0, 15), (1, 0.0, 50), (2, 0.02, 20), (3, 0.02, 20), (6, 0.02, 20)]
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(seeds, noise, per_class):
    big = world(np.random.default_rng(0), 1, 0.0, 20_000, 0.03)
    truth = mean_iou(big[0][0]) - mean_iou(big[1][0])
    covered = 0
    for trial in range(150):
        row, reference = world(np.random.default_rng(100 + trial), seeds, noise, per_class, 0.03)
        found = compare([row], [reference], resamples=300, seed=trial).miou
        covered += found.low <= truth <= found.high
    # 95 % and three standard errors below; few seeds are covered more often
    assert 0.87 <= covered / 150 <= 1.0


def test_marks_are_rare_where_nothing_differs():
    marked = 0
    for trial in range(150):
        row, reference = world(np.random.default_rng(trial), 3, 0.02, 15, 0.0)
        marked += compare([row], [reference], resamples=300, seed=trial).miou.excludes_zero
    assert marked <= 15  # 5 % of 150 is 7.5
