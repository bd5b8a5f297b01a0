"""Folders of links to what is installed elsewhere, presented as somebody expects it: made whole, or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from cpanet.runtime.toolchain import keep_text


def make_folder(folder: Path, links: Mapping[str, Path], files: Mapping[str, str]) -> Path:
    """``folder`` anew, of ``links`` (name → target) and written ``files`` (name → text); returns it.

    Nobody sees it half made; two processes that make it at once need a lock all the same.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    for name, target in links.items():
        link = partial / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    for name, text in files.items():
        keep_text(partial / name, text)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def stand_for(program: Path) -> str:
    """A script that runs ``program``: for those who would follow a link to where it lies."""
    return f'#!/bin/sh\nexec {shlex.quote(str(program.resolve()))} "$@"\n'
