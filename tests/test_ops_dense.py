"""oneDNN named directly against Jittor's own way to the same arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.ops import dense
from cpanet.runtime import jt, prepare

prepare("cpu")
RNG = np.random.default_rng(0)


def draw(*shape: int):
    return jt.array(RNG.standard_normal(shape).astype(np.float32))


def same(ours, theirs, operands) -> None:
    """Results and all gradients of a weighted sum, to 1e-5 of the largest value."""
    weights = draw(*theirs.shape)
    pairs = [(ours, theirs)]
    pairs += zip(jt.grad((ours * weights).sum(), operands), jt.grad((theirs * weights).sum(), operands))
    for one, other in pairs:
        one, other = one.numpy(), other.numpy()
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


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
    same(ours, theirs, [x, weight, bias])


def test_a_layer_without_bias():
    layer = dense.Conv(3, 4, 3, stride=2, padding=1, bias=False)
    x = draw(1, 3, 8, 8)
    same(layer(x), jt.nn.conv2d(x, layer.weight, None, 2, 1), [x, layer.weight])


def test_other_numbers_than_float32_go_jittors_way():
    x, weight = draw(1, 2, 4, 4), draw(3, 2, 1, 1)
    y = dense.conv2d(x.float64(), weight.float64())
    assert str(y.dtype) == "float64"
    np.testing.assert_allclose(
        y.numpy(), np.einsum("oc,nchw->nohw", weight.numpy()[:, :, 0, 0], x.numpy()), rtol=1e-5
    )


def relayed(report: list) -> set[str]:
    """Keys of the kernels in which a library's operator may take the place of loops."""
    return {str(row[0]) for row in report if "relay" in " ".join(map(str, row))}


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
    left = relayed(report)
    assert len(left) < 10
    assert not any("reindex" in key for key in left)  # as convolutions have


def test_a_second_gradient_says_what_to_do():
    x, weight = draw(1, 2, 4, 4), draw(3, 2, 1, 1)
    y = dense.conv2d(x, weight).sum()
    jt.grad(y, x)
    with pytest.raises(RuntimeError, match="compute the result again"):
        jt.grad(y, weight)
