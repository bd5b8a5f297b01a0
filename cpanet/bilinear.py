"""Bilinear interpolation as a matrix: the one that the network enlarges maps with, and the metrics resize by."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=128)
def interpolation_matrix(n_out: int, n_in: int) -> np.ndarray:
    """Bilinear interpolation with ``align_corners=True`` from n_in to n_out samples: float64 (n_out, n_in), rows sum to 1.

    Resizing x (n_in, n_in) is ``A @ x @ A.T``. The result is shared and cannot be written to.
    """
    position = np.arange(n_out) * ((n_in - 1) / (n_out - 1) if n_out > 1 else 0.0)
    low = np.minimum(position.astype(int), n_in - 1)
    high = np.minimum(low + 1, n_in - 1)
    weight = position - low
    matrix = np.zeros((n_out, n_in))
    matrix[np.arange(n_out), low] += 1 - weight
    matrix[np.arange(n_out), high] += weight
    matrix.flags.writeable = False
    return matrix
