"""Choices and words of a prediction: threshold, the limit for no defect, supports that disagree, progress."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from cpanet.predict.calibration import calibrate
from cpanet.predict.clean import image_score, limit_of
from cpanet.predict.outputs import remove_outputs
from cpanet.tasks import predict
from cpanet.tasks.predict import below_baseline, disagreeing

RNG = np.random.default_rng(0)
TRUTH = np.zeros((20, 30), np.uint8)
TRUTH[5:12, 8:20] = 1
DIFFERENCE = (0.02 + 0.1 * TRUTH + 0.004 * RNG.standard_normal(TRUTH.shape)).astype(np.float32)


def test_a_narrow_map_is_spread_and_cut_between_defect_and_background():
    probability = calibrate([DIFFERENCE], [TRUTH], 1).probability(DIFFERENCE)
    np.testing.assert_array_equal(probability > 0.5, TRUTH == 1)
    assert probability[TRUTH == 1].mean() > 0.85
    assert probability[TRUTH == 0].mean() < 0.15


def test_ignored_pixels_do_not_calibrate():
    truth, difference = TRUTH.copy(), DIFFERENCE.copy()
    truth[0], difference[0] = 255, 99
    found = calibrate([difference], [truth], 1)
    assert found.is_found
    assert found.offset == pytest.approx(calibrate([DIFFERENCE[1:]], [TRUTH[1:]], 1).offset)


@pytest.mark.parametrize("truth", [1 - TRUTH, TRUTH * 0, TRUTH * 0 + 1])
def test_what_cannot_be_calibrated_is_known(truth):
    assert not calibrate([DIFFERENCE], [truth], 1).is_found


def test_a_small_defect_raises_the_score_of_its_picture():
    clean = RNG.random((100, 100)).astype(np.float32) * 0.3
    spotted = clean.copy()
    spotted[40:48, 40:48] = 0.9
    assert 0 < image_score(clean) < 0.31 < image_score(spotted) <= 0.9


def test_a_limit_keeps_the_rate_of_false_alarms():
    """Expected rate and bound are those of many draws of n clean scores, whatever their distribution."""
    n, rate = 30, 0.1
    actual = []
    for _ in range(2000):
        scores = RNG.random(n)  # the true rate above a limit is then 1 minus the limit
        limit = limit_of(scores.tolist(), rate)
        actual.append(1 - limit.score)
    assert limit.expected <= rate
    assert np.mean(actual) == pytest.approx(limit.expected, abs=0.005)
    assert np.mean(np.array(actual) < limit.at_most) == pytest.approx(0.95, abs=0.015)


def test_few_clean_pictures_promise_little():
    limit = limit_of([0.2, 0.4, 0.3], 0.01)
    assert (limit.score, limit.expected) == (0.4, 0.25)
    assert limit.at_most == pytest.approx(1 - 0.05 ** (1 / 3))  # the rule of three
    assert "3 clean pictures" in limit.sentence()
    assert limit_of(RNG.random(5000).tolist(), 0.05).expected == pytest.approx(0.05, abs=1e-3)


def test_progress_is_a_line_now_and_then(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(predict, "log", said.append)
    now = [0.0]
    report = predict.lines(100, "pictures", lambda: now[0])
    for done in range(101):
        report(done)
        now[0] += 2.0
    assert said[0] == "15 of 100 pictures, about 3 min left"
    assert len(said) == 6


def test_an_earlier_predictions_files_are_removed_and_nobody_elses(tmp_path):
    for name in ("masks/a.png", "overlays/a.png", "masks/mine.png", "annotations.json", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    remove_outputs(tmp_path)  # without a table nothing is known to be ours
    assert (tmp_path / "masks" / "a.png").exists()
    with (tmp_path / "predictions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([["image", "mask"], ["a.jpg", "masks/a.png"], ["b.jpg", "masks/../notes.txt"]])
    remove_outputs(tmp_path)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"masks/mine.png", "notes.txt"}


def test_a_run_below_its_baseline_names_the_better_method(tmp_path):
    file = tmp_path / "checkpoints" / "best.safetensors"
    record = {
        "best": {"miou": 0.14},
        "last": {"miou": 0.4},
        "floor": {"miou": 0.33},
        "config": {"baseline": {"stage": "f2"}},
    }
    assert below_baseline(file) is None
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert "0.1400 against 0.3300" in below_baseline(file)
    assert "method=prototype baseline.stage=f2" in below_baseline(file)
    assert below_baseline(file.with_name("last.safetensors")) is None
    assert below_baseline(tmp_path / "other.pth") is below_baseline(None) is None


def test_a_support_that_the_others_do_not_mark_is_named():
    assert disagreeing([0.5, 0.02, 0.4]) == [1]
    assert disagreeing([0.5, 0.1]) == [1]
    assert disagreeing([0.5, 0.2, 0.4]) == disagreeing([]) == disagreeing([0.3]) == []
