"""The part of prediction that computes: arrays in, arrays out, Jittor in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Callable

import numpy as np

from cpanet.runtime import jt


class Network:
    """A restored model at one size S of its square canvas.

    ``batch_size`` canvases go through it at a time; a last batch is filled up, so that all have one shape.
    ``summed_shots``: see :class:`cpanet.checkpoint.description.Description`.
    """

    def __init__(self, model: Any, size: int, batch_size: int, summed_shots: int | None = None) -> None:
        self.model, self.size, self.batch_size = model, size, batch_size
        self._summed_shots = summed_shots

    def features(self, canvases: Iterable[np.ndarray]) -> np.ndarray:
        """Of canvases float32 (3, S, S), normalised: float32 (N, C, h, w)."""
        batches = self._batches(canvases)
        with jt.no_grad():
            return np.concatenate([self.model.features(jt.array(b)).numpy()[:n] for b, n in batches])

    def encode(self, features: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
        """K supports' features (K, C, h, w) and masks uint8 (S, S) {0, 1, 255} → their prototype, (1, C) or (1, 2, C).

        Prototypes of all shots are averaged. A network that was trained with the released code's sum of K prototypes
        gets their mean times the K it was trained with.
        """
        with jt.no_grad():
            _, prototype = self.model.encode_supports(
                jt.array(features[None]), jt.array(np.stack(masks)[None])
            )
            if self._summed_shots is not None:
                prototype = prototype * (self._summed_shots / len(features))
            return prototype.numpy()

    def differences(self, canvases: Iterable[np.ndarray], prototype: np.ndarray) -> Iterator[np.ndarray]:
        """Foreground minus background logit (S, S) float32 of every canvas."""
        return self._decoded(canvases, prototype, self.model.features)

    def compare(self, features: Iterable[np.ndarray], prototype: np.ndarray) -> Iterator[np.ndarray]:
        """The same of pictures by their features (C, h, w), which :meth:`features` gave."""
        return self._decoded(features, prototype, lambda given: given)

    def similarities(self, canvases: Iterable[np.ndarray], prototype: np.ndarray) -> Iterator[np.ndarray]:
        """Cosine of the prototype and the query's feature at every position of the feature grid, float32 (h, w)."""
        for batch, count in self._batches(canvases):
            features = self._compared_features(batch)
            vector = prototype[:, 0] if prototype.ndim == 3 else prototype[:, : features.shape[1]]
            lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(vector)
            products = np.einsum("nchw,c->nhw", features, vector[0])
            yield from (products / np.maximum(lengths, 1e-12))[:count]

    def _decoded(
        self, arrays: Iterable[np.ndarray], prototype: np.ndarray, features_of: Callable[[Any], Any]
    ) -> Iterator[np.ndarray]:
        for batch, count in self._batches(arrays):
            with jt.no_grad():
                features = features_of(jt.array(batch))
                repeated = jt.array(np.repeat(prototype, features.shape[0], axis=0))
                logits = self.model.decode(features, repeated, (self.size, self.size))
                differences = (logits[:, 1] - logits[:, 0]).numpy()
            yield from differences[:count]

    def _compared_features(self, batch: np.ndarray) -> np.ndarray:
        """Features that the prototype meets: the training-free baseline's stage, CPANet's reduced query feature."""
        features = self.model.features(jt.array(batch))
        if hasattr(self.model, "stage"):
            return self.model.chosen(features).numpy()
        with jt.no_grad():
            return jt.nn.relu(self.model.down_query(self.model.head_features(features))).numpy()

    def _batches(self, arrays: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
        """Batches of at most batch_size arrays of one shape, and how many of each are meant."""
        remaining, most = iter(arrays), 0
        while chunk := list(islice(remaining, self.batch_size)):
            most = most or len(chunk)  # a first batch stands for itself: one picture costs no more than one
            padded = chunk + [chunk[-1]] * (most - len(chunk))
            yield np.stack(padded), len(chunk)
