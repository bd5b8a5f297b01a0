"""The C++ compiler and the Python headers that Jittor compiles with."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from cpanet import files
from cpanet.errors import UserError

PYTHON = f"python3.{sys.version_info.minor}"


def find_compiler(environ: Mapping[str, str] = os.environ) -> str:
    """Path of the C++ compiler: ``cc_path`` where set (Jittor's own variable), else g++ on the PATH."""
    wanted = environ.get("cc_path") or "g++"
    found = shutil.which(wanted, path=environ.get("PATH"))
    if found is None:
        raise UserError(
            f"No C++ compiler: {wanted} was not found, and Jittor compiles its operators with it. "
            "Install it: apt install g++"
        )
    return found


def find_headers(folders: Sequence[Path] | None = None) -> Path:
    """The folder of Python.h for this interpreter's version: its own first, then Debian's for the same 3.x."""
    paths = sysconfig.get_paths()
    usual = [Path(paths["include"]), Path(paths["platinclude"]), Path("/usr/include") / PYTHON]
    for folder in usual if folders is None else folders:
        if (folder / "Python.h").is_file():
            return folder
    raise UserError(
        f"No Python headers: Python.h for Python 3.{sys.version_info.minor} was not found, and Jittor "
        f"compiles against it. Install it: apt install python3-dev ({PYTHON}-dev for one of several Pythons)"
    )


def python_config(headers: Path, folder: Path, candidates: Sequence[Path] | None = None) -> Path | None:
    """A python-config script for Jittor, or None where Jittor finds one by itself.

    A virtual environment of a Python outside /usr has none beside its interpreter, and Jittor then stops
    although the headers are there; so a two-answer script is written into ``folder``.
    """
    here, name = Path(sys.executable).parent, f"{PYTHON}-config"
    folders = (here, Path("/usr/bin"), Path("/usr/local/bin"))
    # the scripts that Jittor itself tries (``jittor_utils.get_py3_config_path``)
    usual = [Path(f"{sys.executable}-config"), here / "python3-config", *(place / name for place in folders)]
    if any(path.is_file() for path in (usual if candidates is None else candidates)):
        return None
    return keep_text(
        folder / name,
        "#!/bin/sh\n"
        'case "$1" in\n'
        f"  --includes) echo '-I\"{headers}\"' ;;\n"
        f"  --extension-suffix) echo '{sysconfig.get_config_var('EXT_SUFFIX')}' ;;\n"
        "  *) exit 2 ;;\n"
        "esac\n",
    )


def python_at_home(home: Path, folder: Path, python: str) -> Path:
    """A script that runs ``python`` with ``HOME`` at Jittor's home.

    Jittor compiles each operator through a small Python program that starts as its import does: by writing
    below the user's home, whatever ``JITTOR_HOME`` says, and failing where that is read-only.
    """
    script = folder / f"{PYTHON}-at-home-{hashlib.sha256(python.encode()).hexdigest()[:8]}"
    return keep_text(script, f'#!/bin/sh\nHOME={shlex.quote(str(home))} exec {shlex.quote(python)} "$@"\n')


def keep_text(path: Path, text: str) -> Path:
    """Writes ``text``, a script or a source, so that no reader ever sees half of it; leaves an equal file alone."""
    mode = 0o755 if text.startswith("#!") else 0o644
    if not path.is_file() or path.read_text() != text or path.stat().st_mode & 0o777 != mode:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, text.encode(), mode)
    return path


@cache
def tool_version(path: str) -> str:
    """The last full version that ``path --version`` prints (12.2.0, 13.0.88), or ``unknown``."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    numbers = re.findall(r"\d+\.\d+\.\d+", answer.stdout) or re.findall(r"\d+\.\d+", answer.stdout)
    return numbers[-1] if numbers else "unknown"
