"""Convolutions that name the operators of oneDNN (CPU) and cuDNN (CUDA) themselves.

Jittor writes a convolution as a broadcast, a product and a sum, and finds out while it compiles them that a library has an
operator for that. It compiles in several threads, and the operators that these threads put in enter themselves, without a
lock, into the lists of variables that other threads are reading: once in a while a process dies of it at its first training
step. Naming the operator leaves nothing to be found, and no loop to be compiled that is never run.

Matrix products, a handful of kernels, stay with Jittor: a product that is named and one that is found at the same time are
written to the same file by two threads. ``cpanet.runtime.compile_operators`` keeps the threads that find them apart.
"""

from __future__ import annotations

from typing import Any

from cpanet.ops import bfloat16
from cpanet.ops.function import Function
from cpanet.runtime import jt


def library_operators(*operands: Any) -> tuple[Any, Any, Any] | None:
    """A library's convolution and its gradients by input and by weight; None where there is none, and but for float32."""
    if jt.flags.use_cuda:
        name, library = "cudnn", getattr(jt.compile_extern, "cudnn_ops", None)
    else:
        name, library = "mkl", jt.compile_extern.mkl_ops
    if library is None or any(str(v.dtype) != "float32" for v in operands):
        return None
    conv, by_input, by_weight = (f"{name}_conv{of}" for of in ("", "_backward_x", "_backward_w"))
    return getattr(library, conv), getattr(library, by_input), getattr(library, by_weight)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1):
    """x (B, C, H, W), weight (O, C, k, k), bias (O,) or None → (B, O, H', W'), not grouped."""
    geometry = (*_pair(stride), *_pair(padding), *_pair(dilation))
    if kind := bfloat16.kind_for(x, weight):
        y = bfloat16.conv2d(x, weight, geometry, kind)
    elif (operators := library_operators(x, weight)) is not None:
        y = _Convolution.apply(x, weight, operators, geometry)
    else:
        return jt.nn.conv2d(x, weight, bias, stride, padding, dilation)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


class Conv(jt.nn.Conv):
    """``jt.nn.Conv``, its parameters and their start, on :func:`conv2d`; not grouped."""

    def execute(self, x):
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class _Convolution(Function):
    def execute(self, x, weight, operators, geometry):
        conv, by_input, by_weight = operators
        self.keep(x, weight, by_input, by_weight, geometry)
        return conv(x, weight, *geometry)

    def grad(self, dy):
        x, weight, by_input, by_weight, geometry = self.release()
        dx = by_input(weight, dy, x.shape[2], x.shape[3], *geometry)
        dw = by_weight(x, dy, weight.shape[2], weight.shape[3], *geometry)
        return dx, dw, None, None
