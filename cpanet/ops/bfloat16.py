"""Convolutions with products in bfloat16, by oneDNN (kernels: onednn/convolution.cc), for ``precision=bf16`` on a CPU.

Maps, weights, gradients and sums stay float32. Convolutions with few channels stay float32 altogether: they take no
time, and spatial attention and logits are sensitive.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from cpanet.ops.function import Function
from cpanet.runtime import jt, onednn, precision, start
from cpanet.runtime.native import load_kernels

SOURCE = Path(__file__).parent / "onednn" / "convolution.cc"
FEWEST = 16  # channels of input and output below which a convolution stays float32
KINDS = {"float32": 0, "native": 1, "rounded": 2}  # of products, as convolution.cc names them
_GEOMETRY = "int, int, int, int, int, int, int, int, int, int, int, int, int, int"
HEADER = f"""
extern "C" void cpanet_onednn_conv(const float*, const float*, float*, {_GEOMETRY});
extern "C" void cpanet_onednn_conv_backward(const float*, const float*, const float*, float*, float*, {_GEOMETRY});
extern "C" void cpanet_onednn_conv3x3(const float*, const float*, const float*, float*, int, int, int, int, int, int);
extern "C" void cpanet_onednn_conv3x3_backward(const float*, const float*, const float*, const float*, const float*, float*,
    float*, int, int, int, int, int, int);
"""


def kind() -> str | None:
    """How products are taken in bfloat16 in this process: ``native`` or ``rounded``; None where they are float32."""
    runtime = start.current()
    if runtime is None or runtime.device != "cpu" or runtime.precision != "bf16" or not _loaded():
        return None
    return precision.bfloat16_on_cpu()


def suits(x, weight) -> bool:
    """Whether the convolution of x (B, C, H, W) with weight (O, C, k, k) is to be taken in bfloat16 now."""
    return (
        min(weight.shape[:2]) >= FEWEST
        and all(str(v.dtype) == "float32" for v in (x, weight))
        and bool(kind())
    )


@lru_cache(maxsize=1)
def _loaded() -> bool:
    return load_kernels((SOURCE,), onednn=onednn.release(start.prepare().cache_home))


def conv2d(x, weight, geometry: tuple[int, ...], kind: str | None = None):
    """x (B, C, H, W), weight (O, C, k, k) → (B, O, H', W').

    ``geometry``: stride, padding and dilation, rows before columns. ``kind``: one of :data:`KINDS`, by default
    that of this process.
    """
    _loaded()
    return _Convolution.apply(x, weight, tuple(int(n) for n in geometry), KINDS[kind or _kind()])


def conv3x3_relu(x, weight, out_factors, kind: str | None = None):
    """``relu(conv2d(x, weight, padding=1)) * out_factors``: x (B, C, H, W), weight (O, C, 3, 3), out_factors (B, O)."""
    _loaded()
    return _Conv3x3Relu.apply(x, weight, out_factors, KINDS[kind or _kind()])


def _kind() -> str:
    return kind() or "float32"


def _sizes(x: str, w: str, geometry: tuple[int, ...], kind: int) -> str:
    shapes = [f"{x}_shape{i}" for i in range(4)] + [f"{w}_shape{i}" for i in (0, 2, 3)]
    return ", ".join([*shapes, *map(str, geometry), str(kind)])


class _Convolution(Function):
    def execute(self, x, weight, geometry, kind):
        sides = []
        for axis in (0, 1):
            stride, padding, dilation = geometry[axis::2]
            spread = (weight.shape[2 + axis] - 1) * dilation + 1
            sides.append((x.shape[2 + axis] + 2 * padding - spread) // stride + 1)
        self.keep(x, weight, geometry, kind)
        source = f"cpanet_onednn_conv(in0_p, in1_p, out0_p, {_sizes('in0', 'in1', geometry, kind)});"
        shape = [x.shape[0], weight.shape[0], *sides]
        return jt.code(shape, x.dtype, [x, weight], cpu_header=HEADER, cpu_src=source)

    def grad(self, dy):
        x, weight, geometry, kind = self.release()
        sizes = _sizes("in0", "in1", geometry, kind)
        source = f"cpanet_onednn_conv_backward(in0_p, in1_p, in2_p, out0_p, out1_p, {sizes});"
        dx, dw = jt.code(
            [x.shape, weight.shape], [x.dtype] * 2, [x, weight, dy], cpu_header=HEADER, cpu_src=source
        )
        return dx, dw, None, None


class _Conv3x3Relu(Function):
    def execute(self, x, weight, out_factors, kind):
        shape = [x.shape[0], weight.shape[0], *x.shape[2:]]
        sizes = f"in0_shape0, in0_shape1, in1_shape0, in0_shape2, in0_shape3, {kind}"
        source = f"cpanet_onednn_conv3x3(in0_p, in1_p, in2_p, out0_p, {sizes});"
        y = jt.code(shape, x.dtype, [x, weight, out_factors], cpu_header=HEADER, cpu_src=source)
        self.keep(x, weight, out_factors, y, kind)
        return y

    def grad(self, dy):
        x, weight, out_factors, y, kind = self.release()
        sizes = f"in0_shape0, in0_shape1, in1_shape0, in0_shape2, in0_shape3, {kind}"
        source = (
            f"cpanet_onednn_conv3x3_backward(in0_p, in1_p, in2_p, in3_p, in4_p, out0_p, out1_p, {sizes});"
        )
        dx, dw = jt.code(
            [x.shape, weight.shape],
            [x.dtype] * 2,
            [x, weight, y, dy, out_factors],
            cpu_header=HEADER,
            cpu_src=source,
        )
        return dx, dw, None, None
