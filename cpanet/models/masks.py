"""The support's mask on the feature grid: sampled at points as released, or pooled by area so that no defect vanishes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from cpanet.models.upsample import upsample
from cpanet.runtime import jt


@lru_cache(maxsize=128)
def area_matrix(n_out: int, n_in: int) -> np.ndarray:
    """Matrix (n_out, n_in): which part of each cell of the small grid every pixel covers; rows sum to 1.

    The cells' centres are the points that bilinear resizing with ``align_corners=True`` samples, so that features, which
    are resized so, and mask speak of the same places; a cell reaches half-way to its neighbours, at the border to the edge.
    """
    step = (n_in - 1) / max(n_out - 1, 1)
    edges = np.clip((np.arange(n_out + 1) - 0.5) * step + 0.5, 0.0, n_in)
    edges[0], edges[-1] = 0.0, n_in
    pixels = np.arange(n_in)
    covered = np.minimum(edges[1:, None], pixels + 1.0) - np.maximum(edges[:-1, None], pixels)
    covered = np.maximum(covered, 0.0)
    matrix = (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=64)
def _constant(n_out: int, n_in: int, transposed: bool, use_cuda: int) -> Any:
    del use_cuda  # part of the key: a constant made on one device is not handed to the other
    matrix = area_matrix(n_out, n_in)
    return jt.array(np.ascontiguousarray(matrix.T if transposed else matrix)).stop_grad()


def pool_by_area(mask: Any, grid: tuple[int, int]) -> Any:
    """Mask (N, 1, H, W) → the part of each cell that it covers, (N, 1, h, w)."""
    count, _, height, width = mask.shape
    h, w = grid
    if (h, w) == (height, width):
        return mask
    cuda = int(jt.flags.use_cuda)
    columns = jt.matmul(mask.reshape(count * height, width), _constant(w, width, True, cuda))
    columns = columns.reshape(count, height, w).permute(0, 2, 1).reshape(count * w, height)
    rows = jt.matmul(columns, _constant(h, height, True, cuda))
    return rows.reshape(count, 1, w, h).permute(0, 1, 3, 2)


def shrink_mask(mask: Any, grid: tuple[int, int], how: str) -> Any:
    """Mask (N, 1, H, W) float32 of 0 and 1 → (N, 1, h, w) in [0, 1] on the feature grid.

    ``point``: bilinear with ``align_corners=True``, as released: what lies between the sampled points is lost. ``area``:
    by area, in units of the image's fullest cell, so that a small defect weighs in its own cell as much as a large one.
    A mask without a single pixel is zero in both.
    """
    if how == "point":
        return upsample(mask, grid)
    small = pool_by_area(mask, grid)
    return small / small.max(dims=[1, 2, 3], keepdims=True).maximum(1e-6)
