"""CPANet on Jittor: few-shot segmentation of steel-surface defects.

``cpanet.load(checkpoint)`` gives a :class:`cpanet.predict.Segmenter`; importing this alone imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
_LATE = ("Segmenter", "load")


def __getattr__(name: str) -> Any:
    """``cpanet.load`` and ``cpanet.Segmenter``, imported when they are asked for."""
    if name in _LATE:
        return getattr(importlib.import_module("cpanet.predict"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATE])
