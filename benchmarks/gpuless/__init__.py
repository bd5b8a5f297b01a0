"""CUDA's libraries without a GPU: stand-ins that take every call and compute nothing.

With NVIDIA's real compiler and headers, and these in the place of the libraries, Jittor is built for CUDA, every kernel of a
training step is compiled, loaded and launched, and only what a kernel would have computed is missing (memory starts as
zeros). So a machine without a GPU shows whether all of it compiles and links, which functions are called how often, and
where the host waits for the device.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cpanet.runtime.cuda.toolkit import Toolkit
from cpanet.runtime.cuda.toolkit_links import links
from cpanet.runtime.links import stand_for

HERE = Path(__file__).parent
WITH_BODIES = {"libcudart": "cudart.c", "libcudnn": "cudnn.c"}  # cuDNN's parts have its functions, too


def build(toolkit: Toolkit, folder: Path) -> dict[str, str]:
    """A toolkit of stand-ins below ``folder``, with the compiler and headers of ``toolkit``; the environment that uses it.

    Needs gcc and nm. Built once: another time it would be another toolkit, for which everything is compiled anew. The
    stand-in for the driver, too, is found through the environment, from the start of a process.
    """
    built = folder / "built"
    key = _key(toolkit)
    if not built.is_file() or built.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        _build(toolkit, folder)
        built.write_text(key)
    return environment(folder)


def _key(toolkit: Toolkit) -> str:
    """Of the stand-ins' sources and what they stand in for."""
    digest = hashlib.sha256(str(sorted(links(toolkit).items())).encode())
    for source in sorted(HERE.glob("*.[cp]*")):
        if source.is_file():
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _build(toolkit: Toolkit, folder: Path) -> None:
    root, driver = folder / "root", folder / "driver"
    for name in ("bin", "lib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    driver.mkdir(exist_ok=True)
    (root / "nvvm").symlink_to(toolkit.root / "nvvm")
    nvcc = root / "bin" / "nvcc"
    nvcc.write_text(stand_for(toolkit.nvcc))
    nvcc.chmod(0o755)
    real = links(toolkit)
    for name, target in real.items():
        if name.startswith("include/"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).symlink_to(target)
    _compile([HERE / "counter.c"], root / "lib" / "libcounter.so")
    for file in sorted({target for name, target in real.items() if ".so" in name}):
        _stand_in(file, root)
    (root / "lib" / "libcudadevrt.a").symlink_to(real["lib64/libcudadevrt.a"])
    for name in ("libcuda.so.1", "libcuda.so"):
        _compile([HERE / "driver.c"], driver / name)


def read_counts(file: Path) -> dict[str, int]:
    """The calls that ``stand_in_write`` wrote: a count and a name a line."""
    rows = (line.split(" ", 1) for line in file.read_text().splitlines())
    return {name: int(count) for count, name in rows}


def environment(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``environ`` in which the stand-ins of ``folder`` are the machine's driver and toolkit."""
    changed = {k: v for k, v in environ.items() if k not in ("nvcc_path", "CUDA_HOME", "CUDA_PATH")}
    changed["CPANET_CUDA"] = str(folder / "root")
    changed["LD_LIBRARY_PATH"] = str(folder / "driver")
    return changed


def counter(folder: Path) -> Path:
    """The library that counts calls: ``stand_in_reset()``, ``stand_in_write(file)``."""
    return folder / "root" / "lib" / "libcounter.so"


def _stand_in(library: Path, root: Path) -> None:
    """A library with the functions of ``library``: written out where they must answer, else "success"."""
    source = WITH_BODIES.get(library.name.partition(".")[0].partition("_")[0])
    bodies, written = [], set()
    if source is not None:
        bodies = [root / f"{source}.o"]
        _gcc("-c", HERE / source, f"-I{root / 'include'}", "-o", bodies[0])
        written = _functions(bodies[0], "-g")
    names = sorted(_functions(library, "-D") - written)
    stubs = root / f"{library.name}.c"
    lines = [f'int {name}() {{ return stand_in_count("{name}"); }}' for name in names]
    stubs.write_text("int stand_in_count();\n" + "\n".join(lines) + "\n")
    soname = f"-Wl,-soname,{library.name}"
    counts = ["-L", str(root / "lib"), "-lcounter", f"-Wl,-rpath,{root / 'lib'}"]
    _compile([stubs, *bodies], root / "lib" / library.name, soname, *counts)


def _functions(file: Path, table: str) -> set[str]:
    """Functions that a library or object file defines, as C names."""
    command = ["nm", table, "--defined-only", str(file)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    names = {row[2].partition("@")[0] for row in rows if len(row) == 3 and row[1] in "TW"}
    return {name for name in names if name.isidentifier() and not name.startswith(("_Z", "_init", "_fini"))}


def _compile(sources: list[Path], result: Path, *flags: str) -> None:
    _gcc("-shared", *sources, *flags, "-o", result)


def _gcc(*arguments: str | Path) -> None:
    command = ["gcc", "-O1", "-w", "-fPIC", "-fno-builtin", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True)
