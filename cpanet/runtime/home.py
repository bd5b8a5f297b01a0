"""Where Jittor keeps what it compiles: a folder that this user can write."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, TextIO

from cpanet.errors import UserError

COMPILING = "compiling"
LOCK_SECONDS = 3600.0  # the system frees the lock of a process that has ended: this is for one that hangs


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


@contextmanager
def import_lock(home: Path) -> Iterator[Callable[[], None]]:
    """One process at a time prepares and compiles; the others wait and find it done.

    Jittor has a lock of its own, but makes folders and reads half-written files outside of it. The holder gets
    a function to call when it starts to compile: those who wait then say why, and else wait in silence.
    """
    folder = own_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "import.lock", "a+") as handle:
        _wait_for(handle)
        try:
            handle.truncate(0)
            yield lambda: _announce(handle)
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def _announce(handle: TextIO) -> None:
    handle.write(COMPILING)
    handle.flush()


def _wait_for(handle: TextIO) -> None:
    """Takes the lock; says so on standard error where its holder is compiling."""
    said, deadline = False, time.monotonic() + LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            if not said and handle.read() == COMPILING:
                print("Waiting for another process that is compiling Jittor…", file=sys.stderr, flush=True)
                said = True
            time.sleep(0.05)
    raise UserError(
        f"Another process has been compiling Jittor for {LOCK_SECONDS / 60:.0f} minutes and holds {handle.name}. "
        "End it (fuser names it), or set JITTOR_HOME to another folder."
    )
