"""Convolutions with products in bfloat16, by oneDNN (kernels: onednn/convolution.cc), for ``precision=bf16`` on a CPU.

Maps, weights, gradients and sums stay float32. Convolutions with few channels stay float32 altogether: they take no
time, and spatial attention and logits are sensitive.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from cpanet.ops import kernels
from cpanet.ops.function import Function
from cpanet.runtime import current, onednn, precision, prepare

SOURCE = Path(__file__).parent / "onednn" / "convolution.cc"
FEWEST = 16  # channels of input and output below which a convolution stays float32
KINDS = {"float32": 0, "native": 1, "rounded": 2}  # of products, as convolution.cc names them
SHAPES = [f"in0_shape{i}" for i in range(4)] + [f"in1_shape{i}" for i in (0, 2, 3)]


def kind() -> str | None:
    """How products are taken in bfloat16 in this process: ``native`` or ``rounded``; None where they are float32."""
    runtime = current()
    if runtime is None or runtime.device != "cpu" or runtime.precision != "bf16" or not _loaded():
        return None
    return precision.bfloat16_on_cpu()


def kind_for(x, weight) -> str | None:
    """:func:`kind`, for the convolution of x (B, C, H, W) with weight (O, C, k, k)."""
    large = min(weight.shape[:2]) >= FEWEST
    return kind() if large and all(str(v.dtype) == "float32" for v in (x, weight)) else None


@lru_cache(maxsize=1)
def _loaded() -> bool:
    return kernels.load_kernels((SOURCE,), onednn=onednn.release(prepare().cache_home))


def conv2d(x, weight, geometry: tuple[int, ...], kind: str):
    """x (B, C, H, W), weight (O, C, k, k) → (B, O, H', W').

    ``geometry``: stride, padding and dilation, rows before columns. ``kind``: one of :data:`KINDS`.
    """
    _loaded()
    return _Convolution.apply(x, weight, tuple(int(n) for n in geometry), KINDS[kind])


def conv3x3_relu(x, weight, out_factors, kind: str):
    """``relu(conv2d(x, weight, padding=1)) * out_factors``: x (B, C, H, W), weight (O, C, 3, 3), out_factors (B, O)."""
    _loaded()
    return _Conv3x3Relu.apply(x, weight, out_factors, KINDS[kind])


class _Convolution(Function):
    def execute(self, x, weight, geometry, kind):
        sides = []
        for axis in (0, 1):
            stride, padding, dilation = geometry[axis::2]
            spread = (weight.shape[2 + axis] - 1) * dilation + 1
            sides.append((x.shape[2 + axis] + 2 * padding - spread) // stride + 1)
        sizes = [*SHAPES, *geometry, kind]
        self.keep(x, weight, sizes)
        (y,) = kernels.call("cpanet_onednn_conv", [x, weight], [[x.shape[0], weight.shape[0], *sides]], sizes)
        return y

    def grad(self, dy):
        x, weight, sizes = self.release()
        inputs, shapes = [x, weight, dy], [x.shape, weight.shape]
        dx, dw = kernels.call("cpanet_onednn_conv_backward", inputs, shapes, sizes)
        return dx, dw, None, None


class _Conv3x3Relu(Function):
    def execute(self, x, weight, out_factors, kind):
        shape = [x.shape[0], weight.shape[0], *x.shape[2:]]
        sizes = [*kernels.SIZES_3X3, kind]
        (y,) = kernels.call("cpanet_onednn_conv3x3", [x, weight, out_factors], [shape], sizes)
        self.keep(x, weight, out_factors, y, sizes)
        return y

    def grad(self, dy):
        x, weight, out_factors, y, sizes = self.release()
        inputs, shapes = [x, weight, y, dy, out_factors], [x.shape, weight.shape]
        dx, dw = kernels.call("cpanet_onednn_conv3x3_backward", inputs, shapes, sizes)
        return dx, dw, None, None
