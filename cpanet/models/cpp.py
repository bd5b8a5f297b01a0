"""CPP, the cross position proxy: one prototype from all positions of the masked support feature."""

from __future__ import annotations

from cpanet.models.numerics import BatchNorm, first_maximum, max_pool_2x2
from cpanet.ops import Conv
from cpanet.runtime import jt

nn = jt.nn


class CrossPositionProxy(jt.nn.Module):
    """Non-local block on the masked support feature, then a global maximum (``REF`` in the released code).

    Keys and values are max-pooled 2×2, queries are not. ``norm`` starts at weight 0 and bias 0, so that at first the
    block hands its input through.
    """

    def __init__(self, width: int) -> None:
        inner = width // 2
        self.theta = Conv(width, inner, 1)
        self.phi = Conv(width, inner, 1)
        self.g = Conv(width, inner, 1)
        self.project = Conv(inner, width, 1)
        self.norm = BatchNorm(width)

    def execute(self, masked):
        """masked (B, C, h, w) → prototype (B, C)."""
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


def masked_average(feature, mask):
    """Masked global average pooling, what stands in for CPP where it is switched off.

    feature (B, C, h, w), mask (B, 1, h, w) in [0, 1] → (B, C). A mask that vanishes on the small grid gives zero.
    """
    area = mask.sum(dims=[2, 3]).maximum(1e-4)
    return (feature * mask).sum(dims=[2, 3]) / area


def _pool(x):
    return max_pool_2x2(x) if min(x.shape[2:]) >= 2 else x
