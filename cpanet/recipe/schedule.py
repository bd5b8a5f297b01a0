"""Learning rate as a function of the iteration."""

from __future__ import annotations

import math


def learning_rate(
    base: float, iteration: int, total: int, name: str = "poly", power: float = 0.9, warmup: int = 0
) -> float:
    """Rate of ``iteration`` (from 0) of ``total``.

    ``poly``: base·(1 − it/total)^power, the paper's. ``cosine``: base·(1 + cos(π·it/total))/2. The first ``warmup``
    iterations rise linearly to what the schedule gives there.
    """
    progress = min(iteration / max(total, 1), 1.0)
    factor = (1.0 - progress) ** power if name == "poly" else 0.5 * (1.0 + math.cos(math.pi * progress))
    if iteration < warmup:
        factor *= (iteration + 1) / warmup
    return base * factor
