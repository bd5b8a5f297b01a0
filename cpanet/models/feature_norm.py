"""Normalisation of the backbone's features before the head: none, or one without any parameter.

Backbones differ in the scale of what they hand over, and a learning rate that suits one diverges or stands still with
another.
``plain`` is the paper's network and keeps released checkpoints exact.
"""

from __future__ import annotations

from typing import Any

EPSILON = 1e-6


def normalise_features(features: Any, feature_norm: str) -> Any:
    """Features (N, C, h, w) → the same shape; every image by itself, so that a batch has no influence.

    ``plain``: as they are. ``rms``: divided by the image's root mean square. ``position``: every position divided by its
    own root mean square, after which a difference of features is a difference of directions. ``standard``: each channel
    minus its mean over the image, then divided by the image's root mean square: most of an image is sound surface, so what
    is left is how a position departs from it.
    """
    if feature_norm == "plain":
        return features
    if feature_norm == "position":
        return _over_rms(features, [1])
    if feature_norm == "standard":
        features = features - features.mean(dims=[2, 3], keepdims=True)
    return _over_rms(features, [1, 2, 3])


def _over_rms(x: Any, dims: list[int]) -> Any:
    return x / ((x * x).mean(dims=dims, keepdims=True) + EPSILON).sqrt()
