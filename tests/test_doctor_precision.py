"""The doctor at CUDA's precisions, on a CPU that computes as CUDA would: sound, of other bits than asked for, and broken."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.doctor import learning, operators, precision
from cpanet.doctor.checks import CheckFailed, run_check
from cpanet.doctor.precision import Delivered, tolerance
from cpanet.models import layers
from cpanet.runtime import jt, prepare
from tests.as_on_cuda import (
    CUTS,
    constant_products,
    products_of,
    products_without_gradient,
    without_kernels,
)

prepare("cpu")
REDUCED = tuple(CUTS)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Fewer channels: this is a CPU."""
    monkeypatch.setattr(precision, "SIZE", 64)
    wide = [geometry for geometry in operators.CONVOLUTIONS if geometry[-1] == 256]
    assert wide
    monkeypatch.setattr(operators, "CONVOLUTIONS", tuple(g for g in operators.CONVOLUTIONS if g not in wide))


def results(checks) -> list:
    return [run_check(name, check, "") for name, check in checks.items()]


def failures(checks) -> dict[str, str]:
    return {result.name: result.error for result in results(checks) if not result.ok}


def test_tolerances_follow_the_mantissa():
    assert tolerance("fp32") == 1e-4
    assert tolerance("tf32") == tolerance("fp16") == pytest.approx(1e-4 + 2**-8)
    assert tolerance("bf16") == pytest.approx(1e-4 + 2**-5)


@pytest.mark.slow
def test_the_operators_that_cuda_would_run_are_right(monkeypatch):
    """Jittor's own operators behind ``cpanet.ops``, forward and gradient, against numpy."""
    without_kernels(monkeypatch)
    assert failures(operators.checks()) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cut"), [(name, cut) for name in REDUCED for cut in CUTS[name]])
def test_products_of_fewer_bits_pass_where_they_were_asked_for_and_nowhere_else(monkeypatch, name, cut):
    without_kernels(monkeypatch)
    products_of(monkeypatch, cut)
    found = results(operators.product_checks(name))
    assert [result.error for result in found if not result.ok] == []
    # tight: half the tolerance is used by some, and all of them would be wrong for float32
    assert max(result.deviation for result in found) > tolerance(name) / 8
    assert set(failures(operators.product_checks("fp32"))) == set(operators.product_checks("fp32"))
    assert failures(precision.checks(name)) == {}
    assert len(failures(precision.checks("fp32"))) == 4


@pytest.mark.slow
def test_measured_bits_on_sound_float32(monkeypatch):
    assert failures(precision.checks("fp32")) == {}
    without_kernels(monkeypatch)
    assert failures(precision.checks("fp32")) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "delivered", "told"),
    [
        # fewer bits or less range than asked for is a failure
        ("fp32", "tf32", "taken in tf32 (10 bits) where fp32 was asked for"),
        ("fp32", "bf16", "taken in bf16 (7 bits)"),
        ("tf32", "bf16", "taken in bf16 (7 bits) where tf32"),
        ("fp16", "bf16", "taken in bf16 (7 bits) where fp16"),
        ("tf32", "fp16", "numbers below 2^-25 vanish, as in float16, where tf32"),
        ("bf16", "fp16", "numbers below 2^-25 vanish, as in float16, where bf16"),
        # more bits are a note
        ("tf32", "fp32", None),
        ("bf16", "fp32", None),
        ("bf16", "tf32", None),
        ("fp16", "tf32", None),
    ],
)
def test_other_bits_than_asked_for(monkeypatch, asked, delivered, told):
    without_kernels(monkeypatch)
    if delivered != "fp32":
        products_of(monkeypatch, CUTS[delivered][0])
    found = results(precision.checks(asked))
    assert len(found) == 4
    for result in found:
        if told is None:
            assert result.ok
            assert result.note == f"asked for {asked}, delivered {delivered}"
        else:
            assert not result.ok
            assert told in result.error


def test_passes_that_differ_are_told_apart():
    sound, cut = Delivered(23, True), Delivered(10, True)
    passes = {"result": sound, "gradient of input": cut, "gradient of weight": sound}
    with pytest.raises(CheckFailed, match=r"result fp32 \(23 bits\), gradient of input tf32 \(10 bits\)"):
        precision.verdict("fp32", passes)
    assert precision.verdict("tf32", passes).note == "asked for tf32, delivered fp32"
    assert Delivered(3, True).name == "3 bits"


# ------------------------------------------------------ the failures that users reported, at every precision

STATISTICS = "batch norm, running statistics"
NAMES = (
    "convolution 3×3, bias",
    "convolution 1×1, no bias",
    "matrix product",
    "batched matrix product",
    "projection to few channels",
    "convolution 3×3 to few channels",
    "convolution 3×3 with relu and channel dropout",
    "bilinear enlargement",
    "batch norm, training",
    STATISTICS,
    "relu",
)
OF_PRODUCTS = set(NAMES[:8])
GRADIENTS = "gradient of input, gradient of weight"


@pytest.fixture(params=["fp32", *REDUCED])
def asked(request, monkeypatch):
    """A precision, and products that are taken in it."""
    without_kernels(monkeypatch)
    if request.param != "fp32":
        products_of(monkeypatch, CUTS[request.param][0])
    return request.param


def examine(name: str) -> dict[str, str]:
    checks = operators.checks(name)
    return failures({chosen: checks[chosen] for chosen in NAMES})


def statistics_as_they_were(monkeypatch) -> None:
    monkeypatch.setattr(jt.Var, "update", lambda self, value: self)


def normalised_values_a_little_larger(monkeypatch) -> None:
    """By more than float32's tolerance, which is kept by what is not made of products."""
    sound = layers.BatchNorm.execute
    monkeypatch.setattr(layers.BatchNorm, "execute", lambda self, x: sound(self, x) * 1.0005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breakage", "failed", "told", "told_of", "without_bits"),
    [
        (constant_products, OF_PRODUCTS, "output is the constant 0.25", {"convolution 3×3, bias"}, "result"),
        (products_without_gradient, OF_PRODUCTS, "gradient of input is all zero", OF_PRODUCTS, GRADIENTS),
        (statistics_as_they_were, {STATISTICS}, "not updated", {STATISTICS}, None),
        (
            normalised_values_a_little_larger,
            {"batch norm, training"},
            "off by",
            {"batch norm, training"},
            None,
        ),
    ],
)
def test_broken_operators_are_found(asked, monkeypatch, breakage, failed, told, told_of, without_bits):
    breakage(monkeypatch)
    found = examine(asked)
    assert set(found) == failed
    assert all(told in found[name] for name in told_of)
    if without_bits:
        wrong = f"{without_bits}: wrong from the first bit on"
        assert set(failures(precision.checks(asked)).values()) == {wrong}


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_the_gradient_of_one_operand_alone_is_zero(asked, monkeypatch, which):
    """cuDNN's gradients of input and of weight are two operators, and each may fail alone."""

    sound = jt.nn.conv2d

    def conv2d(x, weight, *rest, **settings):
        operands = [x, weight]
        operands[which] = operands[which].detach()
        return sound(*operands, *rest, **settings)

    monkeypatch.setattr(jt.nn, "conv2d", conv2d)
    found = examine(asked)
    assert f"gradient of {('input', 'weight')[which]} is all zero" in found["convolution 3×3, bias"]
    assert "matrix product" not in found


# ------------------------------------------------------ does it learn?


def test_statistics_after_training():
    learning.check_statistics(np.array([0.1, 0.0]), np.array([0.9, 1.0]))
    for mean, variance in (([0.0, 0.0], [0.9, 0.8]), ([0.1, 0.1], [1.0, 1.0])):
        with pytest.raises(CheckFailed, match="not updated by training"):
            learning.check_statistics(np.array(mean), np.array(variance))
    with pytest.raises(CheckFailed, match="not finite"):
        learning.check_statistics(np.array([np.nan]), np.array([0.9]))


def test_a_loss_that_stays_where_it_is():
    truth = np.eye(4, dtype=np.uint8)[None]
    with pytest.raises(CheckFailed, match=r"the loss is 0\.6931 at every step"):
        learning.verdict([0.693147] * 20, truth, truth)


@pytest.mark.slow
@pytest.mark.parametrize("name", REDUCED)
def test_it_learns_at_every_precision(monkeypatch, name):
    without_kernels(monkeypatch)
    products_of(monkeypatch, CUTS[name][0])
    result = run_check("learning", learning.overfit, "")
    assert result.ok, result.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breakage", "told"),
    [
        (statistics_as_they_were, "not updated by training"),
        (products_without_gradient, "learnt"),
        (constant_products, "learnt|not updated"),
    ],
)
def test_a_broken_network_does_not_learn(monkeypatch, breakage, told):
    without_kernels(monkeypatch)
    breakage(monkeypatch)
    result = run_check("learning", learning.overfit, "")
    assert not result.ok
    assert any(word in result.error for word in told.split("|"))
