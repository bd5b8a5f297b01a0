"""A CUDA 13 toolkit that lies in pieces, put together as the one folder that Jittor expects.

Links only, below Jittor's cache: ``include``, ``lib64`` with the names that a linker looks for (``libcudart.so``) and those
that programs load (``libcudart.so.13``), and ``bin/nvcc``, a script of one line, because Jittor follows a link to where the
compiler really lies and looks for ``lib64`` there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cpanet.runtime.cuda.toolkit import PIECES, Piece, Toolkit
from cpanet.runtime.links import make_folder, stand_for


def assemble(toolkit: Toolkit, folder: Path) -> Path:
    """The folder of links for ``toolkit``, below ``folder``; its ``nvcc``. Made once, and again when a piece has changed.

    Call it under the import lock.
    """
    wanted = links(toolkit)
    linked = folder / f"cuda-{_key(toolkit, wanted)}"
    nvcc = linked / "bin" / "nvcc"
    if nvcc.is_file() and all((linked / name).exists() for name in wanted):
        return nvcc
    make_folder(linked, wanted, {"bin/nvcc": stand_for(toolkit.nvcc)})
    return nvcc


def links(toolkit: Toolkit) -> dict[str, Path]:
    """Names in the folder of links, and what they point to; of two pieces that bring the same name the first one's."""
    found: dict[str, Path] = {}
    for piece in PIECES:
        place = toolkit.pieces[piece.name]
        for file in _matching(piece, place.libraries, libraries=True):
            found.setdefault(f"lib64/{file.name}", file)
            if ".so." in file.name:
                found.setdefault(f"lib64/{file.name.partition('.so.')[0]}.so", file)
        for file in _matching(piece, place.includes, libraries=False):
            found.setdefault(f"include/{file.name}", file)
    return found


def _matching(piece: Piece, folders: Sequence[Path], libraries: bool) -> list[Path]:
    """Files that ``piece`` links from ``folders``, by its patterns for libraries or headers ("cub/": a folder)."""
    return [
        file
        for folder in folders
        for pattern in piece.links
        if pattern.startswith("lib") == libraries
        for file in sorted(folder.glob(pattern.rstrip("/")))
        if file.is_dir() == pattern.endswith("/")
    ]


def _key(toolkit: Toolkit, wanted: Mapping[str, Path]) -> str:
    """Of what decides the folder of links: which files, where, and that they are still those (size, time of change)."""
    digest = hashlib.sha256(f"{toolkit.nvcc.resolve()}\n{toolkit.version}\n".encode())
    for name, target in sorted(wanted.items()):
        status = target.stat()
        digest.update(f"{name}\n{target}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]
