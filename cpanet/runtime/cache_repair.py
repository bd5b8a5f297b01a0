"""Removal of files that are not whole from Jittor's cache, as a killed compiler or a full disk leaves them.

Jittor keeps a ``.key`` beside each library: its command and the hashes of its sources (``src/utils/cache_compile.cc``).
While these fit, the library is loaded, however little of it is there, and every run ends with "file too short". Keys that
are damaged themselves need nothing: they do not fit, and the library is compiled again.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from cpanet.runtime.libraries import is_whole
from cpanet.runtime.locks import wait_for


def repair(cache: Path, lock: Path) -> list[Path]:
    """Removes from ``cache`` (``jittor_utils.cache_path``) what cannot be whole, for Jittor to compile it again.

    Returns what was removed. ``lock`` is waited for only where something is to be removed, and everything is looked
    at again then, so that nothing goes that another process is just writing. Operators (``jit/``) are compiled under
    a POSIX lock of that file, everything else under a BSD lock, which do not exclude each other.
    """
    removed: list[Path] = []
    libraries = (
        Path(parent, name)
        for parent, _, names in os.walk(cache)
        for name in names
        if name.endswith((".so", ".o"))
    )
    damaged = [file for file in libraries if is_damaged(file)]
    for operators, take in ((True, fcntl.lockf), (False, fcntl.flock)):
        files = [file for file in damaged if (file.parent.name == "jit") == operators]
        if files:
            with open(lock, "a+") as handle:
                wait_for(handle, take)
                for file in filter(is_damaged, files):
                    _key(file).unlink(missing_ok=True)  # first: alone, the file would be compiled again
                    file.unlink(missing_ok=True)
                    removed.append(file)
    if removed:
        print(
            f"Files of Jittor's cache that are not whole: {len(removed)}. Compiling them again…",
            file=sys.stderr,
        )
    return removed


def is_damaged(file: Path) -> bool:
    """Whether Jittor would use ``file`` although it is not whole. One without a key is compiled again anyway, but for the
    library that is loaded to look at keys."""
    return not is_whole(file) and (_key(file).exists() or file.name.startswith("jit_utils_core"))


def _key(file: Path) -> Path:
    """The file by which Jittor believes that ``file`` is current."""
    return file.with_name("data.md5" if file.name == "data.o" else f"{file.name}.key")
