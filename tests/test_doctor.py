"""The doctor on sound operators, and on the broken ones that users have met: imports fine, learns nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cpanet.doctor import __main__ as doctor
from cpanet.doctor import learning, operators
from cpanet.doctor.checks import CheckFailed, require_close, run_check
from cpanet.models import layers
from cpanet.ops import Conv
from cpanet.runtime import jt, prepare

SUBSET = ("convolution 3×3, bias", "batch norm, training", "batch norm, running statistics", "relu")


@pytest.fixture
def examine(monkeypatch, capsys):
    """Runs the real command on a few checks; returns exit status, what is said of those that failed, and all of it."""

    def run():
        chosen = {name: check for name, check in operators.checks().items() if name in SUBSET}
        assert len(chosen) == len(SUBSET)
        monkeypatch.setattr(doctor, "all_checks", lambda runtime: chosen)
        monkeypatch.setattr(doctor, "remedy", lambda runtime: "REMEDY")
        status = doctor.main(["--device", "cpu"])
        printed = capsys.readouterr().out
        failures = dict(re.findall(r"^✗ (.*?): (.*)$", printed, re.MULTILINE))
        assert all("REMEDY" in line for line in failures.values())
        return status, failures, printed

    return run


def test_sound_operators_pass(examine):
    status, failures, printed = examine()
    assert (status, failures) == (0, {})
    assert all(f"✓ {name}" in printed for name in SUBSET)
    assert "All 4 checks passed" in printed


def constant_results(monkeypatch):
    sound = Conv.execute
    monkeypatch.setattr(Conv, "execute", lambda self, x: sound(self, x) * 0 + 0.25)


def statistics_that_are_not_updated(monkeypatch):
    sound = layers.BatchNorm.execute

    def forgetful(self, x):
        mean, variance = self.running_mean.copy(), self.running_var.copy()
        y = sound(self, x)
        if self.is_train:
            self.running_mean, self.running_var = mean, variance
        return y

    monkeypatch.setattr(layers.BatchNorm, "execute", forgetful)


def gradients_that_are_zero(monkeypatch):
    sound = jt.grad
    monkeypatch.setattr(jt, "grad", lambda loss, targets: [g * 0 for g in sound(loss, targets)])


def weights_without_a_gradient(monkeypatch):
    sound = Conv.execute

    def detached(self, x):
        weight, self.weight = self.weight, self.weight.stop_grad()
        try:
            return sound(self, x)
        finally:
            self.weight = weight

    monkeypatch.setattr(Conv, "execute", detached)


@pytest.mark.parametrize(
    ("breakage", "failed", "told"),
    [
        (constant_results, {SUBSET[0]}, "output is the constant 0.25"),
        (statistics_that_are_not_updated, {SUBSET[2]}, "not updated"),
        (gradients_that_are_zero, {SUBSET[0], SUBSET[1], SUBSET[3]}, "gradient of input is all zero"),
        (weights_without_a_gradient, {SUBSET[0]}, "gradient of weight"),
    ],
)
def test_broken_operators_are_found(examine, monkeypatch, breakage, failed, told):
    breakage(monkeypatch)
    status, failures, _ = examine()
    assert status == 1
    assert set(failures) == failed
    assert all(told in line for line in failures.values())


def test_every_operator_named_in_the_design_has_a_check():
    names = operators.checks().keys()
    assert len(names) == len(operators.product_checks("fp32")) + len(operators.float32_checks())
    for geometry in ("3×3", "1×1", "2×2 stride 2", "7×7", "3×3 dilation 2"):
        assert {f"convolution {geometry}, bias", f"convolution {geometry}, no bias"} <= names
    assert len(names) >= 30
    assert list(doctor.all_checks(prepare()))[-1].startswith("learning")


def test_a_crash_in_an_operator_is_one_line_with_its_remedy():
    def crash():
        raise RuntimeError("\n  Wrong inputs arguments\nstack…\n")

    result = run_check("x", crash, "do this")
    said = (result.ok, result.error, result.remedy)
    assert said == (False, "RuntimeError: Wrong inputs arguments", "do this")


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (np.zeros(3), "all zero"),
        (np.full(3, 0.5), "constant 0.5"),
        (np.array([1.0, 2.0, np.nan]), "not finite"),
        (np.array([1.0, 2.0, 3.01]), "off by"),
        (np.ones((3, 1)), "shape"),
    ],
)
def test_what_a_wrong_number_is_called(actual, message):
    with pytest.raises(CheckFailed, match=message):
        require_close("output", actual, np.array([1.0, 2.0, 3.0]), 1e-4)


def test_comparison_with_nothing_is_refused():
    with pytest.raises(ValueError, match="say nothing"):
        require_close("output", np.zeros(3), np.zeros(3), 1e-4)


def test_verdict_on_learning():
    truth = np.zeros((1, 4, 4), np.uint8)
    truth[0, :2] = 1
    assert "IoU 1.00" in learning.verdict([0.7, 0.1], truth, truth).detail
    with pytest.raises(CheckFailed, match="every pixel is predicted 0"):
        learning.verdict([0.7, 0.1], truth * 0, truth)
    with pytest.raises(CheckFailed, match=r"IoU 0\.00"):
        learning.verdict([0.7, 0.1], 1 - truth, truth)
    with pytest.raises(CheckFailed, match=r"loss 0\.70 → 0\.60"):
        learning.verdict([0.7, 0.6], truth, truth)


def test_learning_episodes_cannot_be_learnt_by_position():
    _, masks, _, support_masks = learning.episodes()
    a, b = masks.astype(bool)
    assert (a & b).sum() / (a | b).sum() < 0.4
    assert 0.1 < masks.mean() < 0.4
    assert 0.1 < support_masks.mean() < 0.4


@pytest.mark.slow
def test_the_whole_command(capsys):
    assert doctor.main(["--device", "cpu", "--verbose"]) == 0
    assert "oneDNN" in capsys.readouterr().out


@pytest.mark.slow
def test_a_network_that_cannot_learn_is_caught(monkeypatch):
    sound = jt.nn.AdamW.step

    def frozen(self, loss=None, retain_graph=False):
        rates = [group.get("lr", self.lr) for group in self.param_groups]
        self.lr = 0.0
        for group in self.param_groups:
            group["lr"] = 0.0
        sound(self, loss, retain_graph)
        for group, rate in zip(self.param_groups, rates):
            group["lr"] = rate

    monkeypatch.setattr(jt.nn.AdamW, "step", frozen)
    result = run_check("learning", learning.overfit, "")
    assert not result.ok
    assert "learnt" in result.error
