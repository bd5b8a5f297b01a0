"""Own kernels in C++: compiled once for this CPU, then loaded where Jittor's operators find their functions."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from cpanet.runtime import start, toolchain
from cpanet.runtime.libraries import compile_library

FLAGS = ("-O3", "-march=native", "-fopenmp", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden")


@lru_cache(maxsize=8)
def load_kernels(sources: tuple[Path, ...], onednn: Path | None = None) -> bool:
    """Compiles ``sources`` into one shared library (seconds, the first time) and loads it for the whole process.

    ``onednn``: folder with the ``include`` and ``lib`` of oneDNN, for sources that use it.
    False, with one warning, where they cannot be compiled or loaded: the caller then does without.
    """
    compiler = toolchain.find_compiler(os.environ)
    folder, libraries = start.prepare().cache_home / "cpanet", []
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
