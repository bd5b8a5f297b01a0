"""Convolutions in bfloat16 on a CPU: oneDNN's kernels against NumPy, with operands rounded as a processor with AMX does."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from cpanet.doctor import reference
from cpanet.runtime import jt, prepare
from cpanet.runtime.precision import bfloat16_on_cpu
from tests.shared import REPO

NATIVE = pytest.mark.skipif(
    bfloat16_on_cpu({}) is None, reason="the processor has neither AMX nor AVX512-BF16"
)
GEOMETRIES = [  # kernel, stride, padding, dilation
    (3, 1, 1, 1),
    (1, 1, 0, 1),
    (2, 2, 0, 1),
    (3, 2, 1, 1),
    (3, 1, 2, 2),
]


@pytest.fixture(autouse=True)
def on_a_cpu():
    if prepare().device == "cuda":
        pytest.skip("a CPU is needed")


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """To the nearest number of 8 significant bits, halves to even."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(np.float32)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_close(y, operands, cotangent: np.ndarray, expected) -> None:
    """The result and its gradients, to 1e-5 of the largest value."""
    gradients = jt.grad((y * jt.array(cotangent)).sum(), operands)
    for actual, wanted in zip([y, *gradients], expected):
        assert np.abs(actual.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("k", "stride", "padding", "dilation"), GEOMETRIES)
@pytest.mark.parametrize(
    "kind",
    ["rounded", pytest.param("native", marks=NATIVE), pytest.param("float32", marks=pytest.mark.slow)],
)
def test_result_and_gradients_are_those_of_rounded_operands(kind, k, stride, padding, dilation):
    from cpanet.ops import bfloat16

    x, w = normal(2, 16, 13, 10), normal(24, 16, k, k, seed=1)
    geometry = (stride, stride, padding, padding, dilation, dilation)
    rounded = (lambda a: a) if kind == "float32" else to_bfloat16
    a, b = jt.array(x), jt.array(w)
    y = bfloat16.conv2d(a, b, geometry, kind)
    r = normal(*y.shape, seed=2)
    expected, pullback = reference.conv2d(rounded(x), rounded(w), None, stride, padding, dilation)
    assert_close(y, [a, b], r, [expected, *pullback(rounded(r))])


def test_relu_and_dropout_of_the_fused_convolution():
    from cpanet.ops import bfloat16

    x, w, r = normal(2, 16, 9, 11), normal(16, 16, 3, 3, seed=1), normal(2, 16, 9, 11, seed=2)
    factors = (normal(2, 16, seed=3) > 0).astype(np.float32) / 0.8
    a, b = jt.array(x), jt.array(w)
    y = bfloat16.conv3x3_relu(a, b, jt.array(factors), "rounded")
    plain, pullback = reference.conv2d(to_bfloat16(x), to_bfloat16(w), padding=1)
    kept = factors[:, :, None, None] * (plain > 0)
    assert_close(y, [a, b], r, [plain * kept, *pullback(to_bfloat16(r * kept))])


KINDS = ["emulate", pytest.param("", marks=NATIVE)]  # of CPANET_BF16; empty: the processor's own


def offering(kind: str, *arguments: str) -> str:
    """The output of a Python that offers bf16: ``kind`` is the value of CPANET_BF16."""
    environment = {**os.environ, "CPANET_BF16": kind, "PYTHONPATH": str(REPO)}
    command = [sys.executable, *arguments]
    return subprocess.check_output(command, env=environment, cwd=REPO, text=True, timeout=2400)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_doctor_passes_and_sees_the_bits(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where it keeps what it found
    said = offering(kind, "-m", "cpanet.doctor", "--device", "cpu", "--precision", "bf16")
    assert "All " in said
    assert said.count("bf16 (7 bits)") == 2
    assert "learning: 20 steps" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_as_at_float32(kind, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        run = "run.py profile=quick data=embedded train.epochs=2 backbone.weights=random device=cpu"
        offering(kind, *run.split(), f"precision={precision}", f"hydra.run.dir={folder}")
        rows = (folder / "metrics.csv").read_text().splitlines()
        losses[precision] = float(rows[-1].split(",")[rows[0].split(",").index("loss_main")])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]
