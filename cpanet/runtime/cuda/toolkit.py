"""CUDA toolkits on this machine: a compiler, and the libraries and headers that belong to it.

Up to CUDA 12 a toolkit is one folder, with cuDNN in it or in the system's folders. CUDA 13 may lie in pieces: NVIDIA's
wheels put compiler, headers and libraries below ``nvidia/`` of an environment (``nvidia/cu13``, ``nvidia/cudnn``), and a
machine may have its compiler below /usr/local and cuDNN in an environment. So each piece is looked for by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cpanet.runtime.toolchain import tool_version

FOLDERS = "CPANET_CUDA"  # environment variable: further folders that hold pieces, separated by colons
USUAL = (
    Path("/usr/local/cuda"),
    *sorted(Path("/usr/local").glob("cuda-1*"), reverse=True),
    Path("/opt/cuda"),
    Path("/usr"),
)
# the system's folders of libraries and of headers
SYSTEM: tuple[Sequence[Path], Sequence[Path]] = (
    (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib")),
    (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu")),
)
REMEDY = "pip install '.[cuda]' brings it"


def dotted(version: tuple[int, ...] | None) -> str:
    """(13, 0) as "13.0"; nothing for None."""
    return ".".join(map(str, version or ()))


@dataclass(frozen=True)
class Piece:
    """Something of a CUDA 13 toolkit: a library by the name that programs load, a header, or both.

    ``links`` are the patterns of what is linked from the folders where these lie.
    """

    name: str
    library: str = ""
    header: str = ""
    links: tuple[str, ...] = ()


RUNTIME = Piece(
    "CUDA runtime",
    "libcudart.so.13",
    "cuda_runtime_api.h",
    ("libcudart.so*", "libcudadevrt.a", "*.h", "*.hpp", "*/"),
)
CUDNN = Piece("cuDNN 9", "libcudnn.so.9", "cudnn_version.h", ("libcudnn*.so*", "cudnn*.h"))
PIECES = (
    RUNTIME,
    Piece("CUDA C++ headers", "", "cub/cub.cuh", ("cub/", "thrust/", "cuda/", "nv/")),
    Piece("cuBLAS", "libcublas.so.13", "cublas_v2.h", ("libcublas.so*", "libcublasLt.so*", "cublas*.h")),
    CUDNN,
    Piece("cuRAND", "libcurand.so.10", "curand.h", ("libcurand.so*", "curand*.h")),
    Piece("cuFFT", "libcufft.so.12", "cufft.h", ("libcufft.so*", "cufft*.h", "cudalibxt.h")),
    Piece("cuSPARSE", "libcusparse.so.12", "cusparse.h", ("libcusparse.so*", "cusparse*.h")),
    Piece("nvJitLink", "libnvJitLink.so.13", "", ("libnvJitLink.so*",)),
)


class Found(NamedTuple):
    """Where a piece lies: the folder of its library and that of its header; empty where it has none."""

    libraries: tuple[Path, ...] = ()
    includes: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: compiler, its version, and the libraries found with it (None where missing).

    ``pieces`` is for CUDA 13 alone, by name; ``headers`` the CUDA release of the runtime's headers there, and
    ``newest_gcc`` the newest major version of g++ that the compiler takes (None: not known).
    """

    nvcc: Path
    version: tuple[int, ...]
    cudart: Path | None = None
    cudnn: Path | None = None
    cudnn_version: tuple[int, ...] | None = None
    pieces: Mapping[str, Found] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    headers: tuple[int, int] | None = None
    newest_gcc: int | None = None

    @property
    def complete(self) -> bool:
        return self.cudart is not None and self.cudnn is not None and not self.missing

    @property
    def assembled(self) -> bool:
        """Whether Jittor needs it put together first (and its own sources patched): CUDA 13."""
        return self.version[0] == 13

    @property
    def root(self) -> Path:
        return _root(self.nvcc)


def wheel_roots(folder: Path) -> Iterator[Path]:
    """Folders below ``folder/nvidia`` that hold pieces: ``cu13`` first, then those of single packages."""
    nvidia = folder / "nvidia"
    if nvidia.is_dir():
        named = sorted(p for p in nvidia.iterdir() if (p / "lib").is_dir() or (p / "include").is_dir())
        yield from sorted(named, key=lambda p: p.name != "cu13")


def find_toolkit(environ: Mapping[str, str], path: Sequence[str] | None = None) -> Toolkit | str:
    """The first complete toolkit, else the first incomplete one; a string is the reason why there is none.

    Its compiler is the one that ``nvcc_path`` names, else those of NVIDIA's wheels, of the PATH, of the usual folders.
    ``path`` are the folders that Python imports from (``sys.path``): there lie the wheels.
    """
    asked = environ.get("nvcc_path")
    if asked == "":
        return "CUDA is switched off by an empty nvcc_path in the environment"
    named = [Path(folder) for folder in environ.get(FOLDERS, "").split(os.pathsep) if folder]
    homes = [Path(environ[name]) for name in ("CUDA_HOME", "CUDA_PATH", "CUDNN_HOME") if environ.get(name)]
    folders = [*named, *map(Path, sys.path if path is None else path)]
    wheels = [root for folder in folders for root in wheel_roots(folder)]
    given, on_path = [*named, *wheels, *homes], shutil.which("nvcc", path=environ.get("PATH"))
    usual = [root / "bin" / "nvcc" for root in USUAL]
    others = [*(root / "bin" / "nvcc" for root in given), *([Path(on_path)] if on_path else []), *usual]
    candidates = [Path(asked)] if asked else others
    compilers = list(dict.fromkeys(candidate for candidate in candidates if candidate.is_file()))
    if not compilers:
        return f"no CUDA compiler (nvcc) was found; {REMEDY}"
    # the system's own folders come last, and by patterns alone
    roots = [root for root in (*given, *USUAL) if root.is_dir() and root != Path("/usr")]
    toolkits = [toolkit for nvcc in compilers if (toolkit := _read_toolkit(nvcc, roots)) is not None]
    if not toolkits:
        return f"{compilers[0]} does not run"
    return next((toolkit for toolkit in toolkits if toolkit.complete), toolkits[0])


def _read_toolkit(nvcc: Path, roots: Sequence[Path]) -> Toolkit | None:
    version = tuple(int(n) for n in re.findall(r"\d+", tool_version(str(nvcc))))
    if not version:
        return None
    if version[0] == 13:
        return _in_pieces(nvcc, version, roots)
    root = _root(nvcc)
    own, own_includes = _folders(root)
    libraries = [*own, *SYSTEM[0]]
    # The runtime must be of this very toolkit; cuDNN is often installed apart from it.
    own = libraries if root == Path("/usr") else own
    return Toolkit(
        nvcc=nvcc,
        version=version,
        cudart=_first_file(own, "libcudart.so"),
        cudnn=_first_file(libraries, "libcudnn.so"),
        cudnn_version=_cudnn_version([*own_includes, *SYSTEM[1]]),
    )


def _in_pieces(nvcc: Path, version: tuple[int, ...], roots: Sequence[Path]) -> Toolkit:
    root = _root(nvcc)
    searched = [*map(_folders, dict.fromkeys([root, *roots])), SYSTEM]  # the compiler's own before all others
    found = {}
    for piece in PIECES:
        whole = (place for folders in searched if (place := _find(piece, *folders)) is not None)
        if (first := next(whole, None)) is not None:
            found[piece.name] = first
    missing = [piece.name for piece in PIECES if piece.name not in found]
    if not (root / "nvvm/bin/cicc").is_file():
        missing.append("NVVM")
    runtime, cudnn = (found.get(piece.name, Found()) for piece in (RUNTIME, CUDNN))
    headers = _number(runtime.includes, RUNTIME.header, r"#define\s+CUDART_VERSION\s+(\d+)")
    return Toolkit(
        nvcc=nvcc,
        version=version,
        cudart=_first_file(runtime.libraries, RUNTIME.library),
        cudnn=_first_file(cudnn.libraries, CUDNN.library),
        cudnn_version=_cudnn_version(cudnn.includes),
        pieces=found,
        missing=tuple(missing),
        headers=None if headers is None else (headers // 1000, headers % 1000 // 10),
        # what the compiler's own check allows as host compiler
        newest_gcc=_number(_folders(root)[1], "crt/host_config.h", r"__GNUC__ > (\d+)"),
    )


def _find(piece: Piece, libraries: Sequence[Path], includes: Sequence[Path]) -> Found | None:
    """The piece in these folders, where all of it is there."""
    library = [folder for folder in libraries if piece.library and (folder / piece.library).is_file()][:1]
    header = [folder for folder in includes if piece.header and (folder / piece.header).is_file()][:1]
    if bool(library) != bool(piece.library) or bool(header) != bool(piece.header):
        return None
    return Found(tuple(library), tuple(header))


def _folders(root: Path) -> tuple[Sequence[Path], Sequence[Path]]:
    """Folders of libraries and of headers of a toolkit at ``root``."""
    target = root / "targets/x86_64-linux"
    includes = [root / "include", target / "include"]
    return [root / "lib64", root / "lib", target / "lib"], [*includes, *(i / "cccl" for i in includes)]


def _first_file(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _cudnn_version(includes: Sequence[Path]) -> tuple[int, ...] | None:
    parts = (rf"#define CUDNN_{part}\s+(\d+)" for part in ("MAJOR", "MINOR", "PATCHLEVEL"))
    found = [_number(includes, "cudnn_version.h", part) for part in parts]
    return tuple(number for number in found if number is not None) or None


def _number(includes: Sequence[Path], name: str, pattern: str) -> int | None:
    """The number that the header ``name`` has where ``pattern`` says; None where either is missing."""
    header = _first_file(includes, name)
    found = re.search(pattern, header.read_text(errors="replace")) if header is not None else None
    return int(found.group(1)) if found else None


def _root(nvcc: Path) -> Path:
    return nvcc.resolve().parent.parent
