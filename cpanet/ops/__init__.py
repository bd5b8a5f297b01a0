"""Operators that Jittor lacks: CPU kernels where a training step spends its time, Jittor's own operators on CUDA."""

from cpanet.ops.conv3x3 import conv3x3_bias_relu, conv3x3_relu
from cpanet.ops.dense import Conv, conv2d
from cpanet.ops.projection import conv3x3_few, project, project_with_maximum

__all__ = [
    "Conv",
    "conv2d",
    "conv3x3_bias_relu",
    "conv3x3_few",
    "conv3x3_relu",
    "project",
    "project_with_maximum",
]
