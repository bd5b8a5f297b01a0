"""oneDNN for Jittor's CPU convolutions, from the wheels instead of from a download.

Jittor looks for a release archive of oneDNN, unpacked as ``mkl/dnnl_lnx_2.2.0_cpu_gomp`` in its cache, and
downloads it otherwise. The wheels below hold oneDNN 2.6, which it compiles and runs with; they are presented
there through links, so that nothing is copied and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from cpanet.files import replacing
from cpanet.runtime.links import make_folder

LIBRARY_WHEEL = "onednn-cpu-gomp"
HEADER_WHEEL = "onednn-devel-cpu-gomp"
WHEEL_VERSION = "2022.2.1"
EXPECTED_NAME = "dnnl_lnx_2.2.0_cpu_gomp"  # jittor/compile_extern.py, install_mkl
REMEDY = f"pip install {LIBRARY_WHEEL}=={WHEEL_VERSION} {HEADER_WHEEL}=={WHEEL_VERSION}"


class Wheels(NamedTuple):
    """Where pip put oneDNN: the shared library, and the folder that holds ``dnnl.hpp`` and ``oneapi/``."""

    library: Path
    include: Path


def find_wheels() -> Wheels | None:
    """oneDNN as pip installed it into this environment (virtual, user or system), or None."""
    library = _installed_file(LIBRARY_WHEEL, "libdnnl.so.2")
    header = _installed_file(HEADER_WHEEL, "dnnl.hpp")
    return None if library is None or header is None else Wheels(library, header.parent)


def _installed_file(distribution: str, name: str) -> Path | None:
    """The outermost file called ``name`` that ``distribution`` installed, where it really exists."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    named = sorted((f for f in files if f.name == name), key=lambda f: len(f.parts))
    paths = (Path(os.path.normpath(str(f.locate()))) for f in named if f.parent.name != "dnnl")
    return next((path for path in paths if path.is_file()), None)


def present(cache: Path, wheels: Wheels | None) -> Path | None:
    """Makes oneDNN appear where Jittor looks for it, and returns its library; None where there is no oneDNN.

    ``cache`` is ``<jittor home>/.cache/jittor``. A working oneDNN that somebody else put there (Jittor's own
    download) is used as it is; a broken one is moved aside, never deleted. Call it under the import lock.
    """
    place = release(cache)
    library = place / "lib" / "libmkldnn.so"
    ours = place.is_symlink()
    if (wheels is None or not ours) and _is_release(place):
        return library.resolve()
    if wheels is None:
        return None
    linked = _link_folder(cache / "cpanet", wheels)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not ours and place.exists():
        # Jittor takes the first folder there whose name starts with "dnnl", hence the other name.
        place.rename(place.with_name(f"broken-{EXPECTED_NAME}-{os.getpid()}"))
    if not ours or os.readlink(place) != str(linked):
        with replacing(place) as partial:
            partial.symlink_to(linked)
    return library.resolve()


def _is_release(folder: Path) -> bool:
    return (folder / "lib" / "libmkldnn.so").is_file() and (folder / "include" / "dnnl.hpp").is_file()


def release(cache: Path) -> Path:
    """The folder with ``include`` and ``lib`` that :func:`present` made."""
    return cache / "mkl" / EXPECTED_NAME


def _link_folder(folder: Path, wheels: Wheels) -> Path:
    """The wheels as an unpacked release (``include/``, ``lib/``), by links; named by where the wheels lie."""
    key = hashlib.sha256(f"{wheels.library}\n{wheels.include}".encode()).hexdigest()[:12]
    linked = folder / f"onednn-{key}"
    if _is_release(linked):
        return linked
    # .so.2 is the name inside the library
    links = {f"lib/{name}": wheels.library for name in ("libmkldnn.so", "libdnnl.so", "libdnnl.so.2")}
    # not the folder: other packages' headers lie there too
    links.update({f"include/{header.name}": header for header in wheels.include.glob("dnnl*.h*")})
    return make_folder(linked, {**links, "include/oneapi": wheels.include / "oneapi"}, {})
