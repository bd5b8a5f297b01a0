"""Jittor that imports: the one place that touches the environment before ``import jittor``.

``from cpanet.runtime import jt`` gives Jittor, prepared for this machine; ``prepare(device=...)`` does the
same by hand and says what was chosen. Importing this package alone costs nothing and imports no Jittor.

Jittor and PyTorch in one process: import torch first (see ``environment.py``).
"""

from __future__ import annotations

from typing import Any

from cpanet.runtime.cuda.probe import CudaReport, probe_cuda
from cpanet.runtime.environment import export_source_folder
from cpanet.runtime.home import user_cache
from cpanet.runtime.start import Runtime, current, prepare, versions

__all__ = [
    "CudaReport",
    "Runtime",
    "current",
    "export_source_folder",
    "jt",
    "prepare",
    "probe_cuda",
    "user_cache",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name == "jt":
        if current() is None:
            prepare()
        import jittor

        return jittor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
