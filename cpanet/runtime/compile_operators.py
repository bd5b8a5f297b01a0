"""Jittor compiles operators in several threads, which change one graph: made safe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from cpanet.runtime.libraries import small_library

SOURCE = Path(__file__).with_name("compile_operators.cc")


def compile_operators_safely(jittor: Any, folder: Path, compiler: str) -> None:
    """Lets one thread at a time look at the graph; the compilers still run side by side.

    ``compile_operators.cc`` says why. Where it cannot be compiled, operators are compiled one after the other. To be
    called once Jittor is imported and knows whether it compiles for CUDA.
    """
    library = small_library(SOURCE, folder, compiler, header_flags(jittor.flags.cc_flags))
    if library is None:
        jittor.flags.use_parallel_op_compiler = 1
    else:
        library.cpanet_compile_operators()


def header_flags(flags: str) -> tuple[str, ...]:
    """Of Jittor's flags for its compiler those by which its headers are read as Jittor itself was compiled."""
    return tuple(flag for flag in shlex.split(flags) if flag.startswith(("-I", "-D", "-std=")))
