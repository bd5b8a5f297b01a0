"""The environment variables that Jittor reads when it is imported, chosen for one device, and those of other processes.

Jittor's are its own names. What the user has set stays, except where Jittor would fail or download.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cpanet.runtime.processor import available_cpus


def wants_onednn(environ: Mapping[str, str]) -> bool:
    """Whether the user has left Jittor's ``use_mkl`` switch on."""
    return environ.get("use_mkl", "1") == "1"


def jittor_environment(
    environ: Mapping[str, str],
    home: Path,
    compiler: str,
    nvcc: Path | None,
    onednn: bool,
    python_config: Path | None = None,
    threads: int | None = None,
    verbose: bool = False,
    package: Path | None = None,
) -> dict[str, str]:
    """Variables to set before ``import jittor``. ``nvcc`` None means CPU, ``package`` None the installed Jittor."""
    chosen = {
        "JITTOR_HOME": str(home),
        "cc_path": compiler,
        "nvcc_path": "" if nvcc is None else str(nvcc),  # empty: Jittor does not look for CUDA at all
        # All four would be downloaded; none is needed by the operators used here.
        "use_cutt": "0",
        "use_cutlass": "0",
        "use_nccl": "0",
        "use_mkl": "1" if onednn and wants_onednn(environ) else "0",
        "cache_name": _cache_name(environ, package),
        "gdb_path": environ.get("gdb_path", ""),  # asked for its version at every start otherwise
        # Jittor imports torch, where there is one, before it starts (seconds). That matters only where both
        # are used in one process, and there torch must come first.
        "FIX_TORCH_ERROR": environ.get("FIX_TORCH_ERROR", "1" if "torch" in sys.modules else "0"),
        "log_silent": "0" if verbose else environ.get("log_silent", "1"),
        "OMP_NUM_THREADS": str(threads or environ.get("OMP_NUM_THREADS") or available_cpus()),
    }
    if "OMPI_COMM_WORLD_SIZE" not in environ:
        chosen["use_mpi"] = "0"  # outside mpirun it is only compiled, never used
    if python_config is not None:
        chosen["python_config_path"] = environ.get("python_config_path", str(python_config))
    return chosen


def _cache_name(environ: Mapping[str, str], package: Path | None) -> str:
    """The folder of Jittor's cache that this Jittor compiles into.

    Jittor names it after the git branch of the folder it is installed in: with a virtual environment inside a repository,
    every change of branch would compile it anew. A patched Jittor has one of its own, or it and the installed one would
    compile each other's core anew in turns; also in a process whose parent runs the other one, and has set the variable.
    """
    asked = environ.get("cache_name", "default").partition("+")[0]
    return asked if package is None else f"{asked}+{package.name}"


def export_source_folder() -> None:
    """Put the folder of this package on ``PYTHONPATH``: a scheduler's processes start in folders of their own."""
    folder = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH", "")
    if folder not in before.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, before)))
