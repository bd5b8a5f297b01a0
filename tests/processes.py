"""Processes that this one has started, as the kernel lists them."""

from __future__ import annotations

import os
from pathlib import Path


def children(command: str) -> list[int]:
    """Numbers of this process's children that run and have ``command`` in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
                if (
                    int(parent) == os.getpid()
                    and state != "Z"
                    and command in (folder / "cmdline").read_text()
                ):
                    found.append(int(folder.name))
            except OSError:  # it has ended meanwhile
                continue
    return sorted(found)


def data_workers() -> list[int]:
    """Numbers of the processes that load data for this one."""
    return children("data_worker")
