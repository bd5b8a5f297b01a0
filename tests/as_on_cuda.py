"""CUDA's graph on the CPU: Jittor's own operators in the place of kernels and oneDNN's, products of fewer bits."""

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
    monkeypatch.setattr(dense, "library_operators", lambda *operands: None)
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


class _Through(jt.Function):
    """The identity, but for what is done to the numbers on the host: forward, backward, or nothing where None."""

    def execute(self, x, forward, backward):
        self.backward = backward
        return jt.array(x.numpy() if forward is None else forward(x.numpy()))

    def grad(self, dy):
        return dy if self.backward is None else jt.array(self.backward(dy.numpy())), None, None


def _replace_products(monkeypatch, before: Cut | None, after: Cut | None, backward: Cut | None) -> None:
    """Operands go through ``before``, results through ``after``, the gradients of results through ``backward``."""
    for owner, name in PRODUCTS:
        sound = getattr(owner, name)

        def product(a, b, *rest, sound=sound, **settings):
            if before is not None:
                a, b = _Through.apply(a, before, None), _Through.apply(b, before, None)
            return _Through.apply(sound(a, b, *rest, **settings), after, backward)

        monkeypatch.setattr(owner, name, product)


def products_of(monkeypatch, cut: Cut) -> None:
    """Every product, forward and in both gradients, is taken of operands that went through ``cut``, summed in float32."""
    _replace_products(monkeypatch, cut, None, cut)


def constant_products(monkeypatch) -> None:
    """Every product is 0.25 everywhere."""
    _replace_products(monkeypatch, None, lambda x: np.full_like(x, 0.25), None)


def products_without_gradient(monkeypatch) -> None:
    """Every product is right, and both its gradients are zero."""
    _replace_products(monkeypatch, None, None, np.zeros_like)
