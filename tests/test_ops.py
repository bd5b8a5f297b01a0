"""Operators of ``cpanet.ops`` in float32 against Jittor's own way to the same arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.models.dropout import relu_dropout, scale_channels
from cpanet.ops import conv3x3_few, conv3x3_relu, dense, kernels, project_with_maximum
from cpanet.runtime import jt, prepare

prepare("cpu")
RNG = np.random.default_rng(0)


def draw(*shape: int):
    return jt.array(RNG.standard_normal(shape).astype(np.float32))


def dropout_factors(batch: int, channels: int, p: float):
    factors = ((RNG.random((batch, channels)) >= p) / (1 - p)).astype(np.float32)
    factors[:, 0] = 1.0  # a map without any channel is nobody's case
    return jt.array(factors).stop_grad()


def assert_same(ours, theirs, operands, tolerance: float = 1e-5) -> None:
    """Results and all gradients of a weighted sum, to ``tolerance`` of the largest value."""
    weights = draw(*theirs.shape)
    pairs = [(ours, theirs)]
    pairs += zip(jt.grad((ours * weights).sum(), operands), jt.grad((theirs * weights).sum(), operands))
    for one, other in pairs:
        one, other = one.numpy(), other.numpy()
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


# ------------------------------------------------------ convolutions of a library


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation"),
    [
        (9, 1, 1, 0, 1),
        (9, 3, 1, 1, 1),
        (11, 3, 2, 1, 1),
        (11, 3, 1, 2, 2),
        (11, 3, 1, 4, 4),
        (10, 2, 2, 0, 1),
    ],
)
def test_convolutions(size, kernel, stride, padding, dilation):
    x, weight, bias = draw(2, 5, size, size + 2), draw(4, 5, kernel, kernel), draw(4)
    ours = dense.conv2d(x, weight, bias, stride, padding, dilation)
    theirs = jt.nn.conv2d(x, weight, bias, stride, padding, dilation)
    assert_same(ours, theirs, [x, weight, bias])


def test_a_layer_without_bias():
    layer = dense.Conv(3, 4, 3, stride=2, padding=1, bias=False)
    x = draw(1, 3, 8, 8)
    assert_same(layer(x), jt.nn.conv2d(x, layer.weight, None, 2, 1), [x, layer.weight])


def test_other_numbers_than_float32_go_jittors_way():
    x, weight = draw(1, 2, 4, 4), draw(3, 2, 1, 1)
    y = dense.conv2d(x.float64(), weight.float64())
    assert str(y.dtype) == "float64"
    expected = np.einsum("oc,nchw->nohw", weight.numpy()[:, :, 0, 0], x.numpy())
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)


@pytest.mark.slow
def test_no_convolution_is_left_to_be_found_while_compiling():
    """In a training step nothing is left but matrix products and their gradients."""
    from cpanet.models import published_network

    model = published_network("vgg16", width=16)
    model.train()
    images, mask = draw(1, 3, 32, 32), jt.array((RNG.random((1, 32, 32)) < 0.3).astype(np.uint8))
    main, aux = model.losses(images, mask, images.unsqueeze(1), mask.unsqueeze(1), 0.4)
    loss = main + 0.4 * aux
    with jt.profile_scope() as report:
        jt.sync([loss, *jt.grad(loss, [p for p in model.parameters() if not p.is_stop_grad()])])
    assert any("mkl_conv_backward_w" in str(row[0]) for row in report)
    # kernels in which a library's operator may take the place of loops
    left = {str(row[0]) for row in report if "relay" in " ".join(map(str, row))}
    assert len(left) < 10
    assert not any("reindex" in key for key in left)  # as convolutions have


def test_a_second_gradient_says_what_to_do():
    x, weight = draw(1, 2, 4, 4), draw(3, 2, 1, 1)
    y = dense.conv2d(x, weight).sum()
    jt.grad(y, x)
    with pytest.raises(RuntimeError, match="compute the result again"):
        jt.grad(y, weight)


# ------------------------------------------------------ the 3×3 convolution that skips dropped channels


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
    before, after = dropout_factors(batch, channels, p), dropout_factors(batch, outputs, p)
    kept = (before > 0).float32().unsqueeze(2).unsqueeze(3)
    x = (draw(batch, channels, *size) * kept).detach()
    weight = draw(outputs, channels, 3, 3) / np.sqrt(9 * channels)
    plain = jt.nn.relu(jt.nn.conv2d(x * kept, weight, padding=1)) * after.unsqueeze(2).unsqueeze(3)
    assert_same(conv3x3_relu(x, weight, before, after), plain, [x, weight], tolerance=1e-4)


def test_nothing_dropped_is_the_same_as_no_factors():
    x, weight, ones = draw(2, 8, 9, 9), draw(8, 8, 3, 3), jt.ones((2, 8)).stop_grad()
    assert (conv3x3_relu(x, weight).numpy() == conv3x3_relu(x, weight, ones, ones).numpy()).all()


def test_dropped_input_channels_are_not_read():
    """The kernel promises to skip them: rubbish in a dropped channel changes nothing."""
    if not kernels.usable():
        pytest.skip("the kernels are for the CPU")
    x, weight = draw(1, 6, 9, 9).numpy(), draw(8, 6, 3, 3)
    factors = jt.array(np.array([[1, 0, 2, 2, 0, 1]], np.float32)).stop_grad()
    before = conv3x3_relu(jt.array(x), weight, factors).numpy()
    x[:, [1, 4]] = np.nan
    assert (conv3x3_relu(jt.array(x), weight, factors).numpy() == before).all()


@pytest.mark.parametrize("dropped", [False, True])
def test_relu_with_dropout_has_the_gradient_of_its_two_parts(dropped):
    x = draw(2, 6, 5, 5)
    factors = dropout_factors(2, 6, 0.4) if dropped else None
    found, expected = relu_dropout(x, factors), scale_channels(jt.nn.relu(x), factors)
    assert (found.numpy() == expected.numpy()).all()
    assert_same(found, expected, [x], tolerance=1e-6)


def test_the_gradient_of_the_weights_is_the_same_to_the_last_bit_every_time():
    """However the threads share the work: a run's digits must not depend on which of them was quicker."""
    x, w = draw(2, 32, 96, 96), draw(32, 32, 3, 3) * 0.1
    found = [jt.grad(conv3x3_relu(x, w).sum(), w).numpy() for _ in range(12)]
    assert all(np.array_equal(found[0], other) for other in found[1:])


# ------------------------------------------------------ projections to few channels


@pytest.mark.parametrize(
    ("batch", "channels", "outputs", "size"), [(1, 3, 2, (1, 1)), (2, 19, 2, (9, 33)), (3, 16, 7, (40, 40))]
)
def test_few_outputs_of_a_3x3_convolution(batch, channels, outputs, size):
    x, weight = draw(batch, channels, *size), draw(outputs, channels, 3, 3)
    assert_same(conv3x3_few(x, weight), jt.nn.conv2d(x, weight, padding=1), [x, weight])


@pytest.mark.parametrize(("batch", "channels", "size"), [(1, 2, (1, 3)), (2, 20, (33, 40))])
def test_projection_and_maximum_over_channels(batch, channels, size):
    x, weight, scale = draw(batch, channels, *size), draw(batch, 3, channels), draw(batch, channels)
    projected = (x.unsqueeze(1) * weight.unsqueeze(3).unsqueeze(4)).sum(dim=2)
    largest = (x * scale.unsqueeze(2).unsqueeze(3)).max(dim=1, keepdims=True)
    expected = jt.concat([projected, largest], dim=1)
    assert_same(project_with_maximum(x, weight, scale), expected, [x, weight, scale])
