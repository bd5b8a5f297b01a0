"""Processes that this one starts, or has started, as the kernel lists them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cpanet.runtime import prepare
from tests.shared import REPO


def environment(**changes: str) -> dict[str, str]:
    """That of these tests, with their warm cache of Jittor unless ``changes`` says otherwise."""
    home = str(prepare().cache_home.parent.parent)
    return {**os.environ, "PYTHONPATH": str(REPO), "JITTOR_HOME": home, **changes}


def python(code: str, cwd: Path = REPO, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` in a new process, in :func:`environment`."""
    command, settings = [sys.executable, "-c", code], environment(**changes)
    return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=900)


def data_workers() -> list[int]:
    """Numbers of this process's children that run and load data for it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            mine = int(parent) == os.getpid() and state != "Z"
            if mine and "data_worker" in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return sorted(found)
