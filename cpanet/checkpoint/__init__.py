"""Weights in and out: this project's ``.safetensors``, released ``.pth`` files, ImageNet backbones. No code is ever run.

Describing a file imports no Jittor; what puts weights into a model does, once it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cpanet.checkpoint.description import Description, describe
from cpanet.checkpoint.files import read_checkpoint, read_tensors, write_checkpoint

if TYPE_CHECKING:
    from cpanet.checkpoint.weights import load_backbone_weights, load_weights, model_tensors

__all__ = [
    "Description",
    "describe",
    "load_backbone_weights",
    "load_weights",
    "model_tensors",
    "read_checkpoint",
    "read_tensors",
    "write_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in ("load_backbone_weights", "load_weights", "model_tensors"):
        return getattr(importlib.import_module("cpanet.checkpoint.weights"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
