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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from cpanet.runtime.toolchain import tool_version

FOLDERS = "CPANET_CUDA"  # environment variable: further folders that hold pieces, separated by colons
USUAL = (
    Path("/usr/local/cuda"),
    *sorted(Path("/usr/local").glob("cuda-1*"), reverse=True),
    Path("/opt/cuda"),
    Path("/usr"),
)
REMEDY = "pip install '.[cuda]' brings it"


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


@dataclass(frozen=True)
class Found:
    """Where a piece lies: the folder of its library and that of its header; None where it has none."""

    library: Path | None
    include: Path | None


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
        return self.nvcc.resolve().parent.parent


@dataclass(frozen=True)
class ToolkitPlaces:
    """Where to look: compilers in order of preference, folders with pieces, and the system's own folders."""

    nvcc: tuple[Path, ...]
    system_libraries: tuple[Path, ...] = ()
    system_includes: tuple[Path, ...] = ()
    switched_off: bool = False
    version_of: Callable[[str], str] = field(default=tool_version)
    roots: tuple[Path, ...] = ()

    @classmethod
    def of_machine(
        cls, environ: Mapping[str, str], path: Sequence[str] | None = None, usual: Sequence[Path] = USUAL
    ) -> ToolkitPlaces:
        """The compiler that ``nvcc_path`` names, else those of NVIDIA's wheels, of the PATH, of the ``usual`` folders.

        ``path`` are the folders that Python imports from (``sys.path``): there lie the wheels.
        """
        asked = environ.get("nvcc_path")
        named = [Path(folder) for folder in environ.get(FOLDERS, "").split(os.pathsep) if folder]
        homes = [
            Path(environ[name]) for name in ("CUDA_HOME", "CUDA_PATH", "CUDNN_HOME") if environ.get(name)
        ]
        folders = [*named, *map(Path, sys.path if path is None else path)]
        wheels = [root for folder in folders for root in wheel_roots(folder)]
        on_path = shutil.which("nvcc", path=environ.get("PATH"))
        given = [root / "bin" / "nvcc" for root in (*named, *wheels, *homes)]
        others = [*([Path(on_path)] if on_path else []), *(root / "bin" / "nvcc" for root in usual)]
        candidates = [Path(asked)] if asked else [*given, *others]
        return cls(
            nvcc=tuple(dict.fromkeys(c for c in candidates if c.is_file())),
            system_libraries=(Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib")),
            system_includes=(Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu")),
            switched_off=asked == "",
            # the system's own folders come last, and by patterns alone
            roots=tuple(
                dict.fromkeys(
                    r for r in (*named, *wheels, *homes, *usual) if r.is_dir() and r != Path("/usr")
                )
            ),
        )


def wheel_roots(folder: Path) -> Iterator[Path]:
    """Folders below ``folder/nvidia`` that hold pieces: ``cu13`` first, then those of single packages."""
    nvidia = folder / "nvidia"
    if nvidia.is_dir():
        named = sorted(p for p in nvidia.iterdir() if (p / "lib").is_dir() or (p / "include").is_dir())
        yield from sorted(named, key=lambda p: p.name != "cu13")


def find_toolkit(places: ToolkitPlaces) -> Toolkit | str:
    """The first complete toolkit, else the first incomplete one; a string is the reason why there is none."""
    if places.switched_off:
        return "CUDA is switched off by an empty nvcc_path in the environment"
    toolkits = [toolkit for nvcc in places.nvcc if (toolkit := _read_toolkit(nvcc, places)) is not None]
    if not toolkits:
        return (
            f"no CUDA compiler (nvcc) was found; {REMEDY}"
            if not places.nvcc
            else f"{places.nvcc[0]} does not run"
        )
    return next((toolkit for toolkit in toolkits if toolkit.complete), toolkits[0])


def _read_toolkit(nvcc: Path, places: ToolkitPlaces) -> Toolkit | None:
    version = _numbers(places.version_of(str(nvcc)))
    if not version:
        return None
    if version[0] == 13:
        return _in_pieces(nvcc, version, places)
    root = nvcc.resolve().parent.parent
    own, own_includes = _folders(root)
    libraries = [*own, *places.system_libraries]
    # The runtime must be of this very toolkit; cuDNN is often installed apart from it.
    own = libraries if root == Path("/usr") else own
    return Toolkit(
        nvcc=nvcc,
        version=version,
        cudart=_first_file(own, "libcudart.so"),
        cudnn=_first_file(libraries, "libcudnn.so"),
        cudnn_version=_cudnn_version([*own_includes, *places.system_includes]),
    )


def _in_pieces(nvcc: Path, version: tuple[int, ...], places: ToolkitPlaces) -> Toolkit:
    root = nvcc.resolve().parent.parent
    roots = dict.fromkeys([root, *places.roots])
    found = {piece.name: place for piece in PIECES if (place := _find(piece, roots, places)) is not None}
    missing = [piece.name for piece in PIECES if piece.name not in found]
    if not (root / "nvvm/bin/cicc").is_file():
        missing.append("NVVM")
    runtime, cudnn = found.get(RUNTIME.name), found.get(CUDNN.name)
    return Toolkit(
        nvcc=nvcc,
        version=version,
        cudart=runtime.library / RUNTIME.library if runtime and runtime.library else None,
        cudnn=cudnn.library / CUDNN.library if cudnn and cudnn.library else None,
        cudnn_version=_cudnn_version([cudnn.include]) if cudnn and cudnn.include else None,
        pieces=found,
        missing=tuple(missing),
        headers=_headers_release(runtime.include) if runtime and runtime.include else None,
        newest_gcc=_newest_gcc(root),
    )


def _find(piece: Piece, roots: Iterable[Path], places: ToolkitPlaces) -> Found | None:
    """The first root that has the piece whole, the compiler's own before all others; the system's folders last."""
    for root in roots:
        place = _whole(piece, *_folders(root))
        if place is not None:
            return place
    return _whole(piece, places.system_libraries, places.system_includes)


def _whole(piece: Piece, libraries: Sequence[Path], includes: Sequence[Path]) -> Found | None:
    library = _first_file(libraries, piece.library) if piece.library else None
    header = _first_file(includes, piece.header) if piece.header else None
    if (piece.library and library is None) or (piece.header and header is None):
        return None
    include = None if header is None else Path(str(header)[: -len(piece.header) - 1])
    return Found(None if library is None else library.parent, include)


def _folders(root: Path) -> tuple[list[Path], list[Path]]:
    """Folders of libraries and of headers of a toolkit at ``root``."""
    target = root / "targets/x86_64-linux"
    includes = [root / "include", target / "include"]
    return [root / "lib64", root / "lib", target / "lib"], [*includes, *(i / "cccl" for i in includes)]


def _first_file(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _cudnn_version(includes: Sequence[Path]) -> tuple[int, ...] | None:
    header = _first_file(includes, "cudnn_version.h")
    if header is None:
        return None
    text = header.read_text(errors="replace")
    found = [re.search(rf"#define CUDNN_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCHLEVEL")]
    return tuple(int(match.group(1)) for match in found if match is not None) or None


def _headers_release(include: Path) -> tuple[int, int] | None:
    """The CUDA release of the runtime's headers, as (13, 0)."""
    text = (include / RUNTIME.header).read_text(errors="replace")
    found = re.search(r"#define\s+CUDART_VERSION\s+(\d+)", text)
    return (int(found.group(1)) // 1000, int(found.group(1)) % 1000 // 10) if found else None


def _newest_gcc(root: Path) -> int | None:
    """The newest GCC that the compiler's own check allows as host compiler (``crt/host_config.h``)."""
    header = _first_file(_folders(root)[1], "crt/host_config.h")
    found = re.search(r"__GNUC__ > (\d+)", header.read_text(errors="replace")) if header is not None else None
    return int(found.group(1)) if found else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))
