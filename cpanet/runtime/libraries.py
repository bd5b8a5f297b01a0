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

HEADER = 64  # bytes at the start of an ELF file of 64 bits


def small_library(source: Path, folder: Path, compiler: str, more: Sequence[str] = ()) -> ctypes.CDLL | None:
    """``source``, one file of C++, compiled into ``folder`` (the first time) and loaded; None where that fails.

    ``more``: flags for the compiler, after those that every small library has.
    """
    key = hashlib.sha256(source.read_bytes() + " ".join((compiler, *more)).encode()).hexdigest()[:12]
    library = folder / f"{source.stem}-{key}.so"
    flags = ("-O1", "-shared", "-fPIC", "-pthread", "-std=c++14", *more)
    try:
        compile_library([compiler, *flags, str(source)], library, seconds=120)  # usually one
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError):
        return None


def compile_library(command: Sequence[str], library: Path, *linked: str, seconds: float) -> None:
    """Run ``command -o library linked…`` unless ``library`` is there and whole; ``replacing`` keeps readers from half of it.

    Raises OSError and subprocess.SubprocessError.
    """
    if not library.is_file() or not is_whole(library):
        library.parent.mkdir(parents=True, exist_ok=True)
        with replacing(library) as partial:
            words = [*command, "-o", str(partial), *linked]
            subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds)


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
