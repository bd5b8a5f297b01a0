"""3×3 convolution with ReLU and channel dropout in one operator, which skips dropped channels (kernels: winograd.cc)."""

from __future__ import annotations

from cpanet.ops import bfloat16, kernels
from cpanet.ops.dense import conv2d
from cpanet.ops.function import Function
from cpanet.runtime import jt

HEADER = """
extern "C" void cpanet_conv3x3(const float* x, const float* w, const float* in_factors,
    const float* out_factors, float* y, int batch, int channels, int outputs, int height, int width);
extern "C" void cpanet_conv3x3_bias(const float* x, const float* w, const float* bias, float* y, int batch,
    int channels, int outputs, int height, int width);
extern "C" void cpanet_conv3x3_backward(const float* x, const float* w, const float* y, const float* dy,
    const float* in_factors, const float* out_factors, float* dx, float* dw, int batch, int channels, int outputs,
    int height, int width);
"""
FORWARD = """
cpanet_conv3x3(in0_p, in1_p, in2_p, in3_p, out0_p, in0_shape0, in0_shape1, in1_shape0, in0_shape2, in0_shape3);
"""
WITH_BIAS = """
cpanet_conv3x3_bias(in0_p, in1_p, in2_p, out0_p, in0_shape0, in0_shape1, in1_shape0, in0_shape2, in0_shape3);
"""
BACKWARD = """
cpanet_conv3x3_backward(in0_p, in1_p, in4_p, in5_p, in2_p, in3_p, out0_p, out1_p, in0_shape0, in0_shape1, in1_shape0,
    in0_shape2, in0_shape3);
"""


def conv3x3_relu(x, weight, in_factors=None, out_factors=None, narrow: bool = True):
    """``relu(conv2d(x, weight, padding=1)) * out_factors``, stride 1, without bias.

    Shapes: x (B, C, H, W), weight (O, C, 3, 3), result (B, O, H, W). The factors are those of channel dropout:
    ``out_factors`` (B, O) scales the result's channels, those with factor 0 are not computed; ``in_factors`` (B, C) are
    those x has been multiplied by before: channels with factor 0 are known to hold zeros, are not read, and get a zero
    gradient, which the dropout before would make of any. None: nothing is dropped. ``narrow``: in bfloat16 where that is the
    precision of this process.
    """
    if narrow and bfloat16.suits(x, weight):
        ones = jt.ones((x.shape[0], weight.shape[0])).stop_grad() if out_factors is None else out_factors
        return bfloat16.conv3x3_relu(x, weight, ones)
    if not kernels.usable():
        y = jt.nn.relu(conv2d(x, weight, padding=1))
        return y if out_factors is None else y * out_factors.reshape(*out_factors.shape, 1, 1)
    batch, channels = x.shape[:2]
    if in_factors is None:
        in_factors = jt.ones((batch, channels)).stop_grad()
    if out_factors is None:
        out_factors = jt.ones((batch, weight.shape[0])).stop_grad()
    return _Conv3x3Relu.apply(x, weight, in_factors, out_factors)


def conv3x3_bias_relu(x, weight, bias):
    """``relu(conv2d(x, weight, bias, padding=1))``, stride 1, for a network that is not trained: there is no gradient.

    Shapes: x (B, C, H, W), weight (O, C, 3, 3), bias (O,), result (B, O, H, W).
    """
    if not kernels.usable() or any(str(v.dtype) != "float32" for v in (x, weight, bias)):
        return jt.nn.relu(conv2d(x, weight, bias, padding=1))
    shape = [x.shape[0], weight.shape[0], *x.shape[2:]]
    return jt.code(shape, x.dtype, [x, weight, bias], cpu_header=HEADER, cpu_src=WITH_BIAS).stop_grad()


class _Conv3x3Relu(Function):
    def execute(self, x, weight, in_factors, out_factors):
        shape = [x.shape[0], weight.shape[0], *x.shape[2:]]
        y = jt.code(shape, x.dtype, [x, weight, in_factors, out_factors], cpu_header=HEADER, cpu_src=FORWARD)
        self.keep(x, weight, in_factors, out_factors, y)
        return y

    def grad(self, dy):
        x, weight, in_factors, out_factors, y = self.release()
        dx, dw = jt.code(
            [x.shape, weight.shape],
            [x.dtype, weight.dtype],
            [x, weight, in_factors, out_factors, y, dy],
            cpu_header=HEADER,
            cpu_src=BACKWARD,
        )
        return dx, dw, None, None
