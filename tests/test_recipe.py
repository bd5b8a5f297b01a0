"""Choices of a recipe beside the optimiser: feature normalisation, the head's start, the loss, the scored weights."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from cpanet.config.schema import FeatureNorm
from cpanet.losses import CROSS_ENTROPY, SegmentationLoss
from cpanet.models import published_network
from cpanet.models.feature_norm import normalise_features
from cpanet.models.init import principal_projection, start_from
from cpanet.recipe import WeightAverage
from cpanet.runtime import jt

SIZE = 32


def through(features: np.ndarray, feature_norm: str) -> np.ndarray:
    return normalise_features(jt.array(features), feature_norm).numpy()


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).random((2, 6, 4, 3)).astype(np.float32)


def test_the_papers_feature_norm_hands_features_through_exactly(features):
    np.testing.assert_array_equal(through(features, "plain"), features)


@pytest.mark.parametrize("feature_norm", get_args(FeatureNorm)[1:])
def test_a_feature_norm_makes_the_head_indifferent_to_the_scale_of_features(features, feature_norm):
    np.testing.assert_allclose(
        through(features * 50, feature_norm), through(features, feature_norm), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("feature_norm", get_args(FeatureNorm))
def test_a_feature_norm_looks_at_each_image_alone(features, feature_norm):
    np.testing.assert_allclose(
        through(features, feature_norm)[1:], through(features[1:], feature_norm), rtol=1e-5
    )


def test_what_each_feature_norm_makes_equal(features):
    position = through(features, "position")
    np.testing.assert_allclose((position**2).mean(1), 1, rtol=1e-4)
    standard = through(features, "standard")
    np.testing.assert_allclose(standard.mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose((standard**2).mean((1, 2, 3)), 1, rtol=1e-4)


def scene(defect: np.ndarray) -> np.ndarray:
    """Features (1, 768, 4, 4): one direction where ``defect`` (4, 4), another elsewhere."""
    directions = np.random.default_rng(5).standard_normal((2, 768)).astype(np.float32)
    chosen = np.where(defect[None] == 1, directions[0][:, None, None], directions[1][:, None, None])
    return np.maximum(chosen, 0)[None].astype(np.float32)


@pytest.mark.parametrize(
    ("cpp", "ssa", "width"), [(True, True, 64), (False, True, 64), (True, False, 128), (False, False, 64)]
)
def test_untrained_it_marks_what_looks_like_the_support(cpp, ssa, width):
    model = published_network(
        "vgg16",
        cpp=cpp,
        sa=False,
        ssa=ssa,
        width=width,
        dropout=False,
        head_init="prototype",
        feature_norm="position",
    )
    model.eval()
    support, query = np.zeros((4, 4)), np.zeros((4, 4))
    support[:2, :2], query[2:, 1:] = 1, 1
    mask = np.kron(support, np.ones((8, 8))).astype(np.uint8)
    _, prototype = model.encode_supports(jt.array(scene(support)[None]), jt.array(mask[None, None]))
    logits = model.decode(jt.array(scene(query)), prototype, (SIZE, SIZE)).numpy()[0]
    difference = logits[1] - logits[0]
    at_grid = difference[np.ix_([0, 10, 21, 31], [0, 10, 21, 31])]
    assert at_grid[query == 1].min() > at_grid[query == 0].max()


def test_the_principal_projection_keeps_where_features_differ():
    rng = np.random.default_rng(2)
    directions, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    spread = np.array([4.0, 4.0, 1.0] + [1e-3] * 9)
    features = np.einsum("cd,ndhw->nchw", directions * spread, rng.standard_normal((20, 12, 5, 5)))
    projection = principal_projection(features, 3)
    projected = np.einsum("rc,nchw->nrhw", projection, features)
    np.testing.assert_allclose((projected**2).mean(), 1, rtol=1e-6)
    lost = projection @ directions[:, 3:]  # its part in the directions in which nothing happens
    assert np.abs(lost).max() < 1e-2 * np.abs(projection @ directions[:, :3]).max()
    seen = np.linalg.svd(projection @ directions[:, :3], compute_uv=False)
    np.testing.assert_allclose(seen[0] / seen[2], 2, rtol=0.1)  # 4 to 1, each over the root of its spread
    np.testing.assert_array_equal(projection, principal_projection(features, 3))


def test_fewer_features_than_directions_are_no_failure():
    projection = principal_projection(np.ones((1, 4, 1, 1)), 3)
    assert projection.shape == (3, 4)
    assert np.isfinite(projection).all()


def test_a_start_from_a_projection_compares_in_it():
    model = published_network("vgg16", width=16, head_init="prototype", feature_norm="standard")
    before = model.down_query.weight.numpy()
    projection = np.random.default_rng(3).standard_normal((4, 768))
    start_from(model, projection)
    kernel = model.down_query.weight.numpy()[:, :, 0, 0]
    np.testing.assert_allclose(kernel[:4], projection, rtol=1e-6)
    np.testing.assert_array_equal(kernel[4:8], -kernel[:4])
    np.testing.assert_array_equal(kernel[8:], before[8:, :, 0, 0])
    np.testing.assert_array_equal(model.down_supp.weight.numpy()[:, :, 0, 0], kernel)
    assert not model.down_query.weight.is_stop_grad()


def test_a_defect_pixel_can_weigh_as_much_as_several_sound_ones():
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((1, 2, 4, 4)).astype(np.float32)
    target = (rng.random((1, 4, 4)) > 0.7).astype(np.uint8)
    target[:, 0] = 255
    found = SegmentationLoss(foreground=3.0)(jt.array(logits), jt.array(target)).item()
    d, t = (logits[:, 1] - logits[:, 0])[target != 255], target[target != 255]
    pixel = np.log1p(np.exp(d)) - t * d
    weight = np.where(t == 1, 3.0, 1.0)
    np.testing.assert_allclose(found, (pixel * weight).sum() / weight.sum(), rtol=1e-5)
    plain = CROSS_ENTROPY(jt.array(logits), jt.array(target)).item()
    np.testing.assert_allclose(plain, pixel.mean(), rtol=1e-5)


@pytest.mark.parametrize(("decay", "untrained"), [(0.9, 0.0), (0.9, 0.5), (None, 0.25)])
def test_scored_weights_are_an_average_mixed_with_the_untrained_ones(decay, untrained):
    linear = jt.nn.Linear(3, 2)
    start = linear.weight.numpy()
    average, expected = WeightAverage(linear, decay, untrained), start.astype(np.float64)
    for step in range(1, 4):
        linear.weight.assign(jt.array(start + step))
        average.update()
        d = min(decay or 0.0, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * ((1 - untrained) * (start + step) + untrained * start)
    with average.swapped_in():
        np.testing.assert_allclose(linear.weight.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(linear.weight.numpy(), start + 3)
    assert bool(average.start_tensors()) == bool(untrained)
