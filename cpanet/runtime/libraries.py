"""Shared libraries: small ones of our own, and whether a file is one from beginning to end."""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cpanet.files import replacing
from cpanet.runtime.processor import processor
from cpanet.runtime.toolchain import tool_version

SECONDS = 600.0  # for a compiler; some ten for the kernels of ``cpanet.ops``, one for a small library
HEADER = 64  # bytes at the start of an ELF file of 64 bits


def small_library(source: Path, folder: Path, compiler: str, more: Sequence[str] = ()) -> ctypes.CDLL | None:
    """``source``, one file of C++, compiled into ``folder`` (the first time) and loaded; None where that fails.

    ``more``: flags for the compiler, after those that every small library has.
    """
    flags = ("-O1", "-shared", "-fPIC", "-pthread", "-std=c++14", *more)
    try:
        return ctypes.CDLL(str(compile_library([source], folder, compiler, flags)))
    except (OSError, subprocess.SubprocessError):
        return None


def compile_library(
    sources: Sequence[Path], folder: Path, compiler: str, flags: Sequence[str], libraries: Sequence[str] = ()
) -> Path:
    """The library of ``sources`` in ``folder``, compiled unless it is there and whole.

    It is named after what decides it: the sources and the headers beside them, compiler, flags, and the processor, since a
    home may be shared by machines. Raises OSError and subprocess.SubprocessError.
    """
    words = [compiler, tool_version(compiler), *flags, *libraries, processor()]
    digest = hashlib.sha256(" ".join(words).encode())
    for file in (*sources, *sorted(sources[0].parent.glob("*.h"))):
        digest.update(file.read_bytes())
    library = folder / f"{sources[0].stem}-{digest.hexdigest()[:12]}.so"
    if not library.is_file() or not is_whole(library):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(library) as partial:  # readers never see half of it
            command = [compiler, *flags, *map(str, sources), "-o", str(partial), *libraries]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    return library


def is_whole(file: Path) -> bool:
    """Whether an ELF file goes on to its end: linkers and assemblers write the table of sections last.

    True for what is not there, and for an ELF file of another kind than those of today's machines.
    """
    try:
        with open(file, "rb", buffering=0) as handle:
            head, size = handle.read(HEADER), os.fstat(handle.fileno()).st_size
    except OSError:
        return not file.exists()
    if head[:4] != b"\x7fELF":
        return False
    if head[4:6] not in (b"", b"\x02", b"\x02\x01"):  # 64 bits, little-endian
        return True
    if len(head) < HEADER:
        return False
    sections = struct.unpack_from("<Q", head, 40)[0]
    entry, entries = struct.unpack_from("<HH", head, 58)
    return sections > 0 and sections + entry * entries <= size
