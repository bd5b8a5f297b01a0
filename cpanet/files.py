"""Files that are whole at every moment."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cpanet.errors import UserError


class CannotWrite(UserError, OSError):
    """A file that cannot be written: the disk is full, the folder is gone or read-only."""


def write_atomically(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replace ``path`` by ``content`` in one step; after a crash at any moment it is the old file or the new one.

    ``mode``: its permissions, otherwise those of a new file. Raises :class:`CannotWrite`; what was there before is then
    untouched.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        if mode is not None:
            temporary.chmod(mode)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write a file or a link to, which takes the place of ``path`` when the block is left.

    Where the block fails nothing is left of it. Raises :class:`CannotWrite` for what the system refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if not temporary.is_symlink():
            _sync(temporary)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # makes a new name last; not every file system knows how
            _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CannotWrite(
                f"{path} cannot be written ({error.strerror or error}). Free space or mend the folder; "
                "what was written before is whole."
            ) from error
        raise


@contextlib.contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` to prepare that in; removed afterwards, as far as the file system lets it."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process began to write in ``folder``. Only for a folder that nobody else writes to now."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    """Wait until a file's content or a folder's names are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
