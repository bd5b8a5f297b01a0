"""Files that are whole at every moment."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from cpanet.errors import UserError


class CannotWrite(UserError, OSError):
    """A file that cannot be written: the disk is full, the folder is gone or read-only."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step; after a crash at any moment it is the old file or the new one.

    Raises :class:`CannotWrite`; what was there before is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CannotWrite(
                f"{path} cannot be written ({error.strerror or error}). Free space or mend the folder; "
                "what was written before is whole."
            ) from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process began to write in ``folder``. Only for a folder that nobody else writes to now."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a new name last, too; not every file system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
