"""The training-free baseline, on features made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cpanet.models import VGG16, PrototypeBaseline, ResNet
from cpanet.runtime import jt


@pytest.fixture(scope="module")
def baseline() -> PrototypeBaseline:
    return PrototypeBaseline(VGG16(batch_norm=False), stage="both", seed=0)


def scene(defect: np.ndarray) -> np.ndarray:
    """Features (1, 768, 4, 4): one direction where ``defect`` (4, 4), another elsewhere, at any length."""
    features = np.zeros((1, 768, 4, 4), np.float32)
    features[0, 5], features[0, 9] = 3 * defect, 7 * (1 - defect)
    return features


def mask_of(defect: np.ndarray, size: int) -> np.ndarray:
    return np.kron(defect, np.ones((size // 4, size // 4))).astype(np.uint8)


def test_what_looks_like_the_supports_defect_is_marked(baseline):
    support, query = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    support[:2, :2], query[2:, 1:] = 1, 1
    _, prototypes = baseline.encode_supports(
        jt.array(scene(support)[None]), jt.array(mask_of(support, 16)[None, None])
    )
    logits = baseline.decode(jt.array(scene(query)), prototypes, (16, 16)).numpy()[0]
    assert logits.shape == (2, 16, 16)
    corners = (logits[1] > logits[0])[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_array_equal(corners, query[[0, 0, -1, -1], [0, -1, 0, -1]] == 1)


def test_padding_counts_for_neither_prototype(baseline):
    defect = np.zeros((4, 4), np.float32)
    defect[:2] = 1
    masks = mask_of(defect, 16)[None, None]
    features = scene(defect)
    padded = features.copy()
    padded[0, 100, :, 3] = 50  # something else altogether, below padding
    ignored = masks.copy()
    ignored[..., 10:] = 255
    _, prototypes = baseline.encode_supports(jt.array(padded[None]), jt.array(ignored))
    assert prototypes.numpy()[0, :, 100].max() == 0


def test_shots_are_pooled(baseline):
    defect = np.zeros((4, 4), np.float32)
    defect[1:3, 1:3] = 1
    one, mask = scene(defect), mask_of(defect, 16)
    twice = jt.array(np.stack([one, one], axis=1)), jt.array(np.stack([mask, mask])[None])
    _, single = baseline.encode_supports(jt.array(one[None]), jt.array(mask[None, None]))
    _, double = baseline.encode_supports(*twice)
    np.testing.assert_allclose(single.numpy(), double.numpy(), rtol=1e-5)


def test_a_defect_that_vanishes_on_the_grid_marks_nothing_everywhere(baseline):
    defect = np.zeros((4, 4), np.float32)
    _, prototypes = baseline.encode_supports(
        jt.array(scene(defect)[None]), jt.array(mask_of(defect, 16)[None, None])
    )
    logits = baseline.decode(jt.array(scene(defect)), prototypes, (16, 16)).numpy()
    assert np.isfinite(logits).all()
    assert (logits[:, 1] <= logits[:, 0]).all()


@pytest.mark.parametrize("stage", ["f2", "f3", "both"])
def test_whole_passes_on_images(stage):
    rng = np.random.default_rng(0)
    model = PrototypeBaseline(ResNet(50), stage=stage, seed=0)
    model.eval()
    images = rng.standard_normal((3, 3, 32, 48)).astype(np.float32)
    masks = (rng.random((1, 2, 32, 48)) > 0.5).astype(np.uint8)
    logits = model(jt.array(images[:1]), jt.array(images[None, 1:]), jt.array(masks))
    assert logits.shape == [1, 2, 32, 48]
    assert np.isfinite(logits.numpy()).all()
