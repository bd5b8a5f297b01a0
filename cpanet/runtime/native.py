"""Own kernels in C++: compiled once for this CPU, then loaded where Jittor's operators find their functions."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from cpanet.runtime import start, toolchain
from cpanet.runtime.home import own_folder
from cpanet.runtime.libraries import compile_library
from cpanet.runtime.processor import processor

FLAGS = ("-O3", "-march=native", "-fopenmp", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden")


@lru_cache(maxsize=8)
def load_kernels(
    sources: tuple[Path, ...], headers: tuple[Path, ...] = (), onednn: Path | None = None
) -> bool:
    """Compiles ``sources`` into one shared library (seconds, the first time) and loads it for the whole process.

    ``onednn``: folder with the ``include`` and ``lib`` of oneDNN, for sources that use it.
    False, with one warning, where they cannot be compiled or loaded: the caller then does without.
    """
    compiler = toolchain.find_compiler(os.environ)
    folder = own_folder(start.prepare().cache_home.parents[1])
    libraries = [] if onednn is None else ["-I", f"{onednn}/include", "-L", f"{onednn}/lib", "-lmkldnn"]
    if onednn is not None:
        libraries.append(f"-Wl,-rpath,{onednn}/lib")
    library = folder / f"kernels-{_key(compiler, (*sources, *headers), libraries)}.so"
    try:
        command = [compiler, *FLAGS, *map(str, sources)]
        compile_library(command, library, *libraries, seconds=600)  # usually some ten
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


def _key(compiler: str, files: Iterable[Path], libraries: Sequence[str]) -> str:
    """Of what decides the library: sources, flags, compiler, and the CPU, since a home may be shared by machines."""
    digest = hashlib.sha256(
        " ".join((compiler, toolchain.tool_version(compiler), *FLAGS, *libraries, processor())).encode()
    )
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
