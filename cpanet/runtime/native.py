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
from cpanet.runtime.libraries import is_whole

COMPILE_SECONDS = 600  # usually some ten
FLAGS = ("-O3", "-march=native", "-fopenmp", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden")


@lru_cache(maxsize=8)
def load_kernels(sources: tuple[Path, ...], headers: tuple[Path, ...] = ()) -> bool:
    """Compiles ``sources`` into one shared library (seconds, the first time) and loads it for the whole process.

    False, with one warning, where they cannot be compiled or loaded: the caller then does without.
    """
    compiler = toolchain.find_compiler(os.environ)
    folder = own_folder(start.prepare().cache_home.parents[1])
    library = folder / f"kernels-{_key(compiler, (*sources, *headers))}.so"
    try:
        if not library.is_file() or not is_whole(library):
            _compile(compiler, sources, library)
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


def _compile(compiler: str, sources: Sequence[Path], library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    partial = library.with_name(f".{library.name}.{os.getpid()}")
    command = [compiler, *FLAGS, *map(str, sources), "-o", str(partial)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    os.replace(partial, library)


def _key(compiler: str, files: Iterable[Path]) -> str:
    """Of what decides the library: sources, flags, compiler, and the CPU, since a home may be shared by machines."""
    digest = hashlib.sha256(" ".join((compiler, toolchain.tool_version(compiler), *FLAGS, _cpu())).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return "".join(
        line for line in lines[:40] if line.startswith(("model", "flags", "Features", "cpu family"))
    )
