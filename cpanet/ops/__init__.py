"""Operators that Jittor lacks: CPU kernels where a training step spends its time, Jittor's own operators on CUDA."""

from cpanet.ops.conv3x3 import conv3x3_relu

__all__ = ["conv3x3_relu"]
