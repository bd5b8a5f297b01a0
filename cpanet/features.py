"""Backbone features of test images: the backbone is frozen, so each image goes through it once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cpanet.data import DefectDataset, Episode, transforms
from cpanet.runtime import jt


class ImageFeatures:
    """Features and masks of ``indices`` in the test transform at ``size``, kept in host memory.

    One image of 200×200 takes 0.5 MB with VGG-16 and 3.8 MB with a ResNet.
    """

    def __init__(
        self, model: Any, dataset: DefectDataset, indices: Iterable[int], size: int, chunk: int = 8
    ) -> None:
        self.size = size
        self._row = {int(index): row for row, index in enumerate(indices)}
        model.eval()
        prepared = [transforms.test(dataset.images[i], dataset.masks[i], size) for i in self._row]
        self._masks = np.stack([mask for _, mask in prepared])
        parts = []
        for start in range(0, len(prepared), chunk):
            images = np.stack([image for image, _ in prepared[start : start + chunk]])
            filled = np.concatenate([images, np.repeat(images[-1:], chunk - len(images), axis=0)])
            parts.append(model.features(jt.array(filled)).numpy()[: len(images)])
        self._features = np.concatenate(parts)

    def episodes(self, episodes: Sequence[Episode]) -> tuple[Any, Any, Any]:
        """Query features (B, C, h, w), support features (B, K, C, h, w), support masks (B, K, S, S) on the device."""
        query = [self._row[e.query] for e in episodes]
        supports = np.array([[self._row[s] for s in e.supports] for e in episodes])
        return (
            jt.array(self._features[query]),
            jt.array(self._features[supports]),
            jt.array(self._masks[supports]),
        )


class FeatureCache:
    """The features last computed, for the runs of one process that share backbone, data and size."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._features: ImageFeatures | None = None

    def get(
        self, key: tuple, model: Any, dataset: DefectDataset, indices: Iterable[int], size: int
    ) -> ImageFeatures:
        """Features for ``key`` (whatever identifies backbone weights, data, indices and size), computed if need be."""
        if self._features is None or self._key != key:
            self._features = None  # let go of the old ones before the new ones are made
            self._features = ImageFeatures(model, dataset, indices, size)
            self._key = key
        return self._features
