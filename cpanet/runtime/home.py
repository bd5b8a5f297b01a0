"""Where Jittor keeps what it compiles: a folder that this user can write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cpanet.errors import UserError


def choose_home(environ: Mapping[str, str]) -> Path:
    """Jittor's home: ``JITTOR_HOME``, else the user's home, else a private temporary folder.

    Jittor puts everything below ``<home>/.cache/jittor``. A ``JITTOR_HOME`` that cannot be written is an
    error, because it was asked for; an unwritable home folder only costs the cache its permanence.
    """
    asked = environ.get("JITTOR_HOME")
    if asked:
        home = Path(asked).expanduser().absolute()
        if " " in str(home):
            raise UserError(
                f"JITTOR_HOME has a space in it: {home}. Jittor does not quote all its paths; move it."
            )
        if not is_writable(cache_folder(home)):
            raise UserError(
                f"JITTOR_HOME cannot be written: {home}. Name a folder of your own, or unset JITTOR_HOME."
            )
        return home
    user = user_home(environ)
    if " " not in str(user) and is_writable(cache_folder(user)):
        return user
    return temporary_home()


def user_cache(environ: Mapping[str, str] | None = None) -> Path:
    """This project's folder for what it draws or is given once: ``cpanet`` below ``XDG_CACHE_HOME`` or ~/.cache.

    Where neither can be written: below the private temporary folder.
    """
    environ = os.environ if environ is None else environ
    folder = Path(environ.get("XDG_CACHE_HOME") or user_home(environ) / ".cache").absolute() / "cpanet"
    return folder if is_writable(folder) else temporary_home() / ".cache" / "cpanet"


def user_home(environ: Mapping[str, str]) -> Path:
    """The user's home folder."""
    return Path(environ.get("HOME") or os.path.expanduser("~")).absolute()


def temporary_home() -> Path:
    """A folder of this user alone below the temporary one; checked, for compiled code is loaded from it."""
    folder = Path(tempfile.gettempdir()) / f"cpanet-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise UserError(
            f"The home folder cannot be written, and {folder} belongs to "
            "somebody else or others may write it. Set JITTOR_HOME to a folder of your own."
        )
    if not is_writable(cache_folder(folder)):
        raise UserError(
            f"Neither the home folder nor {folder} can be written. Set JITTOR_HOME to one that can."
        )
    return folder


def cache_folder(home: Path) -> Path:
    """Jittor's cache below ``home``."""
    return home / ".cache" / "jittor"


def own_folder(home: Path) -> Path:
    """This project's corner of Jittor's cache."""
    return cache_folder(home) / "cpanet"


def is_writable(folder: Path) -> bool:
    """Whether files can really be made in ``folder`` (made if missing); permission bits do not say so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
