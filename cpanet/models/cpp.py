"""The prototype of a support: CPP, the cross position proxy, or masked average pooling, which stands in for it."""

from __future__ import annotations

import numpy as np

from cpanet.models.layers import BatchNorm, first_maximum, max_pool_2x2
from cpanet.models.parts import Prototype
from cpanet.ops import Conv
from cpanet.runtime import jt

nn = jt.nn


class CrossPositionProxy(Prototype):
    """Non-local block on the masked support feature, then a global maximum (``REF`` in the released code).

    Keys and values are max-pooled 2×2, queries are not. ``norm`` starts at weight 0 and bias 0, so that at first the
    block hands its input through.
    """

    name = "cpp"

    def __init__(self, width: int = 256) -> None:
        inner = width // 2
        self.theta = Conv(width, inner, 1)
        self.phi = Conv(width, inner, 1)
        self.g = Conv(width, inner, 1)
        self.project = Conv(inner, width, 1)
        self.norm = BatchNorm(width)

    def execute(self, feature, mask):
        """feature (B, C, h, w), mask (B, 1, h, w) in [0, 1] → prototype (B, C)."""
        masked = feature * mask
        return first_maximum(self.aggregate(masked).reshape(masked.shape[0], masked.shape[1], -1))

    def aggregate(self, masked):
        """The non-local block alone: (B, C, h, w) → (B, C, h, w)."""
        batch, _, h, w = masked.shape
        queries = self.theta(masked).reshape(batch, -1, h * w).permute(0, 2, 1)  # (B, hw, C/2)
        keys = _pool(self.phi(masked)).reshape(batch, queries.shape[2], -1)  # (B, C/2, n)
        values = _pool(self.g(masked)).reshape(batch, queries.shape[2], -1).permute(0, 2, 1)  # (B, n, C/2)
        attention = nn.softmax(jt.matmul(queries, keys), dim=2)
        gathered = jt.matmul(attention, values).permute(0, 2, 1).reshape(batch, -1, h, w)
        return self.norm(self.project(gathered)) + masked

    def initial(self, name, shape, scheme, rng):
        """The closing BatchNorm starts at 0, so that at first the block hands its input through, as in the released code."""
        del scheme, rng
        return np.zeros(shape) if name.startswith("norm.") else None


class MaskedAverage(Prototype):
    """Masked global average pooling, what stands in for CPP in the ablations."""

    name = "masked_average"

    def execute(self, feature, mask):
        """feature (B, C, h, w), mask (B, 1, h, w) in [0, 1] → (B, C). A mask that vanishes on the grid gives zero."""
        area = mask.sum(dims=[2, 3]).maximum(1e-4)
        return (feature * mask).sum(dims=[2, 3]) / area


def _pool(x):
    return max_pool_2x2(x) if min(x.shape[2:]) >= 2 else x
