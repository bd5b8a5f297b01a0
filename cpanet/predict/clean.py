"""Whether a picture shows a defect at all: a score a picture, and a limit from pictures that are known to be clean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HIGHEST = 0.005  # part of a picture's pixels that its score is the mean of
CERTAIN = 0.95


def image_score(probability: np.ndarray) -> float:
    """How likely a picture shows a defect, 0–1: the mean of the highest HIGHEST of its probabilities (H, W).

    Four decimals, which do not depend on the pictures that went through the network beside it.
    """
    count = max(1, round(HIGHEST * probability.size))
    highest = np.partition(probability, probability.size - count, axis=None)[-count:]
    return round(float(highest.mean(dtype=np.float64)), 4)


class Limit(NamedTuple):
    """A score above which a picture has a defect, from ``pictures`` clean ones.

    ``expected``: the rate of false alarms among further clean pictures of the same kind; ``at_most``: what it stays below
    with a probability of CERTAIN.
    """

    score: float
    pictures: int
    expected: float
    at_most: float

    def sentence(self) -> str:
        """The chosen limit and the rate to expect, as a sentence."""
        return (
            f"a picture has a defect where its score exceeds {self.score:.4f}, chosen on {self.pictures} clean pictures: "
            f"expect false alarms on {self.expected:.1%} of clean pictures like these, "
            f"with {CERTAIN:.0%} confidence on less than {self.at_most:.1%}"
        )


def limit_of(scores: Sequence[float], rate: float) -> Limit:
    """The lowest limit for which at most ``rate`` (0–1) of further clean pictures are expected above it.

    Of n scores the k-th smallest is exceeded by a further one, of a picture drawn like them, with a probability of
    (n + 1 − k) / (n + 1), whatever their distribution (Vovk et al., Algorithmic Learning in a Random World, 2005); the rate
    itself is distributed as Beta(n + 1 − k, k). Where n is too small for ``rate``, the limit is the highest score.
    """
    n = len(scores)
    k = min(n, max(1, math.ceil((1 - rate) * (n + 1) - 1e-9)))
    return Limit(float(np.sort(scores)[k - 1]), n, (n + 1 - k) / (n + 1), _rate_below(n, k))


def _rate_below(n: int, k: int) -> float:
    """The quantile that Beta(n + 1 − k, k) stays below with a probability of CERTAIN."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        left = sum(_binomial(n, j, rate) for j in range(n - k + 1))  # of n pictures, n − k at most are above
        low, high = (rate, high) if left > 1 - CERTAIN else (low, rate)
    return high


def _binomial(n: int, j: int, rate: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1)
    return math.exp(ways + j * math.log(rate) + (n - j) * math.log1p(-rate))
