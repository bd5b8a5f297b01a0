"""The kernels of this folder: whether they can be used now, and how an operator calls one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from cpanet.runtime import jt
from cpanet.runtime.native import load_kernels

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cc")))
SIZES_3X3 = (
    "in0_shape0",
    "in0_shape1",
    "in1_shape0",
    "in0_shape2",
    "in0_shape3",
)  # batch, channels, outputs, height, width


def usable() -> bool:
    """True on the CPU, once the kernels are compiled and loaded; on CUDA Jittor's own operators are used."""
    return not jt.flags.use_cuda and load_kernels(SOURCES)


def call(function: str, inputs: Sequence[Any], shapes: Sequence[Any], sizes: Sequence[Any]) -> list[Any]:
    """The results, float32 of ``shapes``, of a C function: its arguments are the inputs, the results, and ``sizes``, ints.

    None among inputs or shapes is a null pointer. Sizes are numbers or C++, where ``in0_shape1`` is the second size of the
    first input that is not null: one compiled operator then serves maps of every size.
    """
    types = ["const float*"] * len(inputs) + ["float*"] * len(shapes) + ["int"] * len(sizes)
    arguments = [*_pointers("in", inputs), *_pointers("out", shapes), *map(str, sizes)]
    results = [shape for shape in shapes if shape is not None]
    return jt.code(
        results,
        ["float32"] * len(results),
        [v for v in inputs if v is not None],
        cpu_header=f'extern "C" void {function}({", ".join(types)});',
        cpu_src=f"{function}({', '.join(arguments)});",
    )


def _pointers(kind: str, values: Sequence[Any]) -> list[str]:
    number = count()
    return ["nullptr" if value is None else f"{kind}{next(number)}_p" for value in values]
