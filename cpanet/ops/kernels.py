"""Kernels in C++: compiled once for this CPU, loaded where Jittor's operators find their functions, and called by these."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from cpanet.runtime import jt, prepare
from cpanet.runtime.home import own_folder
from cpanet.runtime.libraries import compile_library
from cpanet.runtime.toolchain import find_compiler

FLAGS = ("-O3", "-march=native", "-fopenmp", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden")
SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cc")))
# batch, channels, outputs, height, width
SIZES_3X3 = ("in0_shape0", "in0_shape1", "in1_shape0", "in0_shape2", "in0_shape3")


@lru_cache(maxsize=8)
def load_kernels(sources: tuple[Path, ...], onednn: Path | None = None) -> bool:
    """Compiles ``sources`` into one shared library (seconds, the first time) and loads it for the whole process.

    ``onednn``: folder with the ``include`` and ``lib`` of oneDNN, for sources that use it.
    False, with one warning, where they cannot be compiled or loaded: the caller then does without.
    """
    compiler = find_compiler()
    folder = own_folder(prepare().cache_home.parents[1])
    libraries: list[str] = []
    if onednn is not None:
        lib = f"{onednn}/lib"
        libraries = ["-I", f"{onednn}/include", "-L", lib, "-lmkldnn", f"-Wl,-rpath,{lib}"]
    try:
        library = compile_library(sources, folder, compiler, FLAGS, libraries)
        # global: an operator that Jittor compiles and loads later calls the functions by name
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except (OSError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        print(
            f"Warning: the CPU kernels could not be built ({detail[0] if detail else error}), so training on the CPU "
            "will be slow. Remedy: install a current g++, or name it in cc_path.",
            file=sys.stderr,
        )
        return False
    return True


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
