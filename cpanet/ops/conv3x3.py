"""3×3 convolution with ReLU and channel dropout in one operator, which skips dropped channels (kernels: winograd.cc)."""

from __future__ import annotations

from cpanet.ops import bfloat16, kernels
from cpanet.ops.dense import conv2d
from cpanet.ops.function import Function
from cpanet.runtime import jt


def conv3x3_relu(x, weight, in_factors=None, out_factors=None, narrow: bool = True):
    """``relu(conv2d(x, weight, padding=1)) * out_factors``, stride 1, without bias.

    Shapes: x (B, C, H, W), weight (O, C, 3, 3), result (B, O, H, W). The factors are those of channel dropout:
    ``out_factors`` (B, O) scales the result's channels, those with factor 0 are not computed; ``in_factors`` (B, C) are
    those x has been multiplied by before: channels with factor 0 are known to hold zeros, are not read, and get a zero
    gradient, which the dropout before would make of any. None: nothing is dropped. ``narrow``: in bfloat16 where that is the
    precision of this process.
    """
    if narrow and (kind := bfloat16.kind_for(x, weight)):
        ones = jt.ones((x.shape[0], weight.shape[0])).stop_grad() if out_factors is None else out_factors
        return bfloat16.conv3x3_relu(x, weight, ones, kind)
    if kernels.usable():
        return _Conv3x3Relu.apply(x, weight, in_factors, out_factors)
    y = jt.nn.relu(conv2d(x, weight, padding=1))
    return y if out_factors is None else y * out_factors.reshape(*out_factors.shape, 1, 1)


def conv3x3_bias_relu(x, weight, bias):
    """``relu(conv2d(x, weight, bias, padding=1))``, stride 1, for a network that is not trained: there is no gradient.

    Shapes: x (B, C, H, W), weight (O, C, 3, 3), bias (O,), result (B, O, H, W).
    """
    if not kernels.usable() or any(str(v.dtype) != "float32" for v in (x, weight, bias)):
        return jt.nn.relu(conv2d(x, weight, bias, padding=1))
    return _forward(x, weight, bias, None, None).stop_grad()


def _forward(*inputs):
    x, weight = inputs[:2]
    shape = [x.shape[0], weight.shape[0], *x.shape[2:]]
    (y,) = kernels.call("cpanet_conv3x3", inputs, [shape], kernels.SIZES_3X3)
    return y


class _Conv3x3Relu(Function):
    def execute(self, x, weight, in_factors, out_factors):
        y = _forward(x, weight, None, in_factors, out_factors)
        self.keep(x, weight, in_factors, out_factors, y)
        return y

    def grad(self, dy):
        x, weight, in_factors, out_factors, y = self.release()
        inputs = [x, weight, y, dy, in_factors, out_factors]
        dx, dw = kernels.call("cpanet_conv3x3_backward", inputs, [x.shape, weight.shape], kernels.SIZES_3X3)
        return dx, dw, None, None
