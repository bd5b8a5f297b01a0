"""A change to training episodes of one's own: light that falls off across the query, which no support shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cpanet.recipe import EpisodeTransform
from cpanet.section import NonNegative, Probability


class UnevenLight(EpisodeTransform):
    """With ``probability`` a ramp of brightness is added to the query, ±``strength`` standard deviations of ImageNet."""

    probability: Probability = 0.5
    strength: NonNegative = 1.0

    def change(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        pictures: Sequence[np.ndarray],
        pool: Sequence[int],
        rng: np.random.Generator,
    ) -> None:
        """The query is the first of ``images``; padding stays padding."""
        if rng.random() >= self.probability:
            return
        query, inside = images[0], masks[0] != 255
        angle = rng.uniform(0.0, 2.0 * np.pi)
        y, x = np.mgrid[: query.shape[1], : query.shape[2]] / query.shape[1] - 0.5
        ramp = 2.0 * self.strength * (x * np.cos(angle) + y * np.sin(angle))
        query[:, inside] += ramp[inside].astype(np.float32)
