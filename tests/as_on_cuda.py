"""What CUDA would run, on the CPU: Jittor's own operators in the place of kernels and oneDNN's, products of fewer bits."""

from __future__ import annotations

from typing import Callable

import numpy as np

from cpanet.ops import dense, kernels
from cpanet.runtime import jt

Cut = Callable[[np.ndarray], np.ndarray]
PRODUCTS = ((jt.nn, "conv2d"), (jt, "matmul"), (jt.nn, "matmul_transpose"))


def without_kernels(monkeypatch) -> None:
    """``cpanet.ops`` as on CUDA; a kernel that is called all the same is an error."""

    sound = jt.code

    def code(*args, **settings):
        assert settings.get("cuda_src"), "a kernel for the CPU alone"
        return sound(*args, **settings)

    monkeypatch.setattr(kernels, "usable", lambda: False)
    monkeypatch.setattr(dense, "_has_operator", lambda *operands: False)
    monkeypatch.setattr(jt, "code", code)


def mantissa(bits: int, rounded: bool = True) -> Cut:
    """float32 with ``bits`` explicit bits of mantissa; tensor cores round or cut off, by the library's choice."""
    dropped = 23 - bits

    def cut(x: np.ndarray) -> np.ndarray:
        whole = np.ascontiguousarray(x, np.float32).view(np.uint32)
        half = np.uint32(1 << (dropped - 1)) if rounded else np.uint32(0)
        return ((whole + half) & np.uint32(0x100000000 - (1 << dropped))).view(np.float32)

    return cut


def half(x: np.ndarray) -> np.ndarray:
    """float16, with its small range."""
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float16).astype(np.float32)


CUTS: dict[str, tuple[Cut, ...]] = {
    "tf32": (mantissa(10), mantissa(10, rounded=False)),
    "bf16": (mantissa(7), mantissa(7, rounded=False)),
    "fp16": (half,),
}


class _Cut(jt.Function):
    def execute(self, x, cut):
        return jt.array(cut(x.numpy()))

    def grad(self, dy):
        return dy, None


class _CutGradient(jt.Function):
    def execute(self, x, cut):
        self.cut = cut
        return x * 1.0

    def grad(self, dy):
        return jt.array(self.cut(dy.numpy())), None


def products_of(monkeypatch, cut: Cut) -> None:
    """Every product, forward and in both gradients, is taken of operands that went through ``cut``, summed in float32."""
    for owner, name in PRODUCTS:
        sound = getattr(owner, name)

        def product(a, b, *rest, sound=sound, **settings):
            operands = _Cut.apply(a, cut), _Cut.apply(b, cut)
            return _CutGradient.apply(sound(*operands, *rest, **settings), cut)

        monkeypatch.setattr(owner, name, product)


def broken_products(monkeypatch, broken: Callable) -> None:
    """Every product's result goes through ``broken(result, a, b)``."""
    for owner, name in PRODUCTS:
        sound = getattr(owner, name)

        def product(a, b, *rest, sound=sound, **settings):
            return broken(sound(a, b, *rest, **settings), a, b)

        monkeypatch.setattr(owner, name, product)
