"""The 3×3 convolution that skips dropped channels, against Jittor's plain one."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.models.dropout import relu_dropout, scale_channels
from cpanet.ops import conv3x3_relu, kernels
from cpanet.runtime import jt


def dropout_factors(rng, batch, channels, p):
    factors = ((rng.random((batch, channels)) >= p) / (1 - p)).astype(np.float32)
    factors[:, 0] = 1.0  # a map without any channel is nobody's case
    return factors


def plain(x, weight, in_factors, out_factors):
    y = jt.nn.relu(jt.nn.conv2d(x * (in_factors > 0).float32().unsqueeze(2).unsqueeze(3), weight, padding=1))
    return y * out_factors.unsqueeze(2).unsqueeze(3)


def close(found, expected, tolerance=1e-4):
    return np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(
    ("batch", "channels", "outputs", "size"),
    [
        (1, 1, 1, (1, 1)),
        (2, 3, 5, (4, 4)),
        (3, 16, 33, (7, 13)),
        (1, 40, 17, (70, 19)),
        (2, 24, 20, (25, 66)),
    ],
)
def test_result_and_gradients_of_the_plain_convolution(batch, channels, outputs, size, p):
    rng = np.random.default_rng(outputs)
    factors = dropout_factors(rng, batch, channels, p), dropout_factors(rng, batch, outputs, p)
    x = rng.standard_normal((batch, channels, *size)) * (factors[0] > 0)[:, :, None, None]
    weight = rng.standard_normal((outputs, channels, 3, 3)) / np.sqrt(9 * channels)
    cotangent = jt.array(rng.standard_normal((batch, outputs, *size)).astype(np.float32))
    x, weight = jt.array(x.astype(np.float32)), jt.array(weight.astype(np.float32))
    masks = [jt.array(f).stop_grad() for f in factors]

    found = conv3x3_relu(x, weight, *masks)
    expected = plain(x, weight, *masks)
    assert close(found.numpy(), expected.numpy())
    gradients = jt.grad((found * cotangent).sum(), [x, weight])
    for gradient, wanted in zip(gradients, jt.grad((expected * cotangent).sum(), [x, weight])):
        assert close(gradient.numpy(), wanted.numpy())


def test_nothing_dropped_is_the_same_as_no_factors():
    rng = np.random.default_rng(0)
    x = jt.array(rng.standard_normal((2, 8, 9, 9)).astype(np.float32))
    weight = jt.array(rng.standard_normal((8, 8, 3, 3)).astype(np.float32))
    ones = jt.ones((2, 8)).stop_grad()
    assert (conv3x3_relu(x, weight).numpy() == conv3x3_relu(x, weight, ones, ones).numpy()).all()


def test_dropped_input_channels_are_not_read():
    """The kernel promises to skip them: rubbish in a dropped channel changes nothing."""
    if not kernels.usable():
        pytest.skip("the kernels are for the CPU")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 6, 9, 9)).astype(np.float32)
    weight = jt.array(rng.standard_normal((8, 6, 3, 3)).astype(np.float32))
    factors = jt.array(np.array([[1, 0, 2, 2, 0, 1]], np.float32)).stop_grad()
    before = conv3x3_relu(jt.array(x), weight, factors).numpy()
    x[:, [1, 4]] = np.nan
    assert (conv3x3_relu(jt.array(x), weight, factors).numpy() == before).all()


@pytest.mark.parametrize("dropped", [False, True])
def test_relu_with_dropout_has_the_gradient_of_its_two_parts(dropped):
    rng = np.random.default_rng(0)
    x = jt.array(rng.standard_normal((2, 6, 5, 5)).astype(np.float32))
    cotangent = jt.array(rng.standard_normal((2, 6, 5, 5)).astype(np.float32))
    factors = jt.array(dropout_factors(rng, 2, 6, 0.4)).stop_grad() if dropped else None
    expected = scale_channels(jt.nn.relu(x), factors)
    found = relu_dropout(x, factors)
    assert (found.numpy() == expected.numpy()).all()
    assert close(
        jt.grad((found * cotangent).sum(), x).numpy(), jt.grad((expected * cotangent).sum(), x).numpy(), 1e-6
    )


def test_the_gradient_of_the_weights_is_the_same_to_the_last_bit_every_time():
    """However the threads share the work: a run's digits must not depend on which of them was quicker."""
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 32, 96, 96)), 0.1 * rng.standard_normal((32, 32, 3, 3))
    x, w = jt.array(x.astype(np.float32)), jt.array(w.astype(np.float32))
    found = [jt.grad(conv3x3_relu(x, w).sum(), w).numpy() for _ in range(12)]
    assert all(np.array_equal(found[0], other) for other in found[1:])
