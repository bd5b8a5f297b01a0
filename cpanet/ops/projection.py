"""From many channels to few at every pixel, without copies of the large map (kernels: projection.cc)."""

from __future__ import annotations

from cpanet.ops import kernels
from cpanet.ops.function import Function
from cpanet.runtime import jt

SIZES = ("in0_shape0", "in0_shape1", "in1_shape1", "in0_shape2 * in0_shape3")


def project(x, weight):
    """Σ_c weight[b, k, c] · x[b, c]: x (B, C, H, W), weight (B, K, C) → (B, K, H, W); meant for few outputs K."""
    if not kernels.usable():
        batch, channels, height, width = x.shape
        return jt.matmul(weight, x.reshape(batch, channels, -1)).reshape(batch, -1, height, width)
    return _Project.apply(x, weight, None)


def project_with_maximum(x, weight, scale):
    """:func:`project`, and as one output more the maximum over channels of scale[b, c] · x[b, c]: (B, K + 1, H, W).

    The gradient of the maximum goes to the first channel that attains it.
    """
    if not kernels.usable():
        largest = (x * scale.unsqueeze(2).unsqueeze(3)).max(dim=1, keepdims=True)
        return jt.concat([project(x, weight), largest], dim=1)
    return _Project.apply(x, weight, scale)


def conv3x3_few(x, weight):
    """``conv2d(x, weight, padding=1)`` for few outputs: x (B, C, H, W), weight (O, C, 3, 3) → (B, O, H, W).

    All nine taps are projections of the same pixel, so one pass over x gives them; shifting and adding them is cheap.
    """
    batch, channels, height, width = x.shape
    outputs = weight.shape[0]
    rows = weight.permute(2, 3, 0, 1).reshape(1, 9 * outputs, channels)
    taps = project(x, rows.expand(batch, 9 * outputs, channels)).reshape(batch, 3, 3, outputs, height, width)
    shifted = taps.reindex(
        [batch, outputs, height, width, 3, 3], ["i0", "i4", "i5", "i1", "i2+i4-1", "i3+i5-1"]
    )
    return shifted.sum(dims=[4, 5])


class _Project(Function):
    def execute(self, x, weight, scale):
        batch, _, height, width = x.shape
        maximum = scale is not None
        shapes = [
            [batch, weight.shape[1] + maximum, height, width],
            [batch, height, width] if maximum else None,
        ]
        y, *winner = kernels.call("cpanet_project", [x, weight, scale], shapes, SIZES)
        self.keep(x, weight, scale, *(winner or [None]))
        return y

    def grad(self, dy):
        *operands, winner = self.release()
        shapes = [None if operand is None else operand.shape for operand in operands]
        return tuple(kernels.call("cpanet_project_backward", [*operands, winner, dy], shapes, SIZES))
