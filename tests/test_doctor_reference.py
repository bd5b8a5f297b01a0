"""The doctor's numpy references: every pullback against central differences of its own forward pass."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.doctor import reference

rng = np.random.default_rng(7)
X = rng.standard_normal((2, 3, 6, 5))
WEIGHT, BIAS = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
GAIN, SHIFT, MEAN = rng.standard_normal((3, 3))
VARIANCE = 0.5 + rng.random(3)
TARGET = np.where(rng.random((2, 6, 5)) > 0.8, 255, rng.integers(0, 3, (2, 6, 5)))

CASES = {
    "conv": (lambda x, w, b: reference.conv2d(x, w, b, padding=1), [X, WEIGHT, BIAS]),
    "conv stride": (lambda x, w: reference.conv2d(x, w, stride=2, padding=1), [X, WEIGHT]),
    "conv dilation": (lambda x, w: reference.conv2d(x, w, padding=2, dilation=2), [X, WEIGHT]),
    "conv 2x2": (lambda x, w: reference.conv2d(x, w, stride=2), [X, WEIGHT[:, :, :2, :2]]),
    "bn training": (reference.batch_norm, [X, GAIN, SHIFT]),
    "bn evaluation": (
        lambda x, w, b: reference.batch_norm(x, w, b, MEAN, VARIANCE),
        [X, GAIN, SHIFT],
    ),
    "relu": (reference.relu, [X]),
    "sigmoid": (reference.sigmoid, [X]),
    "softmax": (reference.softmax, [X]),
    "matmul": (reference.matmul, [X, np.swapaxes(X, 2, 3) + 1]),
    "max-pool 2": (lambda x: reference.max_pool(x, 2, 2, 0), [X]),
    "max-pool 3": (lambda x: reference.max_pool(x, 3, 2, 1), [X]),
    "maximum": (lambda x: reference.maximum_over(x, 1), [X]),
    "mean": (lambda x: reference.mean_over(x, 1), [X]),
    "concatenate": (reference.concatenate, [X, X[:, :2] + 1]),
    "maximum and mean": (reference.maximum_and_mean, [X]),
    "relu, dropout": (
        lambda x: reference.chain(x, reference.relu, lambda v: reference.scale(v, MEAN[None])),
        [X],
    ),
    "project": (reference.project, [X, np.ones((len(X), 2, 3)) + X[:, :1, :2, :3].mean()]),
    "project, maximum": (
        reference.project_with_maximum,
        [X, np.ones((len(X), 2, 3)), np.ones((len(X), 3)) + GAIN],
    ),
    "multiply": (reference.multiply, [X, GAIN.reshape(1, 3, 1, 1)]),
    "resize": (lambda x: reference.resize_bilinear(x, (11, 7)), [X]),
    "cross-entropy": (lambda x: reference.cross_entropy(x, TARGET), [X]),
}


@pytest.mark.parametrize("name", CASES)
def test_pullback_is_the_derivative_of_the_forward_pass(name):
    operator, inputs = CASES[name]
    output, pullback = operator(*inputs)
    r = rng.standard_normal(output.shape)
    gradients = pullback(r)
    assert len(gradients) == len(inputs)
    for position, gradient in enumerate(gradients):
        direction = rng.standard_normal(inputs[position].shape)
        step = 1e-6 * direction
        ahead, behind = (
            [*inputs[:position], inputs[position] + s, *inputs[position + 1 :]] for s in (step, -step)
        )
        slope = ((operator(*ahead)[0] - operator(*behind)[0]) * r).sum() / 2e-6
        assert abs(slope) > 1e-3, "the direction must see the operator"
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-6)


def test_convolution_by_hand():
    """One output pixel written out, so that forward and pullback cannot agree on a wrong convolution."""
    output, _ = reference.conv2d(X, WEIGHT, BIAS, stride=2, padding=1)
    window = X[1, :, 1:4, 1:4]  # output (1, 1) reads rows and columns 2·1−1 … 2·1+1
    assert output.shape == (2, 4, 3, 3)
    np.testing.assert_allclose(output[1, 2, 1, 1], (window * WEIGHT[2]).sum() + BIAS[2])


def test_dilated_convolution_reads_every_second_pixel():
    output, _ = reference.conv2d(X, WEIGHT, padding=2, dilation=2)
    assert output.shape == (2, 4, 6, 5)
    np.testing.assert_allclose(output[0, 0, 2, 2], (X[0, :, 0:5:2, 0:5:2] * WEIGHT[0]).sum())


def test_resize_keeps_corners_and_is_linear_between():
    output, _ = reference.resize_bilinear(np.arange(4.0).reshape(1, 1, 2, 2), (3, 3))
    np.testing.assert_allclose(output[0, 0], [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]])


def test_cross_entropy_by_hand():
    logits = np.array([[0.0, 3.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)  # two pixels, classes first
    loss, pullback = reference.cross_entropy(logits, np.array([[[1, 255]]]))
    np.testing.assert_allclose(loss, np.log(2))
    np.testing.assert_allclose(pullback(np.ones(()))[0].reshape(2, 2), [[0.5, 0], [-0.5, 0]])


def test_sgd_by_hand():
    one, two = reference.sgd(np.array([1.0]), [np.array([2.0])] * 2, lr=0.1, momentum=0.9, weight_decay=0.5)
    np.testing.assert_allclose(one, 1 - 0.1 * 2.5)
    np.testing.assert_allclose(two, 0.75 - 0.1 * (0.9 * 2.5 + 2 + 0.5 * 0.75))
