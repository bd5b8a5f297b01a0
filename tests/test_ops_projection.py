"""Projections to few channels, against the convolution or product that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.ops import conv3x3_few, project_with_maximum
from cpanet.runtime import jt


def draw(rng, *shape):
    return jt.array(rng.standard_normal(shape).astype(np.float32))


def same(found, expected, inputs, cotangent):
    """Result and every gradient, to 1e-5 of the largest."""
    pairs = zip(
        [found, *jt.grad((found * cotangent).sum(), inputs)],
        [expected, *jt.grad((expected * cotangent).sum(), inputs)],
    )
    for one, other in pairs:
        one, other = one.numpy(), other.numpy()
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


@pytest.mark.parametrize(
    ("batch", "channels", "outputs", "size"), [(1, 3, 2, (1, 1)), (2, 19, 2, (9, 33)), (3, 16, 7, (40, 40))]
)
def test_few_outputs_of_a_3x3_convolution(batch, channels, outputs, size):
    rng = np.random.default_rng(0)
    x, weight = draw(rng, batch, channels, *size), draw(rng, outputs, channels, 3, 3)
    expected = jt.nn.conv2d(x, weight, padding=1)
    same(conv3x3_few(x, weight), expected, [x, weight], draw(rng, *expected.shape))


@pytest.mark.parametrize(("batch", "channels", "size"), [(1, 2, (1, 3)), (2, 20, (33, 40))])
def test_projection_and_maximum_over_channels(batch, channels, size):
    rng = np.random.default_rng(0)
    x, weight, scale = (
        draw(rng, batch, channels, *size),
        draw(rng, batch, 3, channels),
        draw(rng, batch, channels),
    )
    projected = (x.unsqueeze(1) * weight.unsqueeze(3).unsqueeze(4)).sum(dim=2)
    largest = (x * scale.unsqueeze(2).unsqueeze(3)).max(dim=1, keepdims=True)
    expected = jt.concat([projected, largest], dim=1)
    same(project_with_maximum(x, weight, scale), expected, [x, weight, scale], draw(rng, *expected.shape))
