"""Bilinear enlargement as matrices, and convolutions of enlarged maps that never build the enlarged map.

Bilinear resizing is linear and separable: ``up(x) = A · x · Bᵀ`` for each channel, with ``A`` (H, h) and ``B`` (W, w) that
depend on the sizes alone. A k×k convolution of ``up(x)`` is then a sum over its taps of ``A_dy · (W_{dy,dx} x) · B_dxᵀ``,
where ``A_dy`` and ``B_dx`` are ``A`` and ``B`` with their rows shifted by the tap's offset, and zero rows where the tap
leaves the map. So all taps become one 1×1 convolution on the small grid followed by two matrix products, exactly.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cpanet.bilinear import interpolation_matrix
from cpanet.ops import conv2d
from cpanet.runtime import jt


@lru_cache(maxsize=128)
def tap_matrix(n_full: int, n_in: int, kernel: int, stride: int, padding: int) -> np.ndarray:
    """Rows of the interpolation matrix that each tap of a convolution reads, taps side by side.

    Returns (kernel · n_in, n_out) float32, the transpose that a product from the right needs, where
    ``n_out = (n_full + 2·padding − kernel) // stride + 1``. Taps that fall outside the map read zero.
    """
    full = interpolation_matrix(n_full, n_in)
    n_out = (n_full + 2 * padding - kernel) // stride + 1
    taps = np.zeros((kernel, n_in, n_out))
    for tap in range(kernel):
        source = np.arange(n_out) * stride - padding + tap
        inside = (source >= 0) & (source < n_full)
        taps[tap][:, inside] = full[source[inside]].T
    result = taps.reshape(kernel * n_in, n_out).astype(np.float32)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=64)
def _constant(n_full: int, n_in: int, kernel: int, stride: int, padding: int, use_cuda: int):
    del use_cuda  # part of the key: a constant made on one device is not handed to the other
    return jt.array(np.array(tap_matrix(n_full, n_in, kernel, stride, padding))).stop_grad()


def _taps(n_full: int, n_in: int, kernel: int, stride: int, padding: int):
    return _constant(n_full, n_in, kernel, stride, padding, int(jt.flags.use_cuda))


def conv_of_upsampled(x, weight, size: tuple[int, int], stride: int = 1, padding: int = 0):
    """``conv2d(upsample(x, size), weight, stride, padding)``, computed on the small grid.

    Shapes: x (B, C, h, w), weight (O, C, k, k), result (B, O, H', W') with H', W' the usual output size for ``size``.
    """
    batch, channels, h, w = x.shape
    out, _, k, _ = weight.shape
    # one row of the 1×1 kernel for each (column tap, output channel, row tap)
    kernel = weight.permute(3, 0, 2, 1).reshape(k * out * k, channels, 1, 1)
    taps = conv2d(x, kernel).reshape(batch, k, out, k, h, w)
    return _separable(taps, size, k, stride, padding)


def upsample(x, size: tuple[int, int]):
    """Bilinear resize of x (B, C, h, w) to (B, C, H, W), ``align_corners=True``."""
    batch, channels, h, w = x.shape
    if (h, w) == tuple(size):
        return x
    return _separable(x.reshape(batch, 1, channels, 1, h, w), size, 1, 1, 0)


def _separable(taps, size: tuple[int, int], k: int, stride: int, padding: int):
    """Contract (B, kx, O, ky, h, w) with the row matrix, then with the column matrix: (B, O, H', W').

    Two products of two-dimensional matrices, which both oneDNN and cuBLAS run at full speed; the rows first, so that the
    large second product already writes the final layout.
    """
    batch, _, out, _, h, w = taps.shape
    rows = _taps(size[0], h, k, stride, padding)
    columns = _taps(size[1], w, k, stride, padding)
    tall = jt.matmul(taps.permute(0, 1, 2, 5, 3, 4).reshape(batch * k * out * w, k * h), rows)
    tall = tall.reshape(batch, k, out, w, -1).permute(0, 2, 4, 1, 3)
    height = tall.shape[2]
    return jt.matmul(tall.reshape(batch * out * height, k * w), columns).reshape(batch, out, height, -1)
