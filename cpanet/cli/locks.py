"""One writer a directory: a lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cpanet.errors import UserError

FILE = ".lock"
HELD = (BlockingIOError, PermissionError)  # raised where another process has the lock

_held: dict[Path, TextIO] = {}  # open as long as they are locked


class DirectoryInUse(UserError):
    """Another process writes to the directory."""


def lock_directory(directory: Path) -> None:
    """Keep ``directory`` for this process until it ends, or until :func:`unlock_directory`.

    The lock is the system's own (POSIX), which forked children do not inherit and NFS knows, too. A file system without
    locks is used without. Raises DirectoryInUse, naming process and host, where another process holds it.
    """
    directory = directory.absolute()
    if directory in _held:
        return None
    try:
        handle = open(directory / FILE, "a+", encoding="utf-8")  # noqa: SIM115  # stays open
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written ({error.strerror}). Mend the directory, or choose another one."
        ) from error
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except HELD as error:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise DirectoryInUse(
            f"{directory} is being written by {holder}. Wait for its end or stop it, or choose another directory."
        ) from error
    except OSError:
        handle.close()
        return None
    if not _is_at(handle, directory / FILE):  # its holder has just ended, and removed it
        handle.close()
        return lock_directory(directory)
    handle.seek(0)
    handle.truncate()
    handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    handle.flush()
    _held[directory] = handle
    return None


def _is_at(handle: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def unlock_directory(directory: Path) -> None:
    """Give ``directory`` free, and leave no file behind."""
    handle = _held.pop(directory.absolute(), None)
    if handle is not None:
        with contextlib.suppress(OSError):
            os.unlink(handle.name)
        handle.close()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """``directory`` kept for this process meanwhile; left as it was where this process keeps it already."""
    if directory.absolute() in _held:
        yield
        return
    lock_directory(directory)
    try:
        yield
    finally:
        unlock_directory(directory)
